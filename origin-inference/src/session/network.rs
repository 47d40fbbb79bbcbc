//! A decoder on ONNX Runtime: steps to inputs, outputs to logits, in each layout.

use std::{borrow::Cow, ffi::CString, ops::Range};

use ort::{
    memory::MemoryInfo,
    session::{Session as OnnxSession, SessionInputValue, SessionOutputs},
    value::{DynValue, Tensor},
};

use super::{
    Session, StepError,
    kv::{Binding, Geometry, KvBlock, KvElement, KvPool},
    layout::{Layout, SEQLENS, Style, TOTAL},
};
use crate::model::Element;

/// How keys and values go in and out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvUse {
    /// In memory that the graph reads and writes in place.
    InPlace,
    /// In a buffer that is copied before each step, because the graph cannot write into what it
    /// reads.
    Copied,
    /// The past is gathered before each step, and what is new is taken from the graph's output.
    Gathered,
}

impl KvUse {
    /// Its name in answers and findings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InPlace => "in place",
            Self::Copied => "copied",
            Self::Gathered => "gathered",
        }
    }
}

/// A loaded decoder with KV memory for a number of slots; `T` is what its keys and values are.
pub(crate) struct Network<T> {
    session: OnnxSession,
    pool: KvPool<T>,
    layout: Layout,
    kv_use: KvUse,
    /// The logits' name, as ONNX Runtime has it.
    logits_name: CString,
    /// Whether rows may share a step; otherwise each is computed alone.
    pub(crate) together: bool,
    /// Whether a prompt may be computed in pieces.
    pub(crate) splits: bool,
}

impl<T: KvElement> Network<T> {
    pub(crate) fn new(
        session: OnnxSession,
        layout: Layout,
        (slots, capacity): (usize, usize),
    ) -> Result<Self, String> {
        let geometry =
            Geometry { slots, heads: layout.heads, capacity, head_size: layout.head_size };
        let pool = KvPool::new(geometry, &layout.tensors)?;
        let kv_use = match layout.style {
            Style::Concatenated => KvUse::Gathered,
            Style::Native | Style::Masked => KvUse::InPlace,
        };
        let logits_name =
            CString::new(layout.logits.as_str()).map_err(|error| error.to_string())?;
        Ok(Self { session, pool, layout, kv_use, logits_name, together: true, splits: true })
    }

    pub(crate) fn kv_use(&self) -> KvUse {
        self.kv_use
    }

    /// Stops writing into what is read, where that is being done. Returns whether it was.
    pub(crate) fn fall_back_to_copies(&mut self) -> bool {
        let in_place = self.kv_use == KvUse::InPlace;
        if in_place {
            self.kv_use = KvUse::Copied;
        }
        in_place
    }

    /// One step over `slots`; `ids` is row-major `[slots, width]`, `totals` the rows' lengths
    /// after it. Appends each row's last logits to `logits`.
    fn step(
        &mut self,
        slots: Range<usize>,
        ids: Vec<i64>,
        totals: &[usize],
        logits: &mut Vec<f32>,
    ) -> ort::Result<()> {
        let rows = Rows { width: ids.len() / slots.len(), totals };
        let inputs = self.inputs(ids, &rows)?;
        let how = match self.kv_use {
            KvUse::Gathered => return self.gathered_step(slots, inputs, &rows, logits),
            KvUse::InPlace if rows.width == 1 && slots.start == 0 => {
                return self.bound_step(slots.len(), inputs, logits);
            }
            KvUse::InPlace => Binding::InPlace,
            KvUse::Copied => Binding::Copied,
        };
        let mut binding = self.session.create_binding()?;
        for (name, value) in &inputs {
            binding.bind_input(name.as_str(), value)?;
        }
        binding.bind_output_to_device(self.layout.logits.as_str(), &MemoryInfo::default())?;
        let layout = &self.layout;
        let batch = slots.len();
        self.pool.run(&mut self.session, (binding, how), slots, |outputs| {
            last_logits(layout, batch, outputs, logits)
        })
    }

