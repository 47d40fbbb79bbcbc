//! The KV pool: keys and values of every slot, in one piece of memory a tensor.
//!
//! ONNX Runtime's safe binding copies any input that it does not own, which would copy the whole
//! cache at every step. Here past and present are the *same* memory, bound once as input and once
//! as output; grouped-query attention writes the new token's keys and values behind the old ones.
//! Where a graph cannot do that, the past is bound from a copy ([`Binding::Copied`]).
//!
//! A decode step is over in a fifth of a millisecond for a small model, and binding two dozen
//! tensors anew would take a tenth of that. So the bindings of decode steps are kept
//! ([`KvPool::decode`]), one for each number of rows.
//!
//! This and `kv/buffer.rs` are the only `unsafe` of Nearhop. It is sound because of what they do and
//! nothing outside can undo: buffers are memory of their own ([`buffer`]), reached by pointers that
//! stay valid until the pool is dropped, never resized or moved; kept bindings lie in the pool and
//! are dropped before the buffers; ONNX Runtime reads and writes them only within [`KvPool::run`]
//! and [`KvPool::decode`], which borrow the pool mutably, so that nobody else does meanwhile.

mod buffer;

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    fmt::Debug,
    ops::Range,
};

use half::f16;
use ort::{
    AsPointer as _,
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    session::{IoBinding, Session, SessionOutputs},
    value::{DynValue, PrimitiveTensorElementType, Shape, TensorRefMut},
};

use self::buffer::Buffer;
use super::layout::KvNames;

/// Keys and values of some tokens of one sequence, outside of any slot.
#[derive(Debug, Clone, PartialEq)]
pub enum KvBlock {
    /// As float32.
    F32(Box<[f32]>),
    /// As float16.
    F16(Box<[f16]>),
}

impl KvBlock {
    /// Memory it takes, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => size_of_val(values.as_ref()),
            Self::F16(values) => size_of_val(values.as_ref()),
        }
    }
}

/// What keys and values may be stored as.
pub(crate) trait KvElement:
    PrimitiveTensorElementType + Copy + Default + Debug + Send + 'static
{
    /// The block of these values.
    fn block(values: Vec<Self>) -> KvBlock;
    /// A block's values, where it holds this type.
    fn values(block: &KvBlock) -> Option<&[Self]>;
}

impl KvElement for f32 {
    fn block(values: Vec<Self>) -> KvBlock {
        KvBlock::F32(values.into())
    }

    fn values(block: &KvBlock) -> Option<&[Self]> {
        match block {
            KvBlock::F32(values) => Some(values),
            KvBlock::F16(_) => None,
        }
    }
}

impl KvElement for f16 {
    fn block(values: Vec<Self>) -> KvBlock {
        KvBlock::F16(values.into())
    }

    fn values(block: &KvBlock) -> Option<&[Self]> {
        match block {
            KvBlock::F16(values) => Some(values),
            KvBlock::F32(_) => None,
        }
    }
}

/// Shape of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) slots: usize,
    /// Key/value heads.
    pub(crate) heads: usize,
    /// Tokens a slot can hold.
    pub(crate) capacity: usize,
    /// Values of a head for one token.
    pub(crate) head_size: usize,
}

impl Geometry {
    /// Values of one head of one slot.
    const fn head(self) -> usize {
        self.capacity * self.head_size
    }

    /// Values of one slot.
    const fn slot(self) -> usize {
        self.heads * self.head()
    }

    /// Where the values of `tokens` in one head of one slot are.
    const fn at(self, slot: usize, head: usize, tokens: &Range<usize>) -> Range<usize> {
        let from = slot * self.slot() + head * self.head();
        from + tokens.start * self.head_size..from + tokens.end * self.head_size
    }
}

/// How the past is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binding {
    /// The same memory as the present.
    InPlace,
    /// A copy, made at every step.
    Copied,
}

/// `[slots, heads, capacity, head_size]` for each tensor.
pub(crate) struct KvPool<T> {
    geometry: Geometry,
    /// The past's and the present's.
    names: Vec<(CString, CString)>,
    /// Kept bindings of decode steps, by their number of rows. Before the buffers, to be dropped
    /// first.
    bound: HashMap<usize, IoBinding>,
    /// One a tensor.
    buffers: Vec<Buffer<T>>,
    /// The past, where it is bound from a copy.
    copy: Vec<T>,
}

