//! How a decoder's graph wants to be fed, read from the names and shapes of its inputs. Pure.
//!
//! Three layouts are in use. All have `input_ids` and, for each layer, keys and values; they differ
//! in how a graph learns how long each row is, and in who appends the new keys and values:
//!
//! | layout | lengths | keys and values |
//! |---|---|---|
//! | native | `seqlens_k`, `total_sequence_length` | a buffer of fixed size, written in place |
//! | masked (onnxruntime-genai) | `attention_mask` | the same |
//! | concatenated (Optimum) | `attention_mask`, `position_ids` | the past goes in, past and new come out |

use super::names::Names;
use crate::model::{Element, Port};

/// Who appends new keys and values, and how rows tell their lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Native,
    Masked,
    Concatenated,
}

/// One tensor of keys or values: read as `past`, written as `present`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KvNames {
    pub(crate) past: String,
    pub(crate) present: String,
}

/// A decoder's layout.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) style: Style,
    /// Key/value heads.
    pub(crate) heads: usize,
    /// Values of a head for one token.
    pub(crate) head_size: usize,
    /// Tokens that it predicts.
    pub(crate) vocabulary: usize,
    /// Of keys and values: float32 or float16.
    pub(crate) kv: Element,
    /// Of the logits: float32 or float16.
    pub(crate) logits_element: Element,
    /// Dimensions of the logits: `[rows, tokens, vocabulary]`, or without the tokens.
    pub(crate) logits_rank: usize,
    pub(crate) tensors: Vec<KvNames>,
    pub(crate) ids: String,
    pub(crate) mask: Option<String>,
    pub(crate) positions: Option<String>,
    /// The graph can leave out all logits but the last.
    pub(crate) keep: Option<String>,
    pub(crate) logits: String,
}

/// Inputs of the native layout.
pub(crate) const SEQLENS: &str = "seqlens_k";
pub(crate) const TOTAL: &str = "total_sequence_length";
const KEEP: &str = "num_logits_to_keep";

