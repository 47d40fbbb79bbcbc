//! Up to a thousand rows of an arena: codes for a look at all of them, values for a look at a few.

use super::codes::{Codes, Pattern, ROWS};
use crate::semantic::Vector;

/// Rows in a full segment.
pub(super) const SEGMENT_ROWS: usize = 1024;

/// Rows that lie together.
pub(super) struct Segment {
    ids: Vec<u64>,
    scales: Vec<f32>,
    values: Vec<i8>,
    codes: Codes,
    dimensions: usize,
}

impl Segment {
    pub(super) const fn new(dimensions: usize) -> Self {
        Self {
            ids: Vec::new(),
            scales: Vec::new(),
            values: Vec::new(),
            codes: Codes::new(dimensions),
            dimensions,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.ids.len() >= SEGMENT_ROWS
    }

    /// Adds a row, with room for as many more as `step` says where there is none.
    pub(super) fn push(&mut self, id: u64, vector: &Vector, step: usize) {
        let row = self.ids.len();
        if row == self.ids.capacity() {
            let rows = (row + step).min(SEGMENT_ROWS);
            self.ids.reserve_exact(rows - row);
            self.scales.reserve_exact(rows - row);
            self.values.reserve_exact((rows - row) * self.dimensions);
            self.codes.reserve_exact(rows);
        }
        self.ids.push(id);
        self.scales.push(vector.scale());
        self.values.extend_from_slice(vector.kept());
        self.codes.set(row, vector.signs());
    }

    /// Writes another row in the place of one.
    pub(super) fn set(&mut self, row: usize, id: u64, vector: &Vector) {
        self.ids[row] = id;
        self.scales[row] = vector.scale();
        self.values[row * self.dimensions..][..self.dimensions].copy_from_slice(vector.kept());
        self.codes.set(row, vector.signs());
    }

    /// Takes the last row out, and gives memory back once more than two steps are unused.
    pub(super) fn pop(&mut self, step: usize) -> Option<(u64, Vector)> {
        let row = self.ids.len().checked_sub(1)?;
        let last = (self.ids[row], self.vector(row));
        self.ids.truncate(row);
        self.scales.truncate(row);
        self.values.truncate(row * self.dimensions);
        self.codes.truncate(row);
        if self.ids.capacity() > row + 2 * step {
            self.ids.shrink_to(row + step);
            self.scales.shrink_to(row + step);
            self.values.shrink_to((row + step) * self.dimensions);
            self.codes.shrink_to(row + step);
        }
        Some(last)
    }

    pub(super) fn vector(&self, row: usize) -> Vector {
        Vector::again(self.values_of(row))
    }

    fn values_of(&self, row: usize) -> &[i8] {
        &self.values[row * self.dimensions..][..self.dimensions]
    }

    /// How similar a row is.
    pub(super) fn scored(&self, row: usize, query: &Vector) -> (u64, f32) {
        (self.ids[row], query.similarity_to(self.values_of(row), self.scales[row]))
    }

    /// All rows, with their similarity.
    pub(super) fn all_scored(&self, query: &Vector) -> impl Iterator<Item = (u64, f32)> {
        (0..self.ids.len()).map(|row| self.scored(row, query))
    }

    /// Distances of all rows, in blocks, each with its first row and the number of its rows.
    pub(super) fn distances(
        &self,
        pattern: &Pattern,
    ) -> impl Iterator<Item = (usize, usize, [i16; ROWS])> {
        let starts = (0..self.ids.len()).step_by(ROWS);
        starts
            .zip(self.codes.distances(pattern))
            .map(|(start, distances)| (start, (self.ids.len() - start).min(ROWS), distances))
    }

    /// Bytes that its rows take, or may take before it asks for more.
    pub(super) fn bytes(&self) -> usize {
        self.ids.capacity() * size_of::<u64>()
            + self.scales.capacity() * size_of::<f32>()
            + self.values.capacity()
            + self.codes.bytes()
    }
}