impl<T: KvElement> KvPool<T> {
    /// All its memory is taken now: a pod must not run out of it in the middle of its work.
    ///
    /// # Errors
    /// A name with a NUL in it; more memory than there is.
    pub(crate) fn new(geometry: Geometry, tensors: &[KvNames]) -> Result<Self, String> {
        let Geometry { slots, heads, capacity, head_size } = geometry;
        let factors = [heads, capacity, head_size, size_of::<T>(), tensors.len().max(1)];
        let bytes = factors.iter().try_fold(slots, |all, factor| all.checked_mul(*factor));
        let too_much = || {
            let size = bytes.map_or("more than any".to_owned(), |bytes| format!("{}", bytes >> 20));
            format!(
                "its keys and values need {size} MiB of memory for {slots} slots of {capacity} tokens, which is not to be had; set a shorter context_length in nearhop.yaml, or fewer origin.slots"
            )
        };
        bytes.ok_or_else(too_much)?;
        let size = slots * geometry.slot();
        let name = |name: &str| CString::new(name).map_err(|error| error.to_string());
        let names = tensors.iter().map(|tensor| Ok((name(&tensor.past)?, name(&tensor.present)?)));
        let names: Vec<_> = names.collect::<Result<_, String>>()?;
        let buffers = names.iter().map(|_| {
            let mut buffer = Vec::new();
            buffer.try_reserve_exact(size).map_err(|_refused| too_much())?;
            buffer.resize(size, T::default());
            Ok(buffer.into())
        });
        let buffers = buffers.collect::<Result<_, String>>()?;
        Ok(Self { geometry, names, bound: HashMap::new(), buffers, copy: Vec::new() })
    }

    /// Memory of one token, bytes.
    pub(crate) fn token_bytes(&self) -> usize {
        self.buffers.len() * self.geometry.heads * self.geometry.head_size * size_of::<T>()
    }

    /// Copies the first `length` tokens of slot `from` to slot `to`.
    pub(crate) fn copy(&mut self, from: usize, to: usize, length: usize) {
        let geometry = self.geometry;
        for buffer in &mut self.buffers {
            for head in 0..geometry.heads {
                let target = geometry.at(to, head, &(0..length)).start;
                buffer.copy_within(geometry.at(from, head, &(0..length)), target);
            }
        }
    }

    /// The keys and values of `tokens` of slot `slot`.
    pub(crate) fn save(&self, slot: usize, tokens: &Range<usize>) -> KvBlock {
        let mut values = Vec::with_capacity(self.token_bytes() / size_of::<T>() * tokens.len());
        for buffer in &self.buffers {
            for head in 0..self.geometry.heads {
                values.extend_from_slice(&buffer[self.geometry.at(slot, head, tokens)]);
            }
        }
        T::block(values)
    }

    /// Puts a block of `tokens.len()` tokens back, at `tokens` of slot `slot`.
    pub(crate) fn restore(&mut self, slot: usize, tokens: &Range<usize>, block: &KvBlock) {
        let values = T::values(block).expect("a block of this pool");
        let size = tokens.len() * self.geometry.head_size;
        let mut pieces = values.chunks_exact(size);
        for buffer in &mut self.buffers {
            for head in 0..self.geometry.heads {
                let piece = pieces.next().expect("a block of this shape");
                buffer[self.geometry.at(slot, head, tokens)].copy_from_slice(piece);
            }
        }
    }

    /// The past of slots `0..lengths.len()` as `[rows, heads, longest, head_size]` of tensor
    /// `tensor`: what a graph reads that concatenates. Zeros behind a shorter row.
    pub(crate) fn gather(&self, tensor: usize, first: usize, lengths: &[usize]) -> Vec<T> {
        let Geometry { heads, head_size, .. } = self.geometry;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut past = vec![T::default(); lengths.len() * heads * longest * head_size];
        if longest == 0 {
            return past;
        }
        let rows = past.chunks_exact_mut(longest * head_size);
        for (at, row) in rows.enumerate() {
            let (slot, head) = (at / heads, at % heads);
            let range = self.geometry.at(first + slot, head, &(0..lengths[slot]));
            row[..lengths[slot] * head_size].copy_from_slice(&self.buffers[tensor][range]);
        }
        past
    }

    /// Takes the last `width` tokens of each row of `present`,
    /// `[rows, heads, longest + width, head_size]`, behind the `lengths` tokens that are there.
    pub(crate) fn append(
        &mut self,
        tensor: usize,
        first: usize,
        (lengths, width): (&[usize], usize),
        present: &[T],
    ) {
        let Geometry { heads, head_size, .. } = self.geometry;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let rows = present.chunks_exact((longest + width) * head_size);
        for (at, row) in rows.enumerate() {
            let (slot, head) = (at / heads, at % heads);
            let tokens = lengths[slot]..lengths[slot] + width;
            let range = self.geometry.at(first + slot, head, &tokens);
            self.buffers[tensor][range].copy_from_slice(&row[longest * head_size..]);
        }
    }

