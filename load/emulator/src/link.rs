//! One direction between two sites: whether a packet passes, and when it is due. Pure: time and chance
//! are arguments.

use std::time::{Duration, Instant};

/// Packets that one direction holds at most, 6 MB of full ones: what TCP has in flight on a far link.
pub(crate) const QUEUE_MAX: usize = 4096;

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Handed to the destination.
    pub forwarded: u64,
    /// Cut off, lost, or too many at once.
    pub dropped: u64,
}

/// How a direction behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Settings {
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    pub(crate) loss: f64,
    pub(crate) cut: bool,
}

/// Two random numbers, each from 0 to below 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw {
    pub(crate) loss: f64,
    pub(crate) jitter: f64,
}

/// What happens to a packet that a site sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Due(Instant, Cuts),
    Cut,
    Lost,
    Full,
}

/// One direction, with what is on its way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Direction {
    pub(crate) settings: Settings,
    pub(crate) counts: Counts,
    queued: usize,
    last_due: Option<Instant>,
    cuts: Cuts,
}

/// How often a direction was cut: a packet that saw another number was on its way at a cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cuts(u64);

impl Direction {
    /// May a packet sent `now` go, and when does it arrive? Never before one that was sent earlier: with
    /// jitter, TCP would take what is out of order for lost.
    pub(crate) fn judge(&self, now: Instant, draw: Draw) -> Verdict {
        let Settings { delay, jitter, loss, cut } = self.settings;
        if cut {
            Verdict::Cut
        } else if draw.loss < loss {
            Verdict::Lost
        } else if self.queued >= QUEUE_MAX {
            Verdict::Full
        } else {
            let due = now + delay + jitter.mul_f64(draw.jitter);
            Verdict::Due(self.last_due.map_or(due, |last| last.max(due)), self.cuts)
        }
    }

    /// Judges a packet and keeps the books.
    pub(crate) fn enter(&mut self, now: Instant, draw: Draw) -> Verdict {
        let verdict = self.judge(now, draw);
        match verdict {
            Verdict::Due(due, _) => {
                self.queued += 1;
                self.last_due = Some(due);
            }
            Verdict::Cut | Verdict::Lost | Verdict::Full => self.counts.dropped += 1,
        }
        verdict
    }

    /// What is on its way when a cable is cut is lost, whether or not the cut is healed before it is due.
    pub(crate) fn cut(&mut self) {
        self.settings.cut = true;
        self.cuts.0 += 1;
        self.counts.dropped += self.queued as u64;
        self.queued = 0;
        self.last_due = None;
    }

    pub(crate) fn heal(&mut self) {
        self.settings.cut = false;
    }

    /// A packet is due. `deliver` says whether it could be handed over; it is not asked for one that was
    /// lost at a cut.
    pub(crate) fn leave(&mut self, seen: Cuts, deliver: impl FnOnce() -> bool) {
        if seen != self.cuts {
            return;
        }
        self.queued -= 1;
        if deliver() {
            self.counts.forwarded += 1;
        } else {
            self.counts.dropped += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MS: Duration = Duration::from_millis(1);
    const LUCKY: Draw = Draw { loss: 0.999, jitter: 0.0 };
    const FIRST: Cuts = Cuts(0);

    fn direction(settings: Settings) -> Direction {
        Direction { settings, ..Direction::default() }
    }

    #[test]
    fn a_packet_is_due_after_delay_and_jitter_unless_it_is_cut_or_lost() {
        let now = clock::now();
        let plain = Settings::default();
        let draw = |loss, jitter| Draw { loss, jitter };
        for (settings, draw, expected) in [
            (plain, LUCKY, Verdict::Due(now, FIRST)),
            (Settings { delay: 70 * MS, ..plain }, LUCKY, Verdict::Due(now + 70 * MS, FIRST)),
            (
                Settings { delay: 70 * MS, jitter: 8 * MS, ..plain },
                draw(0.0, 0.5),
                Verdict::Due(now + 74 * MS, FIRST),
            ),
            (Settings { loss: 0.3, ..plain }, draw(0.29, 0.0), Verdict::Lost),
            (Settings { loss: 0.3, ..plain }, draw(0.3, 0.0), Verdict::Due(now, FIRST)),
            (Settings { loss: 1.0, ..plain }, LUCKY, Verdict::Lost),
            (Settings { loss: 0.0, ..plain }, draw(0.0, 0.0), Verdict::Due(now, FIRST)),
            (Settings { cut: true, ..plain }, LUCKY, Verdict::Cut),
            (Settings { cut: true, loss: 1.0, ..plain }, LUCKY, Verdict::Cut),
        ] {
            assert_eq!(direction(settings).judge(now, draw), expected, "{settings:?} {draw:?}");
        }
    }

    #[test]
    fn no_packet_overtakes_one_that_was_sent_before() {
        let now = clock::now();
        let mut direction =
            direction(Settings { delay: 10 * MS, jitter: 10 * MS, ..Settings::default() });
        let slow = direction.enter(now, Draw { loss: 0.5, jitter: 0.9 });
        assert_eq!(slow, Verdict::Due(now + 19 * MS, FIRST));
        assert_eq!(
            direction.enter(now + MS, LUCKY),
            slow,
            "drawn for 11 ms, it waits for the first"
        );
        direction.settings = Settings::default();
        assert_eq!(
            direction.enter(now + 2 * MS, LUCKY),
            slow,
            "a change of settings lets nobody overtake either"
        );
    }

    #[test]
    fn a_full_direction_drops_and_counts_until_one_leaves() {
        let now = clock::now();
        let mut direction = direction(Settings::default());
        for _ in 0..QUEUE_MAX {
            assert_eq!(direction.enter(now, LUCKY), Verdict::Due(now, FIRST));
        }
        assert_eq!(direction.enter(now, LUCKY), Verdict::Full);
        assert_eq!(direction.counts, Counts { forwarded: 0, dropped: 1 });
        direction.leave(FIRST, || true);
        assert_eq!(direction.enter(now, LUCKY), Verdict::Due(now, FIRST));
        assert_eq!(direction.counts, Counts { forwarded: 1, dropped: 1 });
    }

    #[test]
    fn what_is_on_its_way_when_the_cut_is_made_is_lost() {
        let now = clock::now();
        let mut direction = direction(Settings { delay: 60 * 1000 * MS, ..Settings::default() });
        direction.enter(now, LUCKY);
        direction.cut();
        assert_eq!(direction.counts, Counts { forwarded: 0, dropped: 1 });
        direction.heal();
        direction.leave(FIRST, || panic!("it was lost"));
        direction.settings.delay = Duration::ZERO;
        assert_eq!(
            direction.enter(now, LUCKY),
            Verdict::Due(now, Cuts(1)),
            "nobody waits behind what was lost"
        );
        direction.leave(Cuts(1), || true);
        assert_eq!(direction.counts, Counts { forwarded: 1, dropped: 1 });
    }

    #[test]
    fn a_packet_that_its_destination_refuses_is_counted_as_dropped() {
        let mut direction = direction(Settings::default());
        direction.enter(clock::now(), LUCKY);
        direction.leave(FIRST, || false);
        assert_eq!(direction.counts, Counts { forwarded: 0, dropped: 1 });
    }
}
