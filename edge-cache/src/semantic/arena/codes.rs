//! The signs of many vectors, laid out so that 64 of them are compared at once.
//!
//! A block holds 64 rows. Their first bytes lie side by side, then their second ones, and so on: a
//! step of the count below is the same for each row, and a compiler turns it into vector
//! instructions. It has no need of an instruction that counts bits, which the oldest x86-64 lacks:
//! there, row after row with `count_ones`, this took twice the time. The binary has it for newer
//! processors as well, and asks once which of them it runs on: with AVX2 it takes 0.7 of the time,
//! with AVX-512 0.6. The latter means all that came with Ice Lake; processors that have less of it
//! take AVX2.

use multiversion::multiversion;

/// Rows in a block.
pub(super) const ROWS: usize = 64;
/// One byte of each row, eight in a word.
type Slice = [u64; ROWS / 8];
/// Slices of a word of signs.
const SLICES: usize = 8;
/// Groups of eight slices after which a count in 8 bits might be full.
const GROUPS_MAX: usize = 31;

/// Signs of rows, in blocks.
pub(super) struct Codes {
    slices: Vec<Slice>,
    block_slices: usize,
}

/// Signs of a query, each byte eight times.
pub(super) struct Pattern(Vec<u64>);

impl Pattern {
    pub(super) fn of(signs: &[u64]) -> Self {
        let bytes = signs.iter().flat_map(|word| word.to_le_bytes());
        Self(bytes.map(|byte| u64::from_ne_bytes([byte; 8])).collect())
    }
}

impl Codes {
    pub(super) const fn new(dimensions: usize) -> Self {
        Self { slices: Vec::new(), block_slices: dimensions.div_ceil(64) * SLICES }
    }

    /// Writes the signs of a row, at most one block behind the last.
    pub(super) fn set(&mut self, row: usize, signs: &[u64]) {
        let start = row / ROWS * self.block_slices;
        if self.slices.len() <= start {
            self.slices.resize(start + self.block_slices, [0; ROWS / 8]);
        }
        let (word, shift) = (row % ROWS / 8, row % 8 * 8);
        let bytes = signs.iter().flat_map(|word| word.to_le_bytes());
        for (slice, byte) in self.slices[start..].iter_mut().zip(bytes) {
            slice[word] = slice[word] & !(0xff << shift) | u64::from(byte) << shift;
        }
    }

    /// Forgets all rows but the first ones.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.slices.truncate(rows.div_ceil(ROWS) * self.block_slices);
    }

    pub(super) fn reserve_exact(&mut self, rows: usize) {
        let slices = rows.div_ceil(ROWS) * self.block_slices;
        self.slices.reserve_exact(slices.saturating_sub(self.slices.len()));
    }

    pub(super) fn shrink_to(&mut self, rows: usize) {
        self.slices.shrink_to(rows.div_ceil(ROWS) * self.block_slices);
    }

    pub(super) fn bytes(&self) -> usize {
        self.slices.capacity() * size_of::<Slice>()
    }

    /// For each block in how many signs its rows differ from the pattern. The last may have more
    /// rows than were written.
    pub(super) fn distances(&self, pattern: &Pattern) -> impl Iterator<Item = [i16; ROWS]> {
        self.slices.chunks_exact(self.block_slices.max(1)).map(|block| distances(block, pattern))
    }
}

#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
fn distances(block: &[Slice], pattern: &Pattern) -> [i16; ROWS] {
    let (groups, _) = block.as_chunks::<SLICES>();
    let (patterns, _) = pattern.0.as_chunks::<SLICES>();
    let (mut even, mut odd) = ([0; ROWS / 8], [0; ROWS / 8]);
    for (groups, patterns) in groups.chunks(GROUPS_MAX).zip(patterns.chunks(GROUPS_MAX)) {
        add_distances(groups, patterns, (&mut even, &mut odd));
    }
    let mut distances = [0; ROWS];
    for (rows, (even, odd)) in distances.as_chunks_mut::<8>().0.iter_mut().zip(even.iter().zip(odd))
    {
        let (even, odd) = (even.to_le_bytes(), odd.to_le_bytes());
        for pair in 0..4 {
            rows[2 * pair] = i16::from_le_bytes([even[2 * pair], even[2 * pair + 1]]);
            rows[2 * pair + 1] = i16::from_le_bytes([odd[2 * pair], odd[2 * pair + 1]]);
        }
    }
    distances
}