    /// Runs `session` with `slots` bound as past and present. `binding` holds the other inputs and
    /// outputs; it is used up, so that nothing of the pool stays bound. Returns what `read` picks
    /// of the outputs.
    #[expect(unsafe_code, reason = "binds our own memory to ONNX Runtime without a copy")]
    pub(crate) fn run<R>(
        &mut self,
        session: &mut Session,
        (mut binding, how): (IoBinding, Binding),
        slots: Range<usize>,
        read: impl FnOnce(&SessionOutputs<'_>) -> ort::Result<R>,
    ) -> ort::Result<R> {
        let range = self.values_of(&slots);
        let shape = self.shape(slots.len());
        if how == Binding::Copied {
            self.copy.clear();
            self.copy.extend(self.buffers.iter().flat_map(|buffer| &buffer[range.clone()]));
        }
        let mut copies = self.copy.chunks_exact_mut(range.len());
        for ((past, present), buffer) in self.names.iter().zip(&mut self.buffers) {
            let value = tensor(&mut buffer[range.clone()], shape)?;
            let copied = match copies.next() {
                Some(copy) if how == Binding::Copied => Some(tensor(copy, shape)?),
                _ => None,
            };
            let input = copied.as_ref().map_or(value.ptr(), |copied| copied.ptr());
            // SAFETY: both pointers are valid, and `past` ends with a NUL. `bind_input` would do
            // the same after copying the value, whose memory is borrowed until the end.
            unsafe { bind(&mut binding, past, input, Side::Input)? };
            let present = present.to_str().expect("it was made of text");
            binding.bind_output(present, value)?;
        }
        let outputs = session.run_binding(&binding)?;
        let out = read(&outputs)?;
        drop(outputs);
        drop(binding);
        Ok(out)
    }

    /// Runs a decode step of the first slots, in place: `inputs` are everything but keys and
    /// values, `logits` is filled, as a tensor of shape `shape` called `name`.
    #[expect(unsafe_code, reason = "binds our own memory to ONNX Runtime without a copy")]
    pub(crate) fn decode<L: PrimitiveTensorElementType + Debug>(
        &mut self,
        session: &mut Session,
        (rows, inputs): (usize, &[(CString, DynValue)]),
        (name, shape, logits): (&CStr, &[usize], &mut [L]),
    ) -> ort::Result<()> {
        assert_eq!(shape.iter().product::<usize>(), logits.len(), "a tensor of this shape");
        // One that fails is not kept.
        let mut binding = match self.bound.remove(&rows) {
            Some(binding) => binding,
            None => self.bind_rows(session, rows)?,
        };
        for (name, value) in inputs {
            // SAFETY: the name ends with a NUL; the value outlives the run, and what stays bound
            // of it is bound anew before the next.
            unsafe { bind(&mut binding, name, value.ptr(), Side::Input)? };
        }
        let shape: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
        let target = tensor(logits, shape)?;
        // SAFETY: as above; `logits` is borrowed mutably until the run is over.
        unsafe { bind(&mut binding, name, target.ptr(), Side::Output)? };
        // Outputs that ort does not know of are not fetched: each would be wrapped and asked for
        // its type.
        drop(session.run_binding(&binding)?);
        self.bound.insert(rows, binding);
        Ok(())
    }

    /// A binding with the first `rows` slots as past and present.
    #[expect(unsafe_code, reason = "binds our own memory to ONNX Runtime without a copy")]
    fn bind_rows(&mut self, session: &Session, rows: usize) -> ort::Result<IoBinding> {
        let mut binding = session.create_binding()?;
        let (range, shape) = (self.values_of(&(0..rows)), self.shape(rows));
        for ((past, present), buffer) in self.names.iter().zip(&mut self.buffers) {
            let value = tensor(&mut buffer[range.clone()], shape)?;
            // SAFETY: the names end with a NUL; the value's memory is a buffer's, which the
            // binding does not outlive.
            unsafe {
                bind(&mut binding, past, value.ptr(), Side::Input)?;
                bind(&mut binding, present, value.ptr(), Side::Output)?;
            }
        }
        Ok(binding)
    }

    fn shape(&self, slots: usize) -> [i64; 4] {
        let Geometry { heads, capacity, head_size, .. } = self.geometry;
        [slots, heads, capacity, head_size].map(|size| size as i64)
    }

    /// Where the values of `slots` are in each buffer.
    fn values_of(&self, slots: &Range<usize>) -> Range<usize> {
        assert!(slots.end <= self.geometry.slots && !slots.is_empty(), "slots {slots:?}");
        slots.start * self.geometry.slot()..slots.end * self.geometry.slot()
    }
}

/// Values as a tensor, not copied. What keeps a reference of its own to it must not be run when
/// `data` is gone.
#[expect(unsafe_code, reason = "lends memory to ONNX Runtime")]
fn tensor<'a, T: PrimitiveTensorElementType + Debug>(
    data: &'a mut [T],
    shape: impl IntoIterator<Item = i64>,
) -> ort::Result<TensorRefMut<'a, T>> {
    let (device, kind) = (AllocationDevice::CPU, AllocatorType::Device);
    let info = MemoryInfo::new(device, 0, kind, MemoryType::Default)?;
    let shape: Shape = shape.into_iter().collect();
    assert_eq!(shape.num_elements(), data.len(), "a tensor of this shape");
    // SAFETY: `data` is exactly `shape` values of `T`, aligned as such, in memory of the CPU, and
    // borrowed mutably for as long as the tensor lives.
    unsafe { TensorRefMut::from_raw(info, data.as_mut_ptr().cast(), shape) }
}

