//! The session on ONNX Runtime. With [`super::kv`], the only file that imports `ort`.
//!
//! So far one layout is understood: the native grouped-query one, whose inputs are `input_ids`,
//! `seqlens_k`, `total_sequence_length` and `past_key_values.N.{key,value}` of a fixed capacity.
//! Any other is refused by name.

use std::{ffi::CString, path::Path};

use nearhop_conf::source::Env;
use ort::{
    environment::Environment,
    memory::Allocator,
    session::{Session as OnnxSession, builder::GraphOptimizationLevel},
    value::{Outlet, Tensor as OrtTensor},
};

use super::{
    Session, StepError,
    kv::{Geometry, KvPool, Tensor},
    library,
};
use crate::{Model, OriginError};

/// The loaded ONNX Runtime library. One a process is enough.
#[derive(Clone)]
pub struct Runtime(Environment);

impl Runtime {
    /// Loads the library: `configured`, else what `env` and the usual places offer.
    ///
    /// # Errors
    /// [`OriginError::LibraryMissing`] or [`OriginError::LibraryUnusable`].
    pub fn load(configured: Option<&Path>, env: Env<'_>) -> Result<Self, OriginError> {
        let path = library::find(configured, env)?;
        let unusable =
            |message: String| OriginError::LibraryUnusable { path: path.clone(), message };
        let builder = ort::init_from(&path).map_err(|error| unusable(error.to_string()))?;
        let environment = builder.with_name("nearhop").build();
        Ok(Self(environment.map_err(|error| unusable(error.to_string()))?))
    }
}

/// A model's weights, loaded, with KV memory for a number of slots.
pub struct OrtSession {
    session: OnnxSession,
    pool: KvPool,
    vocabulary: usize,
}

const FIXED_INPUTS: [&str; 3] = ["input_ids", "seqlens_k", "total_sequence_length"];

impl OrtSession {
    /// Loads `model`'s weights for `slots` sequences, on `threads` threads.
    ///
    /// # Errors
    /// [`OriginError::ModelFile`] where the file is missing, cut short, of another layout, or does
    /// not fit the tokenizer.
    pub fn open(
        runtime: &Runtime,
        model: &Model,
        slots: usize,
        threads: usize,
    ) -> Result<Self, OriginError> {
        let path = model.weights();
        let wrong = |what: String, fix: &'static str| OriginError::ModelFile {
            path: path.clone(),
            what,
            fix,
        };
        const FETCH: &str = "Copy the model folder from where it came from again";
        if !path.is_file() {
            return Err(wrong("it does not exist".to_owned(), FETCH));
        }
        let session = commit(runtime, &path, threads)
            .map_err(|error| wrong(format!("ONNX Runtime refuses it: {error}"), FETCH))?;
        let layout = Layout::read(session.inputs(), session.outputs()).map_err(|what| {
            wrong(what, "Export the model in the native grouped-query layout of nearhop-mini")
        })?;
        if layout.vocabulary < model.vocabulary() {
            let what = format!(
                "it predicts {} tokens, and tokenizer.json has {}",
                layout.vocabulary,
                model.vocabulary()
            );
            return Err(wrong(what, "Put the files of one model into the folder"));
        }
        let geometry = Geometry {
            slots,
            heads: layout.heads,
            capacity: model.context_length(),
            head_size: layout.head_size,
        };
        let pool = KvPool::new(geometry, layout.tensors);
        Ok(Self { session, pool, vocabulary: layout.vocabulary })
    }

    /// One step over `slots`; `ids` is row-major `[slots, width]`, `totals` the rows' lengths
    /// after it. Appends each row's last logits to `logits`.
    fn step(
        &mut self,
        slots: std::ops::Range<usize>,
        ids: Vec<i64>,
        totals: &[usize],
        logits: &mut Vec<f32>,
    ) -> ort::Result<()> {
        let (batch, vocabulary) = (slots.len(), self.vocabulary);
        let width = ids.len() / batch;
        let last = |total: usize| i32::try_from(total).unwrap_or(i32::MAX);
        let seqlens: Vec<i32> = totals.iter().map(|total| last(*total) - 1).collect();
        let longest = totals.iter().copied().max().unwrap_or(0);
        let mut binding = self.session.create_binding()?;
        binding.bind_input("input_ids", &OrtTensor::from_array(([batch, width], ids))?)?;
        binding.bind_input("seqlens_k", &OrtTensor::from_array(([batch], seqlens))?)?;
        let longest = OrtTensor::from_array(((), vec![last(longest)]))?;
        binding.bind_input("total_sequence_length", &longest)?;
        let out = OrtTensor::<f32>::new(&Allocator::default(), [batch, width, vocabulary])?;
        binding.bind_output("logits", out)?;
        self.pool.run(&mut self.session, binding, slots, |outputs| {
            let (_, values) = outputs["logits"].try_extract_tensor::<f32>()?;
            for row in values.chunks_exact(width * vocabulary) {
                logits.extend_from_slice(&row[(width - 1) * vocabulary..]);
            }
            Ok(())
        })
    }
}