impl Layout {
    /// Reads a graph's layout. `in_buffers` says that its attention keeps a buffer of fixed size
    /// (the operator GroupQueryAttention).
    ///
    /// # Errors
    /// Which input or output is missing, or cannot be filled.
    pub(crate) fn read(
        inputs: &[Port],
        outputs: &[Port],
        names: &Names,
        in_buffers: bool,
    ) -> Result<Self, String> {
        let has = |name: &str| inputs.iter().any(|input| input.name == name);
        let all = || inputs.iter().map(|input| input.name.as_str()).collect::<Vec<_>>().join(", ");
        if !has(&names.ids) {
            return Err(format!("it has no input `{}`; its inputs are {}", names.ids, all()));
        }
        let native = has(SEQLENS) && has(TOTAL);
        let optional = |name: &str| has(name).then(|| name.to_owned());
        let (mask, positions) = (optional(&names.mask), optional(&names.positions));
        let style = match (native, in_buffers, &mask) {
            (true, _, _) => Style::Native,
            (false, true, Some(_)) => Style::Masked,
            (false, false, _) => Style::Concatenated,
            (false, true, None) => {
                return Err(format!(
                    "it has no input `{}` or `{SEQLENS}`; its inputs are {}",
                    names.mask,
                    all()
                ));
            }
        };
        let keep = optional(KEEP);
        let mut tensors = Vec::new();
        let mut geometry = None;
        for input in inputs {
            let name = input.name.as_str();
            let whole_number = name == names.ids
                || [&mask, &positions, &keep].iter().any(|known| known.as_deref() == Some(name));
            if whole_number {
                if input.element != Element::I64 {
                    return Err(format!("its input `{name}` is not of int64"));
                }
                continue;
            }
            if native && (name == SEQLENS || name == TOTAL) {
                continue;
            }
            let Some((layer, part)) = names.past(name) else {
                return Err(format!(
                    "its input `{name}` is not one that can be filled; known are {}, {}, {}, {KEEP}, {SEQLENS}, {TOTAL} and keys and values",
                    names.ids, names.mask, names.positions
                ));
            };
            let &[_, heads, _, head_size] = input.shape.as_slice() else {
                return Err(format!(
                    "its input `{name}` has {} dimensions, not 4",
                    input.shape.len()
                ));
            };
            let shape = (heads, head_size, input.element);
            if *geometry.get_or_insert(shape) != shape {
                return Err(format!("its input `{name}` has another shape than the others"));
            }
            let present = names
                .present(layer, part)
                .into_iter()
                .find(|present| outputs.iter().any(|output| output.name == *present));
            let present =
                present.ok_or_else(|| format!("it has no output that belongs to `{name}`"))?;
            tensors.push(KvNames { past: name.to_owned(), present });
        }
        let (heads, head_size, kv) =
            geometry.ok_or("it takes no keys and values; export it with its past")?;
        if !matches!(kv, Element::F32 | Element::F16) {
            return Err("its keys and values are neither float32 nor float16".to_owned());
        }
        let logits = outputs.iter().find(|output| output.name == names.logits);
        let logits = logits.ok_or_else(|| format!("it has no output `{}`", names.logits))?;
        if !matches!(logits.element, Element::F32 | Element::F16) {
            return Err("its logits are neither float32 nor float16".to_owned());
        }
        let fixed = |size: i64, what: &str| {
            usize::try_from(size)
                .ok()
                .filter(|size| *size > 0)
                .ok_or_else(|| format!("its number of {what} is not fixed"))
        };
        Ok(Self {
            style,
            heads: fixed(heads, "key/value heads")?,
            head_size: fixed(head_size, "values a head")?,
            vocabulary: fixed(logits.shape.last().copied().unwrap_or(-1), "predicted tokens")?,
            kv,
            logits_element: logits.element,
            logits_rank: logits.shape.len(),
            tensors,
            ids: names.ids.clone(),
            mask,
            positions,
            keep,
            logits: names.logits.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, element: Element, shape: &[i64]) -> Port {
        Port { name: name.to_owned(), element, shape: shape.to_vec() }
    }

    fn optimum() -> (Vec<Port>, Vec<Port>) {
        let whole = |name| port(name, Element::I64, &[-1, -1]);
        let kv = |name| port(name, Element::F32, &[-1, 2, -1, 16]);
        let inputs = vec![
            whole("input_ids"),
            whole("attention_mask"),
            whole("position_ids"),
            kv("past_key_values.0.key"),
            kv("past_key_values.0.value"),
        ];
        let logits = port("logits", Element::F32, &[-1, -1, 512]);
        (inputs, vec![logits, kv("present.0.key"), kv("present.0.value")])
    }

    fn read(inputs: &[Port], outputs: &[Port], in_buffers: bool) -> Result<Layout, String> {
        Layout::read(inputs, outputs, &Names::default(), in_buffers)
    }

    #[test]
    fn the_layout_is_known_by_inputs_and_attention() {
        let (mut inputs, outputs) = optimum();
        let layout = read(&inputs, &outputs, false).unwrap();
        assert_eq!((layout.style, layout.heads, layout.head_size), (Style::Concatenated, 2, 16));
        assert_eq!((layout.vocabulary, layout.tensors.len()), (512, 2));
        assert_eq!(read(&inputs, &outputs, true).unwrap().style, Style::Masked);
        inputs.push(port(SEQLENS, Element::Other, &[-1]));
        inputs.push(port(TOTAL, Element::Other, &[]));
        assert_eq!(read(&inputs, &outputs, true).unwrap().style, Style::Native);
    }

    #[test]
    fn what_cannot_be_fed_is_named() {
        let check = |change: &dyn Fn(&mut Vec<Port>, &mut Vec<Port>), word: &str| {
            let (mut inputs, mut outputs) = optimum();
            change(&mut inputs, &mut outputs);
            let error = read(&inputs, &outputs, false).unwrap_err();
            assert!(error.contains(word), "`{word}` is not in: {error}");
        };
        check(&|inputs, _| inputs.push(port("pixel_values", Element::F32, &[-1])), "pixel_values");
        check(&|inputs, _| drop(inputs.remove(0)), "no input `input_ids`");
        check(&|inputs, _| inputs.truncate(3), "no keys and values");
        check(&|inputs, _| inputs[4].shape[1] = 3, "another shape");
        check(&|inputs, _| inputs[1].element = Element::F32, "not of int64");
        check(&|inputs, _| inputs[3].shape = vec![1, 2], "2 dimensions");
        check(&|_, outputs| drop(outputs.remove(1)), "belongs to `past_key_values.0.key`");
        check(&|_, outputs| drop(outputs.remove(0)), "no output `logits`");
        check(&|_, outputs| outputs[0].shape[2] = -1, "predicted tokens");
        let to_other = |ports: &mut Vec<Port>| {
            ports[3..].iter_mut().for_each(|port| port.element = Element::Other)
        };
        check(&|inputs, _| to_other(inputs), "neither float32 nor float16");
    }
}
