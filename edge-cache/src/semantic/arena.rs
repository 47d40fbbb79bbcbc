//! Vectors of one partition, and which of them are nearest to another.
//!
//! Most partitions have a few rows, which lie in a list and are all compared; one that grows is
//! scanned ([`flat`]). No graph of neighbours: that is faster only for millions, forgets rows badly, and
//! misses some of the nearest. Deliberately absent: expiry, tenants and limits. An arena is of one
//! partition, and who owns it removes rows.

mod codes;
mod flat;
mod segment;
mod shortlist;

use self::flat::Flat;
use super::{NotAVector, Vector};

/// A flat index of vectors of the same dimensions. Ids are the caller's.
pub struct Arena {
    dimensions: usize,
    rows: Rows,
}

enum Rows {
    Few(Vec<(u64, Vector)>),
    Many(Flat),
}

/// More rows than that are scanned by their signs first.
const FEW_MAX: usize = 256;
/// A row's own bytes in the list, its two allocations counted.
const FEW_BYTES: usize = size_of::<(u64, Vector)>() + 32;

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arena").field("rows", &self.len()).finish_non_exhaustive()
    }
}

impl Arena {
    /// An empty one.
    #[must_use]
    pub const fn new(dimensions: usize) -> Self {
        Self { dimensions, rows: Rows::Few(Vec::new()) }
    }

    /// Adds a row, or replaces the one with this id.
    ///
    /// # Errors
    /// The vector has other dimensions.
    pub fn insert(&mut self, id: u64, vector: &Vector) -> Result<(), NotAVector> {
        if vector.dimensions() != self.dimensions {
            let (expected, got) = (self.dimensions, vector.dimensions());
            return Err(NotAVector::Dimensions { expected, got });
        }
        match &mut self.rows {
            Rows::Many(flat) => return flat.insert(id, vector),
            Rows::Few(rows) => match rows.iter().position(|(known, _)| *known == id) {
                Some(at) => rows[at].1 = vector.clone(),
                None if rows.len() < FEW_MAX => {
                    if rows.len() == rows.capacity() {
                        rows.reserve_exact((rows.len() / 4).max(1));
                    }
                    rows.push((id, vector.clone()));
                }
                None => {
                    let mut flat = Flat::new(self.dimensions);
                    for (id, vector) in rows.drain(..) {
                        flat.insert(id, &vector)?;
                    }
                    flat.insert(id, vector)?;
                    self.rows = Rows::Many(flat);
                }
            },
        }
        Ok(())
    }

    /// Removes a row; whether there was one.
    pub fn remove(&mut self, id: u64) -> bool {
        match &mut self.rows {
            Rows::Few(rows) => {
                let Some(at) = rows.iter().position(|(known, _)| *known == id) else {
                    return false;
                };
                rows.swap_remove(at);
                if rows.capacity() / 2 > rows.len() {
                    rows.shrink_to_fit();
                }
                true
            }
            Rows::Many(flat) => {
                let removed = flat.remove(id);
                if flat.len() < FEW_MAX / 2 {
                    self.rows = Rows::Few(flat.rows().collect());
                }
                removed
            }
        }
    }

    /// The vector of a row.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Vector> {
        match &self.rows {
            Rows::Few(rows) => {
                rows.iter().find(|(known, _)| *known == id).map(|(_, vector)| vector.clone())
            }
            Rows::Many(flat) => flat.get(id),
        }
    }

    /// The most similar rows, the best first; of equals that with the smaller id.
    #[must_use]
    pub fn nearest(&self, query: &Vector, count: usize) -> Vec<(u64, f32)> {
        if query.dimensions() != self.dimensions || count == 0 {
            return Vec::new();
        }
        let rows = match &self.rows {
            Rows::Few(rows) => rows,
            Rows::Many(flat) => return flat.nearest(query, count),
        };
        let mut scored: Vec<_> =
            rows.iter().map(|(id, vector)| (*id, query.similarity(vector))).collect();
        scored.sort_unstable_by(|(a, near_a), (b, near_b)| {
            near_b.total_cmp(near_a).then_with(|| a.cmp(b))
        });
        scored.truncate(count);
        scored
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::Few(rows) => rows.len(),
            Rows::Many(flat) => flat.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values of each vector.
    #[must_use]
    pub const fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Bytes of memory it holds, used or kept for rows to come.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.rows {
                Rows::Few(rows) => {
                    let values = self.dimensions + self.dimensions.div_ceil(64) * 8;
                    rows.capacity() * size_of::<(u64, Vector)>()
                        + rows.len() * (FEW_BYTES - size_of::<(u64, Vector)>() + values)
                }
                Rows::Many(flat) => flat.bytes(),
            }
    }
}

#[cfg(test)]
mod tests;
