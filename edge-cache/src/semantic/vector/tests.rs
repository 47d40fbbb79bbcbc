use proptest::prelude::*;

use super::*;

fn cosine(left: &[f32], right: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
}

#[test]
fn what_has_no_direction_is_no_vector() {
    let check = |numbers: &[f32], error| assert_eq!(Vector::new(numbers, 3), Err(error));
    check(&[1.0; 2], NotAVector::Dimensions { expected: 3, got: 2 });
    check(&[], NotAVector::Dimensions { expected: 3, got: 0 });
    check(&[0.0, f32::NAN, 1.0], NotAVector::NotFinite);
    check(&[0.0, f32::INFINITY, 1.0], NotAVector::NotFinite);
    check(&[0.0, -0.0, 0.0], NotAVector::Zero);
    assert_eq!(Vector::new(&[], 0), Err(NotAVector::Zero));
    let many = vec![1.0; DIMENSIONS_MAX + 1];
    assert!(matches!(Vector::new(&many, many.len()), Err(NotAVector::Dimensions { .. })));
}

#[test]
fn the_length_does_not_matter() {
    let of = |numbers: [f32; 3]| Vector::new(&numbers, 3).unwrap();
    let vector = of([1.0, -4.0, 0.5]);
    assert_eq!(of([f32::MAX / 4.0, -f32::MAX, f32::MAX / 8.0]), vector);
    assert_eq!(of([2e-39, -8e-39, 1e-39]), vector);
    assert!((vector.similarity(&vector) - 1.0).abs() < 1e-6);
    assert!((vector.similarity(&of([-1.0, 4.0, -0.5])) + 1.0).abs() < 1e-6);
    assert!(vector.similarity(&of([4.0, 1.0, 0.0])).abs() < 0.01);
    let length: f32 = vector.values().iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-6);
}

#[test]
fn vectors_of_different_dimensions_have_nothing_in_common() {
    let of = |numbers: &[f32]| Vector::new(numbers, numbers.len()).unwrap();
    assert!(of(&[1.0, 1.0]).similarity(&of(&[1.0, 1.0, 1.0])).abs() < f32::EPSILON);
}

#[test]
fn signs_are_of_values_above_zero() {
    let numbers: Vec<_> = (0..70).map(|at| if at % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let vector = Vector::new(&numbers, 70).unwrap();
    assert_eq!(vector.signs(), [u64::MAX / 3, 0b01_0101]);
}

#[test]
fn what_was_stored_is_read_again_and_checked() {
    let vector = Vector::new(&[0.25, -1.0, 0.0], 3).unwrap();
    let stored = postcard::to_allocvec(&vector).unwrap();
    assert_eq!(stored.len(), 4);
    assert_eq!(postcard::from_bytes::<Vector>(&stored).unwrap(), vector);
    assert!(postcard::from_bytes::<Vector>(&[3, 0, 0, 0]).is_err(), "no direction");
    assert!(postcard::from_bytes::<Vector>(&[0]).is_err(), "nothing");
    assert!(postcard::from_bytes::<Vector>(&stored[..3]).is_err(), "cut short");
}

proptest! {
    #[test]
    fn a_cosine_is_near_that_of_the_numbers(
        pairs in prop::collection::vec((-1_f32..1.0, -1_f32..1.0), 384),
        share in 0_f32..1.0,
    ) {
        let left: Vec<_> = pairs.iter().map(|(left, _)| *left).collect();
        let right: Vec<_> =
            pairs.iter().map(|(left, other)| left * share + other * (1.0 - share)).collect();
        let of = |numbers: &[f32]| Vector::new(numbers, 384).unwrap();
        let similarity = f64::from(of(&left).similarity(&of(&right)));
        prop_assert!((similarity - cosine(&left, &right)).abs() < 0.002);
    }

    #[test]
    fn values_sent_elsewhere_come_back_as_the_same_vector(
        numbers in prop::collection::vec(-1_f32..1.0, 1..100),
    ) {
        if let Ok(vector) = Vector::new(&numbers, numbers.len()) {
            prop_assert_eq!(Vector::new(&vector.values(), numbers.len()), Ok(vector.clone()));
            let stored = postcard::to_allocvec(&vector).unwrap();
            prop_assert_eq!(postcard::from_bytes(&stored), Ok(vector));
        }
    }

    #[test]
    fn no_stored_bytes_make_it_panic(bytes: Vec<u8>) {
        if let Ok(vector) = postcard::from_bytes::<Vector>(&bytes) {
            prop_assert!((vector.similarity(&vector) - 1.0).abs() < 1e-6);
        }
    }
}