/// Counts as Harley and Seal do: eight slices are added bit by bit, with carries of two and four,
/// and only what overflows, an eighth, has its bits counted. Sums of even rows and of odd ones are
/// kept apart, in 16 bits each.
#[inline(always)]
fn add_distances(
    groups: &[[Slice; SLICES]],
    patterns: &[[u64; SLICES]],
    (even, odd): (&mut Slice, &mut Slice),
) {
    const EVEN: u64 = u64::MAX / 0xffff * 0xff;
    let none = [0; ROWS / 8];
    let (mut ones, mut twos, mut fours, mut eights) = (none, none, none, none);
    for (group, pattern) in groups.iter().zip(patterns) {
        for lane in 0..ROWS / 8 {
            let differs = |slice: usize| group[slice][lane] ^ pattern[slice];
            let (one, two_a) = add(ones[lane], differs(0), differs(1));
            let (one, two_b) = add(one, differs(2), differs(3));
            let (two, four_a) = add(twos[lane], two_a, two_b);
            let (one, two_a) = add(one, differs(4), differs(5));
            let (one, two_b) = add(one, differs(6), differs(7));
            let (two, four_b) = add(two, two_a, two_b);
            let (four, eight) = add(fours[lane], four_a, four_b);
            (ones[lane], twos[lane], fours[lane]) = (one, two, four);
            eights[lane] += count_in_bytes(eight);
        }
    }
    for lane in 0..ROWS / 8 {
        let rest = count_in_bytes(ones[lane])
            + 2 * count_in_bytes(twos[lane])
            + 4 * count_in_bytes(fours[lane]);
        let eights = eights[lane];
        even[lane] += (rest & EVEN) + 8 * (eights & EVEN);
        odd[lane] += ((rest >> 8) & EVEN) + 8 * ((eights >> 8) & EVEN);
    }
}

/// The sum of three bits and its carry, 64 times.
#[inline(always)]
const fn add(a: u64, b: u64, c: u64) -> (u64, u64) {
    let half = a ^ b;
    (half ^ c, a & b | half & c)
}

/// How many bits of each byte are set.
#[inline(always)]
const fn count_in_bytes(bits: u64) -> u64 {
    const BYTES: u64 = u64::MAX / 0xff;
    let pairs = bits - ((bits >> 1) & (0x55 * BYTES));
    let fours = (pairs & (0x33 * BYTES)) + ((pairs >> 2) & (0x33 * BYTES));
    (fours + (fours >> 4)) & (0x0f * BYTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_distance_is_the_number_of_signs_that_differ(
            words in 1_usize..70,
            rows in 1_usize..80,
            seed: u64,
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            // Now and then all bits, for the largest distance.
            let mut signs = || match random.u8(..8) {
                0 => vec![0; words],
                1 => vec![u64::MAX; words],
                _ => (0..words).map(|_| random.u64(..)).collect::<Vec<_>>(),
            };
            let (query, written): (_, Vec<_>) = (signs(), (0..rows).map(|_| signs()).collect());
            let mut codes = Codes::new(words * 64);
            written.iter().enumerate().for_each(|(row, signs)| codes.set(row, signs));
            // The first row again, with others beside it.
            codes.set(0, &query);
            let found: Vec<_> = codes.distances(&Pattern::of(&query)).flatten().collect();
            let differ = |signs: &Vec<u64>| -> u32 {
                signs.iter().zip(&query).map(|(a, b)| (a ^ b).count_ones()).sum()
            };
            prop_assert_eq!(found[0], 0);
            for (row, signs) in written.iter().enumerate().skip(1) {
                prop_assert_eq!(u32::from(found[row].unsigned_abs()), differ(signs));
            }
        }
    }
}
