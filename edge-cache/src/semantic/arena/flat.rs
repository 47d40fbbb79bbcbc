//! Many vectors: first all rows by one bit a value, then the few best of them by their values in 8
//! bits. A hundred thousand rows take some 0.25 ms with AVX-512, 0.3 with AVX2, 0.43 without.
//!
//! Rows lie in segments of a thousand, so that growing copies little and needs no second arena
//! while it does. The last row takes the place of one that is removed.

use std::collections::HashMap;

use super::{
    codes::Pattern,
    segment::{SEGMENT_ROWS, Segment},
    shortlist::{Shortlist, Sizes},
};
use crate::semantic::{NotAVector, Vector};

/// So few are all compared by their values: that is as fast, and exact.
const ALL_COMPARED: usize = 256;
/// Of more, these many are: those whose signs differ in the fewest places.
const COMPARED: usize = 64;
/// And equals of the last of them up to here: duplicates are equals.
const COMPARED_MOST: usize = 256;
/// Rows that an arena grows by, at least.
pub(super) const STEP_MIN: usize = 8;

/// A flat index of vectors of the same dimensions. Ids are the caller's.
pub(super) struct Flat {
    dimensions: usize,
    segments: Vec<Segment>,
    rows: HashMap<u64, u32>,
}

impl Flat {
    /// An empty one.
    pub(super) fn new(dimensions: usize) -> Self {
        Self { dimensions, segments: Vec::new(), rows: HashMap::new() }
    }

    /// Adds a row, or replaces the one with this id.
    ///
    /// # Errors
    /// The vector has other dimensions.
    pub(super) fn insert(&mut self, id: u64, vector: &Vector) -> Result<(), NotAVector> {
        if vector.dimensions() != self.dimensions {
            let (expected, got) = (self.dimensions, vector.dimensions());
            return Err(NotAVector::Dimensions { expected, got });
        }
        let (row, step) = (number(self.len()), self.step());
        let known = *self.rows.entry(id).or_insert(row);
        if known != row {
            let (segment, row) = place(known);
            self.segments[segment].set(row, id, vector);
            return Ok(());
        }
        if self.segments.last().is_none_or(Segment::is_full) {
            self.segments.push(Segment::new(self.dimensions));
        }
        let last = self.segments.last_mut().expect("one that is not full is there");
        last.push(id, vector, step);
        Ok(())
    }

    /// Removes a row; whether there was one.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        let Some(row) = self.rows.remove(&id) else { return false };
        let step = self.step();
        let last = self.segments.last_mut().expect("a row lies in a segment");
        let (moved, vector) = last.pop(step).expect("no segment is empty");
        if last.is_empty() {
            self.segments.pop();
        }
        if moved != id {
            self.rows.insert(moved, row);
            let (segment, row) = place(row);
            self.segments[segment].set(row, moved, &vector);
        }
        if self.rows.capacity() / 4 > self.rows.len() + STEP_MIN {
            self.rows.shrink_to(self.rows.len() * 2);
        }
        true
    }

    /// The vector of a row.
    pub(super) fn get(&self, id: u64) -> Option<Vector> {
        let (segment, row) = place(*self.rows.get(&id)?);
        Some(self.segments[segment].vector(row))
    }

    /// The most similar rows, the best first; of equals that with the smaller id.
    pub(super) fn nearest(&self, query: &Vector, count: usize) -> Vec<(u64, f32)> {
        if query.dimensions() != self.dimensions || count == 0 {
            return Vec::new();
        }
        let mut scored: Vec<_> = if self.len() < ALL_COMPARED {
            self.segments.iter().flat_map(|segment| segment.all_scored(query)).collect()
        } else {
            let score = |(segment, row): (usize, usize)| self.segments[segment].scored(row, query);
            self.shortlist(query, count).rows().map(place).map(score).collect()
        };
        scored.sort_unstable_by(|(a, near_a), (b, near_b)| {
            near_b.total_cmp(near_a).then_with(|| a.cmp(b))
        });
        scored.truncate(count);
        scored
    }

    /// The rows whose signs differ in the fewest places.
    fn shortlist(&self, query: &Vector, count: usize) -> Shortlist {
        let wanted = count.clamp(COMPARED, self.len());
        let sizes = Sizes { wanted, most: COMPARED_MOST.max(wanted) };
        let largest = i16::try_from(self.dimensions).expect("vectors have fewer dimensions");
        let mut list = Shortlist::new(largest, sizes);
        let pattern = Pattern::of(query.signs());
        for (segment, first) in self.segments.iter().zip((0..).step_by(SEGMENT_ROWS)) {
            for (start, rows, distances) in segment.distances(&pattern) {
                // Of most blocks no row is of interest, which one comparison of them all tells.
                if smallest(&distances) > list.limit() {
                    continue;
                }
                let rows = (first + number(start)..).zip(&distances[..rows]);
                for (row, distance) in rows {
                    if *distance <= list.limit() {
                        list.take(*distance, row);
                    }
                }
            }
        }
        list
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// All of them.
    pub(super) fn rows(&self) -> impl Iterator<Item = (u64, Vector)> {
        let each = |(id, row): (&u64, &u32)| {
            let (segment, row) = place(*row);
            (*id, self.segments[segment].vector(row))
        };
        self.rows.iter().map(each)
    }

    /// Bytes of memory it holds, used or kept for rows to come.
    pub(super) fn bytes(&self) -> usize {
        let segments: usize = self.segments.iter().map(Segment::bytes).sum();
        let table = self.segments.capacity() * size_of::<Segment>();
        // Seven of eight places of a hash table are used at most, each with a byte of its own.
        let places = (self.rows.capacity() * 8 / 7).next_power_of_two();
        let rows =
            if self.rows.capacity() == 0 { 0 } else { places * (size_of::<(u64, u32)>() + 1) };
        size_of::<Self>() + segments + table + rows
    }

    /// Rows to grow by: a quarter, but no more than a segment.
    fn step(&self) -> usize {
        (self.len() / 4).clamp(STEP_MIN, SEGMENT_ROWS)
    }
}

fn smallest(distances: &[i16]) -> i16 {
    distances.iter().fold(i16::MAX, |a, b| a.min(*b))
}

/// The segment of a row, and which of its rows that is.
const fn place(row: u32) -> (usize, usize) {
    (row as usize / SEGMENT_ROWS, row as usize % SEGMENT_ROWS)
}

fn number(row: usize) -> u32 {
    u32::try_from(row).expect("four billion rows are beyond every limit")
}
