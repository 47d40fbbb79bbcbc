//! Memory that ONNX Runtime has pointers to: it stays where it is until it is dropped.
#![expect(unsafe_code, reason = "owns memory by a pointer that outlives every borrow of it")]

use std::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

/// Values at an address that stays theirs. Unlike a box, whose pointer is its own alone, it may be
/// pointed to between two borrows.
pub(super) struct Buffer<T> {
    start: NonNull<T>,
    length: usize,
}

// SAFETY: it owns its values alone, as a `Box<[T]>` does.
unsafe impl<T: Send> Send for Buffer<T> {}

impl<T> From<Vec<T>> for Buffer<T> {
    fn from(values: Vec<T>) -> Self {
        let length = values.len();
        let start = Box::into_raw(values.into_boxed_slice()).cast();
        Self { start: NonNull::new(start).expect("a box is somewhere"), length }
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `start` and `length` are those of the boxed slice, which is still ours.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let whole = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.length);
        // SAFETY: this is the boxed slice that it was made of, and nobody uses it any more.
        drop(unsafe { Box::from_raw(whole) });
    }
}
