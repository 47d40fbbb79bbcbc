//! Loads a graph on ONNX Runtime: provider, layout, self-test.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use half::f16;
use nearhop_conf::{Provider, source::Env};
use ort::{
    environment::Environment,
    session::{Session as OnnxSession, builder::GraphOptimizationLevel},
    value::{Outlet, TensorElementType},
};

use super::{
    Session,
    encoder::{self, Encoder},
    kv::KvElement,
    layout::{Layout, Style},
    library,
    names::Names,
    network::{KvUse, Network},
    provider::{Declined, Shapes, dispatch, ladder},
    self_test::{self, Allowed, Verdict},
    warm_up,
};
use crate::{
    Model, OriginError,
    model::{Element, Port},
};

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

/// What a session is opened for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sequences computed together.
    pub slots: usize,
    /// ONNX Runtime's threads.
    pub threads: usize,
    /// The most tokens of a prompt computed in one step.
    pub chunk: usize,
    /// Padded tokens that an embedder computes in one step.
    pub batch: usize,
    /// The only provider that will do; any that works where not given.
    pub provider: Option<Provider>,
    /// Where providers keep what they compile; beside the model where not given.
    pub cache: Option<PathBuf>,
}

/// A loaded decoder, and what was found out about it.
pub struct Opened {
    /// The decoder.
    pub session: Box<dyn Session>,
    /// What computes it.
    pub provider: Provider,
    /// What was tried before, and why it was not taken.
    pub declined: Vec<Declined>,
    /// How keys and values go in and out.
    pub kv_use: KvUse,
    /// What was found, a line each.
    pub findings: Vec<String>,
    /// About how long its longest step takes.
    pub longest_step: Duration,
}

/// Loads `model`'s decoder and computes its first steps.
///
/// # Errors
/// [`OriginError::ModelFile`] where the file is missing, cut short, of a layout that cannot be fed,
/// does not fit the tokenizer, fails its self-test, or does not reach the context's end;
/// [`OriginError::Provider`] where the provider that was asked for does not take it.
pub fn open(runtime: &Runtime, model: &Model, options: &Options) -> Result<Opened, OriginError> {
    let path = model.weights();
    let wrong = |what: String, fix: &'static str| OriginError::ModelFile {
        path: path.to_owned(),
        what,
        fix,
    };
    let in_buffers = model.graph.has("GroupQueryAttention");
    let committed = commit_first(runtime, model, options, !in_buffers)?;
    let names = match &model.names {
        Some(genai) => Names::genai(&genai.inputs, &genai.outputs),
        None => Names::default(),
    };
    let session = committed.session;
    let inputs: Vec<Port> = session.inputs().iter().map(port).collect();
    let outputs: Vec<Port> = session.outputs().iter().map(port).collect();
    let layout = Layout::read(&inputs, &outputs, &names, in_buffers).map_err(|what| {
        wrong(what, "docs/model-folder.md lists the layouts that work and how to export them")
    })?;
    if layout.vocabulary < model.vocabulary() {
        let what = format!(
            "it predicts {} tokens, and tokenizer.json has {}",
            layout.vocabulary,
            model.vocabulary()
        );
        return Err(wrong(what, "Put the files of one model into the folder"));
    }
    let mut findings = vec![format!(
        "layout: {}, keys and values {:?}",
        match layout.style {
            Style::Native => "native grouped-query attention",
            Style::Masked => "grouped-query attention with a mask (onnxruntime-genai)",
            Style::Concatenated => "concatenated keys and values (Optimum)",
        },
        layout.kv
    )];
    let tested = match layout.kv {
        Element::F16 => tested::<f16>(session, layout, model, options, &mut findings),
        _ => tested::<f32>(session, layout, model, options, &mut findings),
    };
    let (mut session, kv_use) = tested.map_err(|what| {
        wrong(
            what,
            "Export it again, or with another precision; nearhop model check shows what is found",
        )
    })?;
    let longest_step = warm_up::decoder(session.as_mut(), model, options)?;
    Ok(Opened {
        session,
        provider: committed.provider,
        declined: committed.declined,
        kv_use,
        findings,
        longest_step,
    })
}

