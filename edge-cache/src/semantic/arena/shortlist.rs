//! The rows with the smallest distances, chosen in one pass, by counting.
//!
//! However many rows come, and in whatever order, those that are nearer than the wanted last are
//! all there, and of its equals as many as there is room for: a crowd of duplicates takes no place
//! from a nearer one. Rejected: a heap, which takes an arbitrary few of those that are as far as
//! the last, and signs are so coarse that the nearest vector is often one of these.

/// Rows to look at again.
pub(super) struct Shortlist {
    /// Rows up to the cut, and some that lie beyond by now.
    rows: Vec<(i16, u32)>,
    /// How many rows have this distance.
    counts: Vec<u32>,
    /// How many rows lie within the cut.
    within: usize,
    /// The smallest distance within which there are as many as wanted.
    cut: i16,
    sizes: Sizes,
}

/// How many rows a list has.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// This many at least, where there are as many.
    pub(super) wanted: usize,
    /// No equals of the last beyond this many.
    pub(super) most: usize,
}

impl Shortlist {
    pub(super) fn new(largest: i16, sizes: Sizes) -> Self {
        let counts = vec![0; usize::from(largest.unsigned_abs()) + 1];
        Self { rows: Vec::with_capacity(sizes.held()), counts, within: 0, cut: largest, sizes }
    }

    /// The largest distance of interest: below zero where nothing is.
    pub(super) fn limit(&self) -> i16 {
        if self.within < self.sizes.most { self.cut } else { self.cut - 1 }
    }

    /// Takes a row whose distance is within the limit.
    pub(super) fn take(&mut self, distance: i16, row: u32) {
        if self.rows.len() >= self.sizes.held() {
            self.rows.retain(|(distance, _)| *distance <= self.cut);
        }
        self.rows.push((distance, row));
        self.counts[usize::from(distance.unsigned_abs())] += 1;
        self.within += 1;
        while self.cut > 0 && self.within - self.at_the_cut() >= self.sizes.wanted {
            self.within -= self.at_the_cut();
            self.cut -= 1;
        }
    }

    fn at_the_cut(&self) -> usize {
        self.counts[usize::from(self.cut.unsigned_abs())] as usize
    }

    /// Those within the cut, in the order they came.
    pub(super) fn rows(self) -> impl Iterator<Item = u32> {
        let cut = self.cut;
        self.rows.into_iter().filter(move |(distance, _)| *distance <= cut).map(|(_, row)| row)
    }
}

impl Sizes {
    /// Rows that are held before those beyond the cut are dropped: twice of what may remain.
    const fn held(self) -> usize {
        2 * (self.wanted + self.most)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chosen(distances: &[i16], sizes: Sizes) -> Vec<usize> {
        let mut list = Shortlist::new(20, sizes);
        for (row, distance) in (0..).zip(distances) {
            if *distance <= list.limit() {
                list.take(*distance, row);
            }
            assert!(list.rows.len() <= sizes.held());
        }
        list.rows().map(|row| row as usize).collect()
    }

    #[test]
    fn a_crowd_at_the_cut_is_bounded_and_takes_no_place_from_a_nearer_row() {
        let mut distances = vec![7; 1000];
        distances.extend([6, 5]);
        let chosen = chosen(&distances, Sizes { wanted: 4, most: 16 });
        assert_eq!(chosen[..16], (0..16).collect::<Vec<_>>());
        assert_eq!(chosen[16..], [1000, 1001]);
    }

    proptest! {
        #[test]
        fn all_rows_nearer_than_the_wanted_last_are_chosen_and_nothing_beyond_it(
            distances in prop::collection::vec(0_i16..=20, 0..400),
            wanted in 1_usize..30,
            more in 0_usize..30,
        ) {
            let sizes = Sizes { wanted, most: wanted + more };
            let chosen = chosen(&distances, sizes);
            let mut sorted = distances.clone();
            sorted.sort_unstable();
            let last = sorted.get(wanted - 1).copied().unwrap_or(20);
            let count = |wants: &dyn Fn(i16) -> bool| {
                distances.iter().filter(|distance| wants(**distance)).count()
            };
            prop_assert!(chosen.iter().all(|row| distances[*row] <= last));
            let nearer = chosen.iter().filter(|row| distances[**row] < last).count();
            prop_assert_eq!(nearer, count(&|distance| distance < last));
            prop_assert!(chosen.len() >= wanted.min(distances.len()));
            prop_assert!(chosen.len() <= sizes.most + wanted);
            let all_there = chosen.len() == count(&|distance| distance <= last);
            prop_assert!(all_there || chosen.len() >= sizes.most);
        }
    }
}