    /// A decode step of the first rows, whose keys and values stay bound.
    fn bound_step(
        &mut self,
        rows: usize,
        inputs: Vec<(String, DynValue)>,
        logits: &mut Vec<f32>,
    ) -> ort::Result<()> {
        let named = |(name, value)| Ok((CString::new::<String>(name)?, value));
        let inputs: Result<Vec<_>, std::ffi::NulError> = inputs.into_iter().map(named).collect();
        let inputs = inputs.map_err(|error| ort::Error::new(error.to_string()))?;
        let vocabulary = self.layout.vocabulary;
        let shape = match self.layout.logits_rank {
            2 => vec![rows, vocabulary],
            _ => vec![rows, 1, vocabulary],
        };
        let from = logits.len();
        logits.resize(from + rows * vocabulary, 0.0);
        let (name, out) = (self.logits_name.as_c_str(), &mut logits[from..]);
        if self.layout.logits_element == Element::F32 {
            return self.pool.decode(&mut self.session, (rows, &inputs), (name, &shape, out));
        }
        let mut half = vec![half::f16::ZERO; out.len()];
        self.pool.decode(&mut self.session, (rows, &inputs), (name, &shape, &mut half))?;
        out.iter_mut().zip(half).for_each(|(out, half)| *out = half.to_f32());
        Ok(())
    }

    /// A step of a graph that concatenates.
    fn gathered_step(
        &mut self,
        slots: Range<usize>,
        inputs: Vec<(String, DynValue)>,
        rows: &Rows<'_>,
        logits: &mut Vec<f32>,
    ) -> ort::Result<()> {
        let lengths = rows.lengths();
        let longest = rows.longest_past();
        let layout = &self.layout;
        let mut all: Vec<(Cow<'_, str>, SessionInputValue<'_>)> =
            inputs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let shape = [slots.len(), layout.heads, longest, layout.head_size];
        for (at, names) in layout.tensors.iter().enumerate() {
            let past = self.pool.gather(at, slots.start, &lengths);
            let past = Tensor::from_array((shape, past))?;
            all.push((names.past.as_str().into(), past.into()));
        }
        let outputs = self.session.run(all)?;
        for (at, names) in layout.tensors.iter().enumerate() {
            let (_, present) = outputs[names.present.as_str()].try_extract_tensor::<T>()?;
            self.pool.append(at, slots.start, (&lengths, rows.width), present);
        }
        last_logits(layout, slots.len(), &outputs, logits)
    }
}

/// A step's rows.
struct Rows<'a> {
    /// New tokens of each.
    width: usize,
    /// Lengths after the step.
    totals: &'a [usize],
}

impl Rows<'_> {
    fn lengths(&self) -> Vec<usize> {
        self.totals.iter().map(|total| total - self.width).collect()
    }

    fn longest(&self) -> usize {
        self.totals.iter().copied().max().unwrap_or(0)
    }

    fn longest_past(&self) -> usize {
        self.longest() - self.width
    }

    /// 1 for each token that may be looked at, `[rows, longest]`. In a buffer a row's new tokens
    /// follow its old ones; concatenated, they stand behind the longest row's.
    fn mask(&self, style: Style) -> Vec<i64> {
        let longest = self.longest();
        let row = |total: &usize| {
            let (past, new) = (total - self.width, self.width);
            match style {
                Style::Concatenated => {
                    [vec![1; past], vec![0; longest - total], vec![1; new]].concat()
                }
                Style::Native | Style::Masked => {
                    [vec![1; *total], vec![0; longest - total]].concat()
                }
            }
        };
        self.totals.iter().flat_map(row).collect()
    }

    fn positions(&self) -> Vec<i64> {
        let row = |total: &usize| (total - self.width..*total).map(|at| at as i64);
        self.totals.iter().flat_map(row).collect()
    }
}

