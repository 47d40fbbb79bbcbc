//! Whether the edge's own pod may go on, and how soon it is started again. Pure.

use std::{fmt, time::Duration};

/// What one look at it found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) ended: bool,
    /// Looks in a row at which it did not answer, or said that an engine stands still.
    pub(super) silent: u32,
    /// Resident, bytes.
    pub(super) memory: u64,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    GoesOn,
    End(End),
}

/// Why it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// It did not come up.
    Start(String),
    /// The process ended by itself.
    Exit,
    /// It does not answer.
    Silent,
    /// It holds more memory than it may.
    Memory { held: u64, limit: usize },
}

impl End {
    /// For metrics.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Start(_) => "start",
            Self::Exit => "exit",
            Self::Silent => "silent",
            Self::Memory { .. } => "memory",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(why) => f.write_str(why),
            Self::Exit => f.write_str("its process ended"),
            Self::Silent => write!(f, "it did not say that it lives for {SILENT_MAX} s"),
            Self::Memory { held, limit } => {
                write!(
                    f,
                    "it holds {} MiB, over edge.local.memory of {} MiB",
                    held >> 20,
                    limit >> 20
                )
            }
        }
    }
}

/// Looks without an answer, a second apart, after which it counts as hanging. On a busy machine
/// one or two mean nothing.
const SILENT_MAX: u32 = 5;

/// Judges what was seen against the limit of memory, bytes.
pub(super) fn judge(seen: Seen, memory: usize) -> Verdict {
    match seen {
        Seen { ended: true, .. } => Verdict::End(End::Exit),
        Seen { memory: held, .. } if held > memory as u64 => {
            Verdict::End(End::Memory { held, limit: memory })
        }
        Seen { silent: SILENT_MAX.., .. } => Verdict::End(End::Silent),
        _ => Verdict::GoesOn,
    }
}

/// One that stayed this long was sound.
const SOUND: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Failures in a row, after one that stayed for `stayed`.
pub(super) fn failures(before: u32, stayed: Duration) -> u32 {
    if stayed >= SOUND { 1 } else { before.saturating_add(1) }
}

/// The pause before the next start, after so many failures in a row: doubled each time.
pub(super) fn pause(failures: u32) -> Duration {
    let doubled = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    PAUSE_MIN.saturating_mul(doubled).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Seen = Seen { ended: false, silent: 0, memory: 100 };

    #[test]
    fn it_goes_on_until_it_ends_hangs_or_grows() {
        assert_eq!(judge(FINE, 100), Verdict::GoesOn);
        assert_eq!(judge(Seen { silent: 4, ..FINE }, 100), Verdict::GoesOn);
        assert_eq!(judge(Seen { silent: 5, ..FINE }, 100), Verdict::End(End::Silent));
        assert_eq!(judge(Seen { ended: true, silent: 9, ..FINE }, 100), Verdict::End(End::Exit));
        let over = Verdict::End(End::Memory { held: 101, limit: 100 });
        assert_eq!(judge(Seen { memory: 101, ..FINE }, 100), over);
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_one_that_stayed() {
        let seconds: Vec<f64> = (1..10).map(|failures| pause(failures).as_secs_f64()).collect();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        assert_eq!((pause(0), pause(u32::MAX)), (PAUSE_MIN, PAUSE_MAX));
        assert_eq!(failures(3, Duration::from_secs(59)), 4);
        assert_eq!(failures(3, Duration::from_secs(60)), 1);
    }
}
