//! How many answers a network gets by UDP: who floods a victim writes the victim's address into its
//! queries, and the answers are the flood. Pure: callers pass `now`.
//!
//! Each /24 or /56 has a bucket for answers and one for errors and denials, which cost a flooder
//! nothing to ask for. Over it, every second answer is sent cut instead (it *slips*): a client that is
//! really there asks again by TCP. Vixie and Schryver 2012, "DNS Response Rate Limiting".

use std::{
    hash::Hasher as _,
    net::IpAddr,
    time::{Duration, Instant},
};

use siphasher::sip::SipHasher13;

use crate::ClientPrefix;

/// What kind of answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Answer,
    /// An error, or that there is nothing.
    Nothing,
}

/// What may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    /// Cut to its question.
    Slip,
    Drop,
}

/// Answers a second for one network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    pub(super) answers: u32,
    pub(super) nothing: u32,
}

/// A bucket that is empty again at `full_at`'s moment: GCRA, in nanoseconds since the start.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Tells networks apart that share a place; 0 is nobody's.
    tag: u32,
    /// When all that was sent so far would be due at the rate.
    due: u64,
    /// Answers over the limit so far, for the slip.
    over: u32,
}

/// Buckets in a table of fixed size: a flood from everywhere must not cost memory.
pub(super) struct Limiter {
    rates: Rates,
    started: Instant,
    key: (u64, u64),
    buckets: Vec<Bucket>,
}

const BUCKETS: usize = 1 << 16;
/// As many answers as a second's may come at once.
const BURST: Duration = Duration::from_secs(1);

impl Limiter {
    /// `key` keeps others from choosing addresses that share a place.
    pub(super) fn new(rates: Rates, key: (u64, u64), now: Instant) -> Self {
        Self { rates, started: now, key, buckets: vec![Bucket::default(); BUCKETS] }
    }

    /// Whether an answer to `client` may be sent.
    pub(super) fn judge(&mut self, client: IpAddr, kind: Kind, now: Instant) -> Verdict {
        let rate = match kind {
            Kind::Answer => self.rates.answers,
            Kind::Nothing => self.rates.nothing,
        };
        let since = u64::try_from((now - self.started).as_nanos()).unwrap_or(u64::MAX);
        let burst = u64::try_from(BURST.as_nanos()).unwrap_or(u64::MAX);
        let each = burst / u64::from(rate.max(1));
        let (place, tag) = self.place(client, kind);
        let bucket = &mut self.buckets[place];
        if bucket.tag != tag && bucket.due <= since {
            // Nobody's any more: whoever had it owes nothing.
            *bucket = Bucket { tag, ..Bucket::default() };
        }
        // Where two share a place at the same time they share its rate.
        let due = bucket.due.max(since) + each;
        if due - since <= burst {
            bucket.due = due;
            return Verdict::Send;
        }
        bucket.over = bucket.over.wrapping_add(1);
        if bucket.over.is_multiple_of(2) { Verdict::Slip } else { Verdict::Drop }
    }

    fn place(&self, client: IpAddr, kind: Kind) -> (usize, u32) {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        match ClientPrefix::of(client).address {
            IpAddr::V4(v4) => hasher.write(&v4.octets()),
            IpAddr::V6(v6) => hasher.write(&v6.octets()),
        }
        hasher.write_u8(u8::from(kind == Kind::Nothing));
        let hash = hasher.finish();
        let low = usize::try_from(hash & 0xffff).unwrap_or(0);
        (low % BUCKETS, u32::try_from(hash >> 32).unwrap_or(1).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(now: Instant) -> Limiter {
        Limiter::new(Rates { answers: 10, nothing: 2 }, (1, 2), now)
    }

    fn client(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_network_gets_its_rate_and_then_every_second_one_cut() {
        let start = nearhop_admin::clock::now();
        let mut limiter = limiter(start);
        let mut ask =
            |at_ms: u64, kind| limiter.judge(client(7), kind, start + Duration::from_millis(at_ms));
        assert!((0..10).all(|_| ask(0, Kind::Answer) == Verdict::Send));
        let over: Vec<Verdict> = (0..4).map(|_| ask(0, Kind::Answer)).collect();
        assert_eq!(over, [Verdict::Drop, Verdict::Slip, Verdict::Drop, Verdict::Slip]);
        assert_eq!(ask(100, Kind::Answer), Verdict::Send, "a tenth of a second later there is one");
        assert_ne!(ask(100, Kind::Answer), Verdict::Send);
        assert!((0..2).all(|_| ask(100, Kind::Nothing) == Verdict::Send), "denials are apart");
        assert_ne!(ask(100, Kind::Nothing), Verdict::Send);
        assert!((0..10).all(|_| ask(5000, Kind::Answer) == Verdict::Send));
    }

    #[test]
    fn a_network_is_one_and_others_are_others() {
        let now = nearhop_admin::clock::now();
        let mut limiter = limiter(now);
        assert!(
            (0..10).all(|last| limiter.judge(client(last), Kind::Answer, now) == Verdict::Send)
        );
        assert_ne!(limiter.judge(client(200), Kind::Answer, now), Verdict::Send);
        let other = IpAddr::from([192, 0, 3, 1]);
        assert_eq!(limiter.judge(other, Kind::Answer, now), Verdict::Send);
    }

    #[test]
    fn a_flood_from_everywhere_costs_no_memory() {
        let now = nearhop_admin::clock::now();
        let mut limiter = limiter(now);
        for at in 0..300_000u32 {
            limiter.judge(IpAddr::V4((at << 8).into()), Kind::Answer, now);
        }
        assert_eq!(limiter.buckets.len(), BUCKETS);
    }
}