/// A loaded embedder, and what was found out about it.
pub struct OpenedEncoder {
    /// The embedder.
    pub encoder: Box<dyn Encoder>,
    /// What computes it.
    pub provider: Provider,
    /// What was tried before, and why it was not taken.
    pub declined: Vec<Declined>,
    /// What was found, a line each.
    pub findings: Vec<String>,
    /// About how long its longest step takes.
    pub longest_step: Duration,
}

/// Loads `model`'s embedder and computes its first step.
///
/// # Errors
/// As [`open`].
pub fn open_encoder(
    runtime: &Runtime,
    model: &Model,
    options: &Options,
) -> Result<OpenedEncoder, OriginError> {
    let wrong = |what: String| OriginError::ModelFile {
        path: model.weights().to_owned(),
        what,
        fix: "docs/model-folder.md lists the layouts that work and how to export them",
    };
    let committed = commit_first(runtime, model, options, true)?;
    let inputs: Vec<Port> = committed.session.inputs().iter().map(port).collect();
    let outputs: Vec<Port> = committed.session.outputs().iter().map(port).collect();
    let ports = (inputs.as_slice(), outputs.as_slice());
    let mut network =
        encoder::Network::new(committed.session, ports, model.pooling).map_err(wrong)?;
    if let Some(expected) = model.manifest.dimensions
        && expected != network.dimensions()
    {
        let what = format!(
            "its vectors have {} values, and nearhop.yaml says `dimensions: {expected}`",
            network.dimensions()
        );
        return Err(wrong(what));
    }
    let apart = self_test::rows_apart(&mut network, model.vocabulary())
        .map_err(|error| wrong(format!("it fails its self-test: {error}")))?;
    let mut findings = vec![format!("vectors: {} values", network.dimensions())];
    network.together = apart <= 1e-3 && !model.graph.quantizes_dynamically();
    findings.push(match network.together {
        true => format!("batching: on; together as alone within {apart:.1e}"),
        false => format!(
            "batching: off, because rows of different length change each other's vectors by {apart:.1e}"
        ),
    });
    let longest_step = warm_up::encoder(&mut network, model, options)?;
    Ok(OpenedEncoder {
        encoder: Box::new(network),
        provider: committed.provider,
        declined: committed.declined,
        findings,
        longest_step,
    })
}

/// Makes the network and finds out how it may be used.
fn tested<T: KvElement>(
    session: OnnxSession,
    layout: Layout,
    model: &Model,
    options: &Options,
    findings: &mut Vec<String>,
) -> Result<(Box<dyn Session>, KvUse), String> {
    let element = layout.kv;
    let shape = (options.slots, model.context_length());
    let mut network = Network::<T>::new(session, layout, shape)?;
    if model.graph.quantizes_dynamically() {
        network.together = false;
        network.splits = false;
        findings.push(
            "batching: off, and prompts are computed whole. Its products round by one scale a tensor (DynamicQuantizeLinear), so that a row's answer would depend on the rows beside it. Weights in blocks (MatMulNBits) have no such limit"
                .to_owned(),
        );
        self_test::run(&mut network, 1, model.vocabulary()).map_err(|error| error.to_string())?;
        let kv_use = network.kv_use();
        return Ok((Box::new(network), kv_use));
    }
    let allowed = Allowed::of(element);
    loop {
        let verdict = self_test::run(&mut network, options.slots, model.vocabulary());
        let problem = match verdict {
            Ok(verdict) if verdict.within(allowed) => {
                return Ok(settle(network, verdict, allowed, findings));
            }
            Ok(verdict) => format!(
                "a prompt in pieces gives other logits than the whole (by {:.2} % of their range; decoded, by {:.2} %)",
                verdict.split * 100.0,
                verdict.decoded * 100.0
            ),
            Err(error) => error.to_string(),
        };
        if !network.fall_back_to_copies() {
            return Err(format!("it fails its self-test: {problem}"));
        }
        findings.push(format!("keys and values: not in place, because {problem}"));
    }
}