impl<T: KvElement> Network<T> {
    /// Everything but keys and values, by name.
    fn inputs(&self, ids: Vec<i64>, rows: &Rows<'_>) -> ort::Result<Vec<(String, DynValue)>> {
        let layout = &self.layout;
        let batch = rows.totals.len();
        let mut inputs = Vec::with_capacity(4);
        let shape = [batch, rows.width];
        inputs.push((layout.ids.clone(), Tensor::from_array((shape, ids))?.into_dyn()));
        if layout.style == Style::Native {
            let last = |total: usize| i32::try_from(total).unwrap_or(i32::MAX);
            let seqlens: Vec<i32> = rows.totals.iter().map(|total| last(*total) - 1).collect();
            let longest = vec![last(rows.longest())];
            inputs.push((SEQLENS.to_owned(), Tensor::from_array(([batch], seqlens))?.into_dyn()));
            inputs.push((TOTAL.to_owned(), Tensor::from_array(((), longest))?.into_dyn()));
        }
        if let Some(name) = &layout.mask {
            let mask = Tensor::from_array(([batch, rows.longest()], rows.mask(layout.style)))?;
            inputs.push((name.clone(), mask.into_dyn()));
        }
        if let Some(name) = &layout.positions {
            inputs.push((name.clone(), Tensor::from_array((shape, rows.positions()))?.into_dyn()));
        }
        if let Some(name) = &layout.keep {
            inputs.push((name.clone(), Tensor::from_array(((), vec![1i64]))?.into_dyn()));
        }
        Ok(inputs)
    }
}

/// Appends the last logits of each of `rows` rows, from `[rows, tokens, vocabulary]` or, where a
/// graph leaves the other tokens out, `[rows, vocabulary]`.
fn last_logits(
    layout: &Layout,
    rows: usize,
    outputs: &SessionOutputs<'_>,
    logits: &mut Vec<f32>,
) -> ort::Result<()> {
    let output = &outputs[layout.logits.as_str()];
    let vocabulary = layout.vocabulary;
    // Each row has as much, whole tokens of it.
    let row_size = |values: usize| match values {
        0 => Err(ort::Error::new("it computed no logits")),
        values if values % (rows * vocabulary) != 0 => {
            let message = format!("its logits are {values} values for {rows} rows");
            Err(ort::Error::new(message))
        }
        values => Ok(values / rows),
    };
    if layout.logits_element == Element::F16 {
        let (_, values) = output.try_extract_tensor::<half::f16>()?;
        for row in values.chunks_exact(row_size(values.len())?) {
            logits.extend(row[row.len() - vocabulary..].iter().map(|value| value.to_f32()));
        }
        return Ok(());
    }
    let (_, values) = output.try_extract_tensor::<f32>()?;
    for row in values.chunks_exact(row_size(values.len())?) {
        logits.extend_from_slice(&row[row.len() - vocabulary..]);
    }
    Ok(())
}

impl<T: KvElement> Session for Network<T> {
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
        let ids: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
        let totals: Vec<usize> = lengths.iter().map(|length| length + 1).collect();
        let computed = match self.together {
            true => self.step(0..ids.len(), ids, &totals, logits),
            false => ids.iter().zip(&totals).enumerate().try_for_each(|(slot, (id, total))| {
                self.step(slot..slot + 1, vec![*id], &[*total], logits)
            }),
        };
        computed.map_err(|error| StepError(error.to_string()))
    }

    fn copy(&mut self, from: usize, to: usize, length: usize) {
        self.pool.copy(from, to, length);
    }

    fn save(&self, slot: usize, tokens: Range<usize>) -> KvBlock {
        self.pool.save(slot, &tokens)
    }

    fn restore(&mut self, slot: usize, tokens: Range<usize>, block: &KvBlock) {
        self.pool.restore(slot, &tokens, block);
    }

    fn token_bytes(&self) -> usize {
        self.pool.token_bytes()
    }

    fn splits(&self) -> bool {
        self.splits
    }

    fn vocabulary(&self) -> usize {
        self.layout.vocabulary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_its_hole_where_the_layout_wants_it() {
        let rows = Rows { width: 1, totals: &[2, 4] };
        assert_eq!(rows.mask(Style::Masked), [1, 1, 0, 0, 1, 1, 1, 1]);
        assert_eq!(rows.mask(Style::Concatenated), [1, 0, 0, 1, 1, 1, 1, 1]);
        assert_eq!(rows.positions(), [1, 3]);
        let chunk = Rows { width: 3, totals: &[5] };
        assert_eq!(chunk.mask(Style::Concatenated), [1; 5]);
        assert_eq!(chunk.positions(), [2, 3, 4]);
    }
}
