//! Execution providers: what computes a graph. TensorRT, then CUDA, then the CPU, one at a time.
//!
//! ONNX Runtime would fall back by itself, and tell nobody. Here each provider is asked for alone
//! and must succeed; what refuses is remembered with its reason.

use std::path::Path;

use nearhop_conf::Provider;
use ort::ep::{self, ExecutionProviderDispatch};

use crate::model::{Element, ModelKind, Port};

/// A provider that did not take a model.
#[derive(Debug, Clone)]
pub struct Declined {
    /// Which.
    pub provider: Provider,
    /// What it said.
    pub reason: String,
}

/// The providers to try for a graph, best first.
///
/// TensorRT has no grouped-query attention and no products of weights in blocks: it would cut such
/// a decoder into pieces between the layers, slower than CUDA alone. It pays for embedders and for
/// decoders of standard operators.
pub(crate) fn ladder(kind: ModelKind, standard_operators: bool) -> Vec<Provider> {
    match (kind, standard_operators) {
        (ModelKind::Embed, _) | (ModelKind::Generate, true) => {
            vec![Provider::TensorRt, Provider::Cuda, Provider::Cpu]
        }
        (ModelKind::Generate, false) => vec![Provider::Cuda, Provider::Cpu],
    }
}

/// What a provider is told: each fails aloud.
pub(crate) fn dispatch(
    provider: Provider,
    cache: &Path,
    shapes: &Shapes,
) -> Vec<ExecutionProviderDispatch> {
    let cuda = || ep::CUDA::default().build().error_on_failure();
    match provider {
        Provider::Cpu => vec![ep::CPU::default().build().error_on_failure()],
        Provider::Cuda => vec![cuda()],
        Provider::TensorRt => {
            let cache = cache.display();
            let tensorrt = ep::TensorRT::default()
                .with_fp16(true)
                // A layer norm over float16 sums overflows where activations are large.
                .with_layer_norm_fp32_fallback(true)
                .with_engine_cache(true)
                .with_engine_cache_path(&cache)
                .with_timing_cache(true)
                .with_timing_cache_path(&cache)
                // Without profiles TensorRT builds an engine anew for every new shape: minutes
                // in the middle of a request.
                .with_profile_min_shapes(&shapes.min)
                .with_profile_opt_shapes(&shapes.opt)
                .with_profile_max_shapes(&shapes.max)
                .with_context_memory_sharing(true);
            vec![tensorrt.build().error_on_failure(), cuda()]
        }
    }
}

/// TensorRT's shape profile: the least, usual and largest shape of every dynamic input, as
/// `name:1x2x3,…`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shapes {
    min: String,
    opt: String,
    max: String,
}

impl Shapes {
    /// For graphs fed with up to `batch` rows of up to `width` new tokens, behind a past of up to
    /// `context` tokens.
    pub(crate) fn new(inputs: &[Port], batch: usize, width: usize, context: usize) -> Self {
        let profile = |rows: usize, new: usize, past: usize| {
            let shapes = inputs.iter().filter(|input| !input.shape.is_empty()).map(|input| {
                let last = input.shape.len() - 1;
                let size = |(at, size): (usize, &i64)| match (usize::try_from(*size), at) {
                    (Ok(fixed), _) => fixed,
                    (Err(_), 0) => rows,
                    // Keys and values: [rows, heads, past, head size].
                    (Err(_), _) if input.element != Element::I64 => past,
                    (Err(_), at) if at == last && input.name.contains("mask") => past + new,
                    (Err(_), _) => new,
                };
                let sizes: Vec<String> =
                    input.shape.iter().enumerate().map(size).map(|size| size.to_string()).collect();
                format!("{}:{}", input.name, sizes.join("x"))
            });
            shapes.collect::<Vec<_>>().join(",")
        };
        let takes_past = inputs.iter().any(|input| input.shape.len() == 4);
        let past = |most: usize| if takes_past { most } else { 0 };
        Self {
            min: profile(1, 1, 0),
            opt: profile(batch.div_ceil(2), width.div_ceil(2), past(context / 2)),
            max: profile(batch, width, past(context)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_of_fused_operators_is_not_cut_up_by_tensorrt() {
        assert_eq!(ladder(ModelKind::Generate, false), [Provider::Cuda, Provider::Cpu]);
        let all = [Provider::TensorRt, Provider::Cuda, Provider::Cpu];
        assert_eq!(ladder(ModelKind::Generate, true), all);
        assert_eq!(ladder(ModelKind::Embed, false), all);
    }

    #[test]
    fn every_dynamic_input_has_a_shape_in_the_profile() {
        let port = |name: &str, element, shape: &[i64]| Port {
            name: name.into(),
            element,
            shape: shape.to_vec(),
        };
        let inputs = [
            port("input_ids", Element::I64, &[-1, -1]),
            port("attention_mask", Element::I64, &[-1, -1]),
            port("past_key_values.0.key", Element::F16, &[-1, 2, -1, 64]),
        ];
        let shapes = Shapes::new(&inputs, 4, 128, 1024);
        assert_eq!(shapes.min, "input_ids:1x1,attention_mask:1x1,past_key_values.0.key:1x2x0x64");
        assert_eq!(
            shapes.max,
            "input_ids:4x128,attention_mask:4x1152,past_key_values.0.key:4x2x1024x64"
        );
        let shapes = Shapes::new(&inputs[..2], 32, 256, 256);
        assert_eq!(shapes.opt, "input_ids:16x128,attention_mask:16x128");
    }
}
