//! What an ONNX file says of itself, without ONNX Runtime: operators, inputs, files beside it.
//!
//! The file is a protocol buffer (onnx.proto3, `ModelProto`). It may be gigabytes, so it is walked
//! and the weights in it are skipped.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufReader, Read as _},
    path::Path,
};

/// An element type, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    F16,
    I64,
    Other,
}

/// An input or output of a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) element: Element,
    /// −1 where a size is not fixed; empty for a scalar.
    pub(crate) shape: Vec<i64>,
}

/// A graph's description.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Graph {
    /// How often each operator stands in it, subgraphs included.
    pub(crate) operators: BTreeMap<String, usize>,
    /// Its inputs, in order.
    pub(crate) inputs: Vec<Port>,
    /// Files beside it that hold weights, relative to its folder.
    pub(crate) external: BTreeSet<String>,
}

impl Graph {
    /// Reads the file's description.
    ///
    /// # Errors
    /// What is wrong, in words: not readable, cut short, no ONNX file.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let length = file.metadata().map_err(|error| error.to_string())?.len();
        let mut graph = Self::default();
        let mut wire = Wire { bytes: BufReader::new(file), at: 0, depth: 0 };
        let walked = wire.fields(length, &mut |wire, field| match field.number {
            field::MODEL_GRAPH => {
                wire.fields(field.end, &mut |wire, field| graph.part(wire, field))
            }
            _ => Ok(()),
        });
        match walked {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err("the file is cut short".to_owned())
            }
            Err(error) => Err(format!("this is no ONNX file: {error}")),
            Ok(()) if graph.operators.is_empty() => Err("this is no ONNX file".to_owned()),
            Ok(()) => Ok(graph),
        }
    }

    pub(crate) fn has(&self, operator: &str) -> bool {
        self.operators.contains_key(operator)
    }

    /// Whether products round their inputs by one scale a tensor, so that a row's result depends on
    /// the rows beside it.
    pub(crate) fn quantizes_dynamically(&self) -> bool {
        ["DynamicQuantizeLinear", "MatMulInteger", "DynamicQuantizeMatMul"]
            .iter()
            .any(|operator| self.has(operator))
    }

    fn part(&mut self, wire: &mut Wire, field: Field) -> io::Result<()> {
        match field.number {
            field::GRAPH_NODE => wire.fields(field.end, &mut |wire, field| self.node(wire, field)),
            field::GRAPH_INITIALIZER => {
                wire.fields(field.end, &mut |wire, field| self.tensor(wire, field))
            }
            field::GRAPH_INPUT => {
                self.inputs.push(port(wire, field)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn node(&mut self, wire: &mut Wire, field: Field) -> io::Result<()> {
        match field.number {
            field::NODE_OPERATOR => {
                *self.operators.entry(wire.text(field)?).or_default() += 1;
                Ok(())
            }
            field::NODE_ATTRIBUTE => wire.fields(field.end, &mut |wire, field| {
                match field.number {
                    field::ATTRIBUTE_GRAPH => {
                        // A branch's or loop's own graph. Its inputs are not the model's.
                        let mut inner = Self::default();
                        wire.fields(field.end, &mut |wire, field| inner.part(wire, field))?;
                        for (operator, count) in inner.operators {
                            *self.operators.entry(operator).or_default() += count;
                        }
                        self.external.extend(inner.external);
                        Ok(())
                    }
                    field::ATTRIBUTE_TENSOR => {
                        wire.fields(field.end, &mut |wire, field| self.tensor(wire, field))
                    }
                    _ => Ok(()),
                }
            }),
            _ => Ok(()),
        }
    }

    fn tensor(&mut self, wire: &mut Wire, field: Field) -> io::Result<()> {
        if field.number != field::TENSOR_EXTERNAL {
            return Ok(());
        }
        let (mut key, mut value) = (String::new(), String::new());
        wire.fields(field.end, &mut |wire, field| {
            match field.number {
                1 => key = wire.text(field)?,
                2 => value = wire.text(field)?,
                _ => {}
            }
            Ok(())
        })?;
        if key == "location" {
            self.external.insert(value);
        }
        Ok(())
    }
}

/// A `ValueInfoProto`.
fn port(wire: &mut Wire, field: Field) -> io::Result<Port> {
    let mut port = Port { name: String::new(), element: Element::Other, shape: Vec::new() };
    wire.fields(field.end, &mut |wire, field| match field.number {
        field::VALUE_NAME => {
            port.name = wire.text(field)?;
            Ok(())
        }
        field::VALUE_TYPE => wire.fields(field.end, &mut |wire, field| match field.number {
            field::TYPE_TENSOR => wire.fields(field.end, &mut |wire, field| match field.number {
                field::TENSOR_ELEMENT => {
                    port.element = match field.value {
                        1 => Element::F32,
                        7 => Element::I64,
                        10 => Element::F16,
                        _ => Element::Other,
                    };
                    Ok(())
                }
                field::TENSOR_SHAPE => wire.fields(field.end, &mut |wire, field| {
                    let mut size = -1;
                    wire.fields(field.end, &mut |_, field| {
                        if field.number == field::DIMENSION_VALUE {
                            size = i64::try_from(field.value).unwrap_or(-1);
                        }
                        Ok(())
                    })?;
                    port.shape.push(size);
                    Ok(())
                }),
                _ => Ok(()),
            }),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })?;
    Ok(port)
}

/// Field numbers of onnx.proto3.
mod field {
    pub(super) const MODEL_GRAPH: u64 = 7;
    pub(super) const GRAPH_NODE: u64 = 1;
    pub(super) const GRAPH_INITIALIZER: u64 = 5;
    pub(super) const GRAPH_INPUT: u64 = 11;
    pub(super) const NODE_OPERATOR: u64 = 4;
    pub(super) const NODE_ATTRIBUTE: u64 = 5;
    pub(super) const ATTRIBUTE_TENSOR: u64 = 5;
    pub(super) const ATTRIBUTE_GRAPH: u64 = 6;
    pub(super) const TENSOR_EXTERNAL: u64 = 13;
    pub(super) const VALUE_NAME: u64 = 1;
    pub(super) const VALUE_TYPE: u64 = 2;
    pub(super) const TYPE_TENSOR: u64 = 1;
    pub(super) const TENSOR_ELEMENT: u64 = 1;
    pub(super) const TENSOR_SHAPE: u64 = 2;
    pub(super) const DIMENSION_VALUE: u64 = 1;
}

/// A field: a number, or bytes up to `end`.
#[derive(Clone, Copy)]
struct Field {
    number: u64,
    /// 0 where it is bytes.
    value: u64,
    /// Where it ends in the file.
    end: u64,
}

/// Names are short; more than this is no ONNX file.
const TEXT_MAX: u64 = 64 << 10;

/// The encoding of protocol buffers: <https://protobuf.dev/programming-guides/encoding/>.
struct Wire {
    bytes: BufReader<File>,
    at: u64,
    /// Messages around the one being read.
    depth: usize,
}

/// Messages in messages; a graph in a graph takes three.
const DEPTH_MAX: usize = 64;

impl Wire {
    /// Calls `each` for every number and every field of bytes up to `end`, and skips what it leaves.
    fn fields(
        &mut self,
        end: u64,
        each: &mut dyn FnMut(&mut Self, Field) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.depth == DEPTH_MAX {
            return Err(io::Error::other(format!("over {DEPTH_MAX} messages inside each other")));
        }
        self.depth += 1;
        while self.at < end {
            let tag = self.varint()?;
            let (number, kind) = (tag >> 3, tag & 7);
            let length = match kind {
                0 => {
                    let value = self.varint()?;
                    each(self, Field { number, value, end: self.at })?;
                    continue;
                }
                1 => 8,
                5 => 4,
                2 => self.varint()?,
                _ => return Err(io::Error::other(format!("a field of type {kind}"))),
            };
            let field = Field { number, value: 0, end: self.at.saturating_add(length) };
            if field.end > end {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if kind == 2 {
                each(self, field)?;
            }
            self.skip_to(field.end)?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn text(&mut self, field: Field) -> io::Result<String> {
        let length = field.end.checked_sub(self.at).ok_or(io::ErrorKind::UnexpectedEof)?;
        if length > TEXT_MAX {
            return Err(io::Error::other(format!("a name of {length} bytes")));
        }
        let mut text = String::new();
        let read = (&mut self.bytes).take(length).read_to_string(&mut text)?;
        self.at += read as u64;
        Ok(text)
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.bytes.read_exact(&mut byte)?;
            self.at += 1;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(io::Error::other("a number of more than 64 bits"))
    }

    fn skip_to(&mut self, end: u64) -> io::Result<()> {
        let rest = end.checked_sub(self.at).ok_or(io::ErrorKind::UnexpectedEof)?;
        let rest = i64::try_from(rest).map_err(io::Error::other)?;
        self.bytes.seek_relative(rest)?;
        self.at = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn tiny() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny/model.onnx")
    }

    #[test]
    fn a_graph_is_described_without_its_weights() {
        let graph = Graph::read(&tiny()).unwrap();
        assert_eq!(graph.operators.get("GroupQueryAttention"), Some(&2));
        assert_eq!(graph.inputs.len(), 7, "{:?}", graph.inputs);
        let ids = Port { name: "input_ids".into(), element: Element::I64, shape: vec![-1, -1] };
        assert_eq!(graph.inputs[0], ids);
        assert_eq!((graph.inputs[3].element, graph.inputs[3].shape[1]), (Element::F32, 2));
        assert!(graph.external.is_empty() && !graph.quantizes_dynamically());
    }

    #[test]
    fn graphs_inside_graphs_without_end_are_refused() {
        // Graph → node → attribute → graph …, from the inside out.
        let inside = [field::GRAPH_NODE, field::ATTRIBUTE_GRAPH, field::NODE_ATTRIBUTE];
        let mut file = Vec::new();
        for number in inside.iter().cycle().take(3001).chain([&field::MODEL_GRAPH]) {
            let mut around = vec![u8::try_from(number << 3 | 2).unwrap()];
            let mut length = file.len();
            while length >= 0x80 {
                around.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
                length >>= 7;
            }
            around.push(u8::try_from(length).unwrap());
            around.extend(file);
            file = around;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, file).unwrap();
        let error = Graph::read(&path).unwrap_err();
        assert!(error.contains("inside each other"), "{error}");
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error_and_never_a_panic() {
        let whole = std::fs::read(tiny()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Graph::read(&path)
        };
        for cut in [0, 1, 2, 30, whole.len() / 2, whole.len() - 1] {
            let error = read(&whole[..cut]).unwrap_err();
            assert!(error.contains("cut short") || error.contains("no ONNX"), "{cut}: {error}");
        }
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bytes = whole[..2000].to_vec();
            for _ in 0..20 {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            let _ = read(&bytes);
        }
        assert!(read(b"version https://git-lfs.github.com/spec/v1\n").is_err());
    }
}