fn settle<T: KvElement>(
    mut network: Network<T>,
    verdict: Verdict,
    allowed: Allowed,
    findings: &mut Vec<String>,
) -> (Box<dyn Session>, KvUse) {
    let kv_use = network.kv_use();
    findings.push(format!(
        "keys and values: {}; in pieces as whole within {:.1e} of the logits' range, decoded within {:.1e}",
        kv_use.name(),
        verdict.split,
        verdict.decoded
    ));
    match verdict.together {
        Some(apart) if apart > allowed.together => {
            network.together = false;
            findings.push(format!(
                "batching: off, because rows of different length change each other's logits by {:.2} % of their range",
                apart * 100.0
            ));
        }
        Some(apart) => {
            findings.push(format!("batching: on; together as alone within {apart:.1e}"));
        }
        None => findings.push("batching: off, there is one slot".to_owned()),
    }
    (Box::new(network), kv_use)
}

/// A graph on its provider.
pub(crate) struct Committed {
    pub(crate) session: OnnxSession,
    pub(crate) provider: Provider,
    pub(crate) declined: Vec<Declined>,
}

/// Loads the graph on the first provider that takes it.
pub(crate) fn commit_first(
    runtime: &Runtime,
    model: &Model,
    options: &Options,
    standard_operators: bool,
) -> Result<Committed, OriginError> {
    let providers = match options.provider {
        Some(only) => vec![only],
        None => ladder(model.kind(), standard_operators),
    };
    let path = model.weights();
    let beside = path.with_file_name(".engines");
    let cache = options.cache.as_deref().unwrap_or(&beside);
    let context = model.context_length();
    let shapes =
        Shapes::new(&model.graph.inputs, options.slots, options.chunk.min(context), context);
    let mut declined = Vec::new();
    for provider in providers {
        match commit(runtime, path, options.threads, &dispatch(provider, cache, &shapes)) {
            Ok(session) => {
                return Ok(Committed { session, provider, declined });
            }
            Err(error) => {
                let reason = first_line(&error.to_string());
                tracing::info!(%provider, reason, "an execution provider does not take the model");
                declined.push(Declined { provider, reason });
            }
        }
    }
    let last = declined.pop().map(|last| (last.provider, last.reason));
    match last {
        // The processor takes every graph that is one.
        Some((Provider::Cpu, reason)) => Err(OriginError::ModelFile {
            path: path.to_owned(),
            what: format!("ONNX Runtime refuses it: {reason}"),
            fix: "Copy the model folder from where it came from again",
        }),
        last => {
            let (provider, reason) = last.unwrap_or((Provider::Cpu, "none was tried".to_owned()));
            Err(OriginError::Provider { provider: provider.name(), reason })
        }
    }
}

/// Reasons of providers go on for pages.
fn first_line(reason: &str) -> String {
    let line = reason.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.chars().take(400).collect()
}

fn commit(
    runtime: &Runtime,
    path: &Path,
    threads: usize,
    providers: &[ort::ep::ExecutionProviderDispatch],
) -> ort::Result<OnnxSession> {
    OnnxSession::builder(&runtime.0)?
        .with_execution_providers(providers)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        // Spinning threads would take the cores of the other pods on this machine.
        .with_intra_op_spinning(false)?
        .commit_from_file(path)
}

fn port(outlet: &Outlet) -> Port {
    let element = match outlet.dtype().tensor_type() {
        Some(TensorElementType::Float32) => Element::F32,
        Some(TensorElementType::Float16) => Element::F16,
        Some(TensorElementType::Int64) => Element::I64,
        _ => Element::Other,
    };
    let shape = outlet.dtype().tensor_shape().map(|shape| shape.to_vec());
    Port { name: outlet.name().to_owned(), element, shape: shape.unwrap_or_default() }
}

#[cfg(test)]
pub(crate) mod tests;