/// Which way a tensor goes.
#[derive(Clone, Copy)]
enum Side {
    Input,
    Output,
}

/// Binds a value without a copy and without ort's own list of what is bound.
///
/// # Safety
/// `value` is a value, and its memory is valid whenever `binding` is run with it.
#[expect(unsafe_code, reason = "binds our own memory to ONNX Runtime without a copy")]
unsafe fn bind(
    binding: &mut IoBinding,
    name: &CStr,
    value: *const ort::sys::OrtValue,
    side: Side,
) -> ort::Result<()> {
    let api = ort::api();
    let bind = match side {
        Side::Input => api.BindInput,
        Side::Output => api.BindOutput,
    };
    // SAFETY: the binding and the name are valid; the caller answers for the value.
    unsafe { ort::Error::result_from_status(bind(binding.ptr_mut(), name.as_ptr(), value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> KvPool<f32> {
        let geometry = Geometry { slots: 3, heads: 2, capacity: 4, head_size: 2 };
        let tensor = KvNames { past: "p".into(), present: "q".into() };
        let mut pool = KvPool::new(geometry, &[tensor]).unwrap();
        for (at, value) in pool.buffers[0].iter_mut().enumerate() {
            *value = u8::try_from(at).unwrap().into();
        }
        pool
    }

    #[test]
    fn more_memory_than_there_is_is_told_and_not_taken() {
        for capacity in [usize::MAX / 8, 1 << 44] {
            let geometry = Geometry { slots: 8, heads: 2, capacity, head_size: 2 };
            let tensor = KvNames { past: "p".into(), present: "q".into() };
            let error = KvPool::<f32>::new(geometry, &[tensor]).err().unwrap();
            assert!(error.contains("context_length"), "{error}");
        }
    }

    #[test]
    fn a_copied_slot_leaves_the_others_alone() {
        let mut pool = pool();
        let before = pool.buffers[0].to_vec();
        pool.copy(0, 2, 3);
        let after = &pool.buffers[0];
        assert_eq!(after[..32], before[..32]);
        assert_eq!(after[32..38], before[0..6], "first head, three tokens");
        assert_eq!(after[38..40], before[38..40], "the fourth token is not copied");
        assert_eq!(after[40..46], before[8..14], "second head");
    }

    #[test]
    fn a_block_goes_to_any_slot() {
        let mut pool = pool();
        let before = pool.buffers[0].to_vec();
        let block = pool.save(1, &(1..3));
        assert_eq!(block, KvBlock::F32([18.0, 19.0, 20.0, 21.0, 26.0, 27.0, 28.0, 29.0].into()));
        assert_eq!(block.bytes(), 2 * pool.token_bytes());
        pool.restore(0, &(2..4), &block);
        assert_eq!(pool.buffers[0][4..8], before[18..22]);
        assert_eq!(pool.buffers[0][12..16], before[26..30]);
        assert_eq!(pool.buffers[0][..4], before[..4]);
        assert_eq!(pool.buffers[0][16..], before[16..]);
    }

    #[test]
    fn rows_of_different_length_are_gathered_with_zeros_and_appended_to() {
        let mut pool = pool();
        let before = pool.buffers[0].to_vec();
        let past = pool.gather(0, 0, &[1, 2]);
        assert_eq!(past[..4], [0.0, 1.0, 0.0, 0.0], "row 0, head 0: one token and a hole");
        assert_eq!(past[8..12], before[16..20], "row 1, head 0: two tokens");
        let present: Vec<f32> = (100u8..124).map(f32::from).collect();
        pool.append(0, 0, (&[1, 2], 1), &present);
        assert_eq!(pool.buffers[0][2..4], [104.0, 105.0], "row 0, head 0, behind one token");
        assert_eq!(pool.buffers[0][20..22], [116.0, 117.0], "row 1, head 0, behind two");
        assert!(pool.gather(0, 0, &[0]).is_empty());
    }
}
