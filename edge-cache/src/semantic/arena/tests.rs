use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{flat::STEP_MIN, segment::SEGMENT_ROWS, *};

const DIMENSIONS: usize = 100;

fn noise(random: &mut fastrand::Rng, dimensions: usize) -> Vec<f32> {
    // A sum of uniform numbers is bell-shaped enough.
    (0..dimensions).map(|_| (0..4).map(|_| random.f32() - 0.5).sum()).collect()
}

fn near(random: &mut fastrand::Rng, centre: &[f32], share: f32) -> Vec<f32> {
    let noise = noise(random, centre.len());
    centre.iter().zip(noise).map(|(value, noise)| value + noise * share).collect()
}

fn vector(numbers: &[f32]) -> Vector {
    Vector::new(numbers, numbers.len()).unwrap()
}

fn random_vector(seed: u64) -> Vector {
    vector(&noise(&mut fastrand::Rng::with_seed(seed), DIMENSIONS))
}

/// By a look at all of them.
fn nearest<'v>(
    rows: impl IntoIterator<Item = (&'v u64, &'v Vector)>,
    query: &Vector,
    count: usize,
) -> Vec<(u64, f32)> {
    let mut all: Vec<_> =
        rows.into_iter().map(|(id, vector)| (*id, query.similarity(vector))).collect();
    all.sort_by(|(a, near_a), (b, near_b)| near_b.total_cmp(near_a).then_with(|| a.cmp(b)));
    all.truncate(count);
    all
}

#[test]
fn a_row_is_found_replaced_and_removed() {
    let mut arena = Arena::new(DIMENSIONS);
    let (a, b) = (random_vector(1), random_vector(2));
    assert_eq!(arena.nearest(&a, 1), []);
    arena.insert(7, &a).unwrap();
    arena.insert(8, &b).unwrap();
    assert_eq!(arena.nearest(&a, 1), [(7, a.similarity(&a))]);
    assert_eq!(arena.get(8), Some(b.clone()));
    arena.insert(7, &b).unwrap();
    assert_eq!(arena.len(), 2);
    assert_eq!(arena.nearest(&b, 9).iter().map(|(id, _)| *id).collect::<Vec<_>>(), [7, 8]);
    assert!(arena.remove(7));
    assert!(!arena.remove(7));
    assert_eq!((arena.get(7), arena.len()), (None, 1));
    assert_eq!(arena.nearest(&b, 0), []);
}

#[test]
fn a_vector_of_other_dimensions_is_refused_and_near_to_nothing() {
    let mut arena = Arena::new(DIMENSIONS);
    let other = vector(&[1.0; 3]);
    let refused = NotAVector::Dimensions { expected: DIMENSIONS, got: 3 };
    assert_eq!(arena.insert(1, &other), Err(refused));
    assert!(arena.is_empty());
    arena.insert(1, &random_vector(1)).unwrap();
    assert_eq!(arena.nearest(&other, 1), []);
}

#[test]
fn memory_grows_by_a_quarter_and_is_given_back() {
    let mut arena = Arena::new(DIMENSIONS);
    let row = 8 + 4 + DIMENSIONS + 16;
    for id in 0..5000 {
        arena.insert(id, &random_vector(id)).unwrap();
        // 17 bytes a place of the table of ids, of which up to 16/7 a row are there.
        let rows = arena.len() + (arena.len() / 4).clamp(STEP_MIN, SEGMENT_ROWS) + codes::ROWS;
        assert!(arena.bytes() <= rows * row + arena.len().max(8) * 40 + 1024, "{id}");
    }
    for id in 0..4900 {
        assert!(arena.remove(id));
    }
    assert!(arena.bytes() < 250 * row + 16 * 1024, "{}", arena.bytes());
    (4900..5000).for_each(|id| assert!(arena.remove(id)));
    assert!(arena.bytes() < 2048, "{}", arena.bytes());
}

#[test]
fn a_crowd_of_duplicates_does_not_hide_the_nearest() {
    let mut arena = Arena::new(DIMENSIONS);
    let mut random = fastrand::Rng::with_seed(1);
    let centre = noise(&mut random, DIMENSIONS);
    let crowd = vector(&near(&mut random, &centre, 0.2));
    (0..2000).for_each(|id| arena.insert(id, &crowd).unwrap());
    let query = vector(&centre);
    let nearest = vector(&near(&mut random, &centre, 0.05));
    arena.insert(2000, &nearest).unwrap();
    let found = arena.nearest(&query, 2);
    assert_eq!(found, [(2000, query.similarity(&nearest)), (0, query.similarity(&crowd))]);
    assert_eq!(arena.nearest(&query, 3000).len(), 2001, "as many as asked for");
}

