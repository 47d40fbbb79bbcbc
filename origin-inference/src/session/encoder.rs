//! An embedder on ONNX Runtime: rows of tokens to vectors of length one.

use std::borrow::Cow;

use half::f16;
use ort::{
    session::{Session as OnnxSession, SessionInputValue},
    value::{DynValue, Tensor},
};

use super::StepError;
use crate::model::{Element, Pooling, Port};

/// What turns texts into vectors.
pub trait Encoder: Send {
    /// One vector of length 1 for each row, in their order.
    ///
    /// # Errors
    /// [`StepError`].
    fn encode(&mut self, rows: &[&[u32]]) -> Result<Vec<Vec<f32>>, StepError>;

    /// Values of a vector.
    fn dimensions(&self) -> usize;

    /// Whether rows may share a step; otherwise give one at a time.
    fn together(&self) -> bool;
}

const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";
const TYPES: &str = "token_type_ids";
/// What sentence-transformers' exports call the finished vector.
const SENTENCE: &str = "sentence_embedding";
const HIDDEN: &str = "last_hidden_state";

/// A loaded embedder.
pub(crate) struct Network {
    session: OnnxSession,
    types: bool,
    /// The output to read, and how.
    output: String,
    output_element: Element,
    pooling: Option<Pooling>,
    dimensions: usize,
    pub(crate) together: bool,
}

impl Network {
    pub(crate) fn new(
        session: OnnxSession,
        (inputs, outputs): (&[Port], &[Port]),
        pooling: Pooling,
    ) -> Result<Self, String> {
        let has = |name: &str| inputs.iter().any(|input| input.name == name);
        for needed in [IDS, MASK] {
            if !has(needed) {
                return Err(format!("it has no input `{needed}`, as embedders have"));
            }
        }
        if let Some(other) =
            inputs.iter().find(|input| ![IDS, MASK, TYPES].contains(&input.name.as_str()))
        {
            return Err(format!("its input `{}` is not one that can be filled", other.name));
        }
        let output = |name: &str| outputs.iter().find(|output| output.name == name);
        let (output, pooling) = match (output(SENTENCE), output(HIDDEN)) {
            (Some(finished), _) => (finished, None),
            (None, Some(hidden)) => (hidden, Some(pooling)),
            (None, None) => {
                return Err(format!("it has no output `{SENTENCE}` or `{HIDDEN}`"));
            }
        };
        let dimensions = output.shape.last().and_then(|size| usize::try_from(*size).ok());
        Ok(Self {
            types: has(TYPES),
            output: output.name.clone(),
            output_element: output.element,
            pooling,
            dimensions: dimensions.ok_or("the size of its vectors is not fixed")?,
            together: true,
            session,
        })
    }

    fn step(&mut self, rows: &[&[u32]]) -> ort::Result<Vec<Vec<f32>>> {
        let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let shape = [rows.len(), width];
        let padded = |value: fn(u32) -> i64| -> Vec<i64> {
            let row = |row: &&[u32]| {
                let mut padded: Vec<i64> = row.iter().map(|token| value(*token)).collect();
                padded.resize(width, 0);
                padded
            };
            rows.iter().flat_map(row).collect()
        };
        let input = |values: Vec<i64>| -> ort::Result<DynValue> {
            Ok(Tensor::from_array((shape, values))?.into_dyn())
        };
        let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = vec![
            (IDS.into(), input(padded(i64::from))?.into()),
            (MASK.into(), input(padded(|_| 1))?.into()),
        ];
        if self.types {
            inputs.push((TYPES.into(), input(vec![0; rows.len() * width])?.into()));
        }
        let outputs = self.session.run(inputs)?;
        let output = &outputs[self.output.as_str()];
        let values: Cow<'_, [f32]> = match self.output_element {
            Element::F16 => {
                let (_, values) = output.try_extract_tensor::<f16>()?;
                values.iter().map(|value| value.to_f32()).collect()
            }
            _ => output.try_extract_tensor::<f32>()?.1.into(),
        };
        let each = values.len() / rows.len().max(1);
        let vectors = values.chunks_exact(each.max(1)).zip(rows).map(|(values, row)| {
            let mut vector = match self.pooling {
                None => values.to_vec(),
                Some(pooling) => pool(pooling, values, row.len(), self.dimensions),
            };
            normalise(&mut vector);
            vector
        });
        Ok(vectors.collect())
    }
}

/// One vector of a row's `[tokens, dimensions]`, of which the first `length` are text.
fn pool(pooling: Pooling, values: &[f32], length: usize, dimensions: usize) -> Vec<f32> {
    match pooling {
        Pooling::First => values[..dimensions].to_vec(),
        Pooling::Mean => {
            let mut mean = vec![0.0; dimensions];
            for token in values.chunks_exact(dimensions).take(length) {
                mean.iter_mut().zip(token).for_each(|(sum, value)| *sum += value);
            }
            // Its length is set to one afterwards: a sum is as good as a mean.
            mean
        }
    }
}

fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value /= length);
    }
}

impl Encoder for Network {
    fn encode(&mut self, rows: &[&[u32]]) -> Result<Vec<Vec<f32>>, StepError> {
        let vectors = self.step(rows).map_err(|error| StepError(error.to_string()))?;
        let finite = vectors.iter().flatten().all(|value| value.is_finite());
        match finite && vectors.len() == rows.len() {
            true => Ok(vectors),
            false => Err(StepError("its vectors are no numbers".to_owned())),
        }
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn together(&self) -> bool {
        self.together
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_no_part_of_a_mean() {
        let values = [1.0, 0.0, 3.0, 4.0, 100.0, 100.0];
        let mut mean = pool(Pooling::Mean, &values, 2, 2);
        normalise(&mut mean);
        let half = std::f32::consts::FRAC_1_SQRT_2;
        assert!(mean.iter().all(|value| (value - half).abs() < 1e-6), "{mean:?}");
        assert_eq!(pool(Pooling::First, &values, 2, 2), [1.0, 0.0]);
        let mut zero = [0.0, 0.0];
        normalise(&mut zero);
        assert_eq!(zero, [0.0, 0.0]);
    }
}
