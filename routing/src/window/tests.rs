use proptest::{collection::vec, prelude::*};

use super::*;
use crate::start;

const WINDOW: Duration = Duration::from_secs(30);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn edges_are_a_tenth_apart() {
    for pair in EDGES.windows(2) {
        assert!(pair[0] < pair[1] && pair[1] * 10 <= pair[0] * 11, "{pair:?}");
    }
}

#[test]
fn what_is_out_of_range_counts_at_its_end() {
    let check = |took, expected: Duration| {
        let (mut quantiles, now) = (Quantiles::new(WINDOW), start());
        quantiles.add(took, now);
        let found = quantiles.quantile(0.5, now).unwrap();
        let error = found.abs_diff(expected);
        assert!(error <= expected / 10 + ms(1), "{took:?} as {found:?}");
    };
    check(Duration::ZERO, ms(1));
    check(ms(1), ms(1));
    check(Duration::from_secs(300), Duration::from_secs(300));
    check(Duration::MAX, Duration::from_secs(310));
}

#[test]
fn nothing_has_no_quantile_and_the_share_is_clamped() {
    let (mut quantiles, now) = (Quantiles::new(WINDOW), start());
    assert_eq!(quantiles.quantile(0.5, now), None);
    quantiles.add(ms(100), now);
    quantiles.add(ms(900), now);
    let at = |share| quantiles.quantile(share, now).unwrap() > ms(500);
    assert_eq!(
        [-1.0, f64::NAN, 0.0, 0.5, 0.51, 1.0, 7.0].map(at),
        [false, false, false, false, true, true, true]
    );
}

#[test]
fn it_is_forgotten_between_nine_tenths_of_the_window_and_all_of_it() {
    let (mut counts, now) = (Counts::new(WINDOW), start());
    counts.add(true, now);
    assert_eq!(counts.totals(now + WINDOW * 9 / 10), (0, 1));
    assert_eq!(counts.totals(now + WINDOW), (0, 0));
    counts.add(false, now + WINDOW * 100);
    assert_eq!(counts.totals(now + WINDOW * 100), (1, 0), "a slot used before begins anew");
}

#[test]
fn a_clock_read_before_the_last_one_counts_as_the_last() {
    let (mut counts, now) = (Counts::new(WINDOW), start());
    counts.add(true, now + WINDOW);
    counts.add(true, now);
    assert_eq!(counts.totals(now), (0, 2));
    assert_eq!(counts.totals(now + WINDOW * 2), (0, 0));
}

/// Steps of up to a window, and what was added after each.
fn seen() -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
    let step = prop_oneof![9 => 0..500u64, 1 => 0..40_000u64];
    let took = prop_oneof![0..400_000u64, 0..1_000u64];
    vec((step, took, any::<bool>()), 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn it_says_what_a_list_would(seen in seen(), share in 0.0f64..=1.0) {
        let mut now = start();
        let (mut quantiles, mut counts) = (Quantiles::new(WINDOW), Counts::new(WINDOW));
        let mut list: Vec<(Instant, u64, bool)> = Vec::new();
        for (step, took, bad) in seen {
            now += ms(step);
            quantiles.add(ms(took), now);
            counts.add(bad, now);
            list.push((now, took, bad));

            // What must count, and what may.
            let within = |window: Duration| {
                list.iter().filter(move |(at, ..)| now - *at < window).collect::<Vec<_>>()
            };
            let (must, may) = (within(WINDOW * 9 / 10), within(WINDOW));
            let (good, bad) = counts.totals(now);
            prop_assert_eq!(good + bad, quantiles.count(now));
            let count = usize::try_from(good + bad).unwrap();
            prop_assert!((must.len()..=may.len()).contains(&count));
            // Whole slots are forgotten, oldest first: what counts is the list's end.
            let counted = &list[list.len() - count..];
            let bads = counted.iter().filter(|(.., bad)| *bad).count() as u64;
            prop_assert_eq!((good, bad), (count as u64 - bads, bads));

            let mut sorted: Vec<u64> = counted.iter().map(|(_, took, _)| *took).collect();
            sorted.sort_unstable();
            let nth = (1..=count).find(|nth| *nth as f64 >= share * count as f64).unwrap();
            let exact = ms(sorted[nth - 1]).clamp(ms(1), Duration::from_secs(300));
            let found = quantiles.quantile(share, now).unwrap();
            let error = found.abs_diff(exact);
            prop_assert!(error <= exact / 10 + ms(1), "{:?} for {:?}", found, exact);
        }
    }
}