fn commit(runtime: &Runtime, path: &Path, threads: usize) -> ort::Result<OnnxSession> {
    OnnxSession::builder(&runtime.0)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        // Spinning threads would take the cores of the other pods on this machine.
        .with_intra_op_spinning(false)?
        .commit_from_file(path)
}

impl Session for OrtSession {
    fn prefill(
        &mut self,
        slot: usize,
        done: usize,
        tokens: &[u32],
        logits: &mut Vec<f32>,
    ) -> Result<(), StepError> {
        logits.clear();
        let ids = tokens.iter().map(|token| i64::from(*token)).collect();
        self.step(slot..slot + 1, ids, &[done + tokens.len()], logits)
            .map_err(|error| StepError(error.to_string()))
    }

    fn decode(
        &mut self,
        tokens: &[u32],
        lengths: &[usize],
        logits: &mut Vec<f32>,
    ) -> Result<(), StepError> {
        logits.clear();
        let ids = tokens.iter().map(|token| i64::from(*token)).collect();
        let totals: Vec<usize> = lengths.iter().map(|length| length + 1).collect();
        self.step(0..tokens.len(), ids, &totals, logits)
            .map_err(|error| StepError(error.to_string()))
    }

    fn copy(&mut self, from: usize, to: usize, length: usize) {
        self.pool.copy(from, to, length);
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }
}

/// What the graph's inputs and outputs say.
struct Layout {
    heads: usize,
    head_size: usize,
    vocabulary: usize,
    tensors: Vec<Tensor>,
}

impl Layout {
    fn read(inputs: &[Outlet], outputs: &[Outlet]) -> Result<Self, String> {
        let names: Vec<&str> = inputs.iter().map(Outlet::name).collect();
        if let Some(missing) = FIXED_INPUTS.iter().find(|name| !names.contains(name)) {
            return Err(format!(
                "it has no input `{missing}`; its inputs are {}",
                names.join(", ")
            ));
        }
        let mut tensors = Vec::new();
        let mut geometry = None;
        for input in inputs.iter().filter(|input| !FIXED_INPUTS.contains(&input.name())) {
            let name = input.name();
            let Some(rest) = name.strip_prefix("past_key_values.") else {
                return Err(format!("its input `{name}` is not one we can fill"));
            };
            let shape = dimensions(input)?;
            let &[_, heads, _, head_size] = shape.as_slice() else {
                return Err(format!("its input `{name}` has {} dimensions, not 4", shape.len()));
            };
            if geometry.get_or_insert((heads, head_size)) != &(heads, head_size) {
                return Err(format!("its input `{name}` has another shape than the others"));
            }
            let present = format!("present.{rest}");
            if !outputs.iter().any(|output| output.name() == present) {
                return Err(format!("it has no output `{present}` for `{name}`"));
            }
            let past = CString::new(name).map_err(|error| error.to_string())?;
            tensors.push(Tensor { past, present });
        }
        let (heads, head_size) = geometry.ok_or("it has no past_key_values")?;
        let fixed = |size: i64, what: &str| {
            usize::try_from(size).map_err(|_dynamic| format!("its number of {what} is not fixed"))
        };
        let logits = outputs.iter().find(|output| output.name() == "logits");
        let logits = dimensions(logits.ok_or("it has no output `logits`")?)?;
        Ok(Self {
            heads: fixed(heads, "key/value heads")?,
            head_size: fixed(head_size, "values a head")?,
            vocabulary: fixed(logits.last().copied().unwrap_or(-1), "predicted tokens")?,
            tensors,
        })
    }
}

fn dimensions(outlet: &Outlet) -> Result<Vec<i64>, String> {
    let shape = outlet.dtype().tensor_shape();
    shape.map(|shape| shape.to_vec()).ok_or_else(|| format!("`{}` is not a tensor", outlet.name()))
}

#[cfg(test)]
mod tests;
