//! The KV pool: keys and values of every slot, in one piece of memory a layer, computed in place.
//!
//! ONNX Runtime's safe binding copies any input that it does not own, which would copy the whole
//! cache at every step. Here past and present are the *same* memory, bound once as input and once
//! as output; grouped-query attention writes the new token's keys and values behind the old ones.
//!
//! This is the only `unsafe` of Nearhop. It is sound because of what [`KvPool::run`] does and
//! nothing outside can undo: the binding is made, used and dropped while the pool is borrowed
//! mutably, so that no pointer into the pool outlives the borrow, the buffers are never resized,
//! and nobody else can read or write them meanwhile.

use std::ffi::CString;

use ort::{
    AsPointer as _,
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    session::{IoBinding, Session},
    value::{Shape, TensorRefMut},
};

/// One tensor that is read as `past` and written as `present`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) past: CString,
    pub(crate) present: String,
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
}

/// `[slots, heads, capacity, head_size]` float32 for each tensor.
pub(crate) struct KvPool {
    geometry: Geometry,
    tensors: Vec<Tensor>,
    /// One a tensor, never resized.
    buffers: Vec<Box<[f32]>>,
}

impl KvPool {
    pub(crate) fn new(geometry: Geometry, tensors: Vec<Tensor>) -> Self {
        let size = geometry.slots * geometry.slot();
        let buffers = tensors.iter().map(|_| vec![0.0; size].into_boxed_slice()).collect();
        Self { geometry, tensors, buffers }
    }

    /// Copies the first `length` tokens of slot `from` to slot `to`.
    pub(crate) fn copy(&mut self, from: usize, to: usize, length: usize) {
        let Geometry { heads, head_size, .. } = self.geometry;
        let (head, slot) = (self.geometry.head(), self.geometry.slot());
        for buffer in &mut self.buffers {
            for at in 0..heads {
                let source = from * slot + at * head;
                buffer.copy_within(source..source + length * head_size, to * slot + at * head);
            }
        }
    }

    /// Runs `session` with slots `first..first + batch` bound in place as past and present.
    /// `binding` holds the other inputs and outputs; it is used up, so that nothing of the pool
    /// stays bound. Returns the binding's first bound output that `read` picks.
    #[expect(unsafe_code, reason = "binds our own memory to ONNX Runtime without a copy")]
    pub(crate) fn run<R>(
        &mut self,
        session: &mut Session,
        mut binding: IoBinding,
        slots: std::ops::Range<usize>,
        read: impl FnOnce(&ort::session::SessionOutputs<'_>) -> ort::Result<R>,
    ) -> ort::Result<R> {
        let Geometry { heads, capacity, head_size, .. } = self.geometry;
        assert!(slots.end <= self.geometry.slots && !slots.is_empty(), "slots {slots:?}");
        let offset = slots.start * self.geometry.slot();
        let shape = [slots.len(), heads, capacity, head_size].map(|size| size as i64);
        for (tensor, buffer) in self.tensors.iter().zip(&mut self.buffers) {
            let memory = MemoryInfo::new(
                AllocationDevice::CPU,
                0,
                AllocatorType::Device,
                MemoryType::Default,
            )?;
            let piece = &mut buffer[offset..offset + slots.len() * self.geometry.slot()];
            // SAFETY: `piece` is exactly `shape` float32 values, aligned as such, in memory of the
            // CPU, and borrowed mutably until this function returns. The value made here, and
            // `binding`, which refers to it, are both dropped before that.
            let value: TensorRefMut<'_, f32> = unsafe {
                TensorRefMut::from_raw(memory, piece.as_mut_ptr().cast(), Shape::new(shape))?
            };
            // SAFETY: both pointers are valid, and `tensor.past` ends with a NUL. The value lives
            // in `binding` (as the bound output below) as long as the binding refers to it.
            // `bind_input` would do the same after copying the value.
            unsafe {
                let status =
                    (ort::api().BindInput)(binding.ptr_mut(), tensor.past.as_ptr(), value.ptr());
                ort::Error::result_from_status(status)?;
            }
            binding.bind_output(tensor.present.as_str(), value)?;
        }
        let outputs = session.run_binding(&binding)?;
        let out = read(&outputs)?;
        drop(outputs);
        drop(binding);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_slot_leaves_the_others_alone() {
        let geometry = Geometry { slots: 3, heads: 2, capacity: 4, head_size: 2 };
        let tensor = Tensor { past: CString::new("p").unwrap(), present: "q".into() };
        let mut pool = KvPool::new(geometry, vec![tensor]);
        for (at, value) in pool.buffers[0].iter_mut().enumerate() {
            *value = u8::try_from(at).unwrap().into();
        }
        let before = pool.buffers[0].clone();
        pool.copy(0, 2, 3);
        let after = &pool.buffers[0];
        assert_eq!(after[..32], before[..32]);
        assert_eq!(after[32..38], before[0..6], "first head, three tokens");
        assert_eq!(after[38..40], before[38..40], "the fourth token is not copied");
        assert_eq!(after[40..46], before[8..14], "second head");
    }
}