#[test]
fn the_nearest_of_many_is_missed_less_than_once_in_a_thousand_times() {
    const CLUSTERS: usize = 75;
    let mut random = fastrand::Rng::with_seed(1);
    let centres: Vec<_> = (0..CLUSTERS).map(|_| noise(&mut random, 384)).collect();
    let rows: Vec<_> =
        (0..1500).map(|row| vector(&near(&mut random, &centres[row % CLUSTERS], 0.8))).collect();
    let mut arena = Arena::new(384);
    (0..).zip(&rows).for_each(|(id, row)| arena.insert(id, row).unwrap());
    let missed = (0..1000).filter(|query| {
        // Some are near to a row, others to a cluster only: the nearest is of it.
        let numbers = match query % 3 {
            0 => near(&mut random, &centres[query % CLUSTERS], 0.8),
            _ => near(&mut random, &rows[*query].values(), 0.05),
        };
        let query_vector = vector(&numbers);
        let cluster = rows.iter().skip(query % CLUSTERS).step_by(CLUSTERS);
        let best = cluster.map(|row| query_vector.similarity(row)).fold(-1.0, f32::max);
        arena.nearest(&query_vector, 1)[0].1 < best
    });
    assert_eq!(missed.count(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u64, u64),
    Remove(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let insert = (0..60_u64, any::<u64>()).prop_map(|(id, seed)| Step::Insert(id, seed));
    let remove = (0..60_u64).prop_map(Step::Remove);
    prop::collection::vec(prop_oneof![3 => insert, 2 => remove], 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn rows_put_and_removed_in_any_order_are_those_of_a_map(steps in steps(), seed: u64) {
        let (mut arena, mut map) = (Arena::new(DIMENSIONS), BTreeMap::new());
        for step in steps {
            match step {
                Step::Insert(id, seed) => {
                    arena.insert(id, &random_vector(seed)).unwrap();
                    map.insert(id, random_vector(seed));
                }
                Step::Remove(id) => prop_assert_eq!(arena.remove(id), map.remove(&id).is_some()),
            }
            prop_assert_eq!(arena.len(), map.len());
        }
        let query = random_vector(seed);
        // All of them, by their values, and so none that was removed.
        prop_assert_eq!(arena.nearest(&query, 100), nearest(&map, &query, 100));
        prop_assert_eq!(arena.nearest(&query, 3), nearest(&map, &query, 3));
        for id in 0..60 {
            prop_assert_eq!(arena.get(id), map.get(&id).cloned());
        }
    }

    #[test]
    fn removed_rows_never_come_back_and_the_others_stay(
        rows in 256_u64..2000,
        removed in 1_usize..2000,
        seed: u64,
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let vectors: BTreeMap<u64, Vector> =
            (0..rows).map(|id| (id, vector(&noise(&mut random, 64)))).collect();
        let mut arena = Arena::new(64);
        for (id, vector) in &vectors {
            arena.insert(*id, vector).unwrap();
        }
        let mut ids: Vec<_> = vectors.keys().copied().collect();
        random.shuffle(&mut ids);
        let (gone, left) = ids.split_at(removed.min(ids.len()));
        gone.iter().for_each(|id| assert!(arena.remove(*id)));
        prop_assert_eq!(arena.len(), left.len());
        for id in gone.iter().take(20) {
            let found = arena.nearest(&vectors[id], 10);
            prop_assert!(found.iter().all(|(found, _)| !gone.contains(found)));
        }
        for id in left.iter().take(20) {
            // A row is nearest to itself, whatever was moved.
            prop_assert_eq!(arena.nearest(&vectors[id], 1)[0].0, *id);
        }
        // With everything wanted, the scan by signs leaves nothing out.
        if let Some(id) = left.first() {
            let map = left.iter().map(|id| (id, &vectors[id]));
            let count = left.len();
            prop_assert_eq!(arena.nearest(&vectors[id], count), nearest(map, &vectors[id], count));
        }
    }
}
