//! One thread that sends its part of all requests when they are due, and writes down what became of
//! each. Workers share nothing but the clock and the ways to regions.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nearhop_admin::clock;
use nearhop_conf::Target;
use tokio::{
    sync::{mpsc, watch},
    task::{LocalSet, spawn_local, yield_now},
    time::timeout_at,
};

use crate::{
    alarm::{Alarm, after},
    crowd::{Ask, Crowd},
    exchange::{Client, Heard},
    places::Places,
    pulse::Pulse,
    record::{Outcome, Record},
    schedule::Starts,
};

/// In progress at once, of one worker: sockets and memory have an end.
pub(crate) const IN_PROGRESS_MAX: usize = 8192;
/// A run that is ended early waits no longer for answers, and one that is late sends no longer.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// Requests that are due at the same moment are sent in such lots; between them answers are read.
const LOT: usize = 16;

/// What one worker is to do.
pub(crate) struct Work {
    pub(crate) starts: Starts,
    pub(crate) crowd: Crowd,
    pub(crate) target: Arc<Target>,
    pub(crate) places: Arc<Places>,
    pub(crate) began: Instant,
    pub(crate) duration: Duration,
    pub(crate) patience: Duration,
    pub(crate) pulse: Arc<Pulse>,
    /// Set where nothing more is to be sent.
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) records: mpsc::Sender<Record>,
}

/// A request that is due later, the soonest first.
struct Due(Ask);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.0.at == other.0.at
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.at.cmp(&other.0.at)
    }
}

impl Work {
    /// Sends all, and returns when the last answer is there or was waited for long enough.
    ///
    /// # Errors
    /// A thread, a timer or a certificate that cannot be had.
    pub(crate) fn run(self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, self.send())
    }

    async fn send(mut self) -> io::Result<()> {
        let alarm = Alarm::new()?;
        let sender = Rc::new(Sending {
            client: Client::new(&self.target, &self.pulse).map_err(io::Error::other)?,
            ending: watch::channel(false).0,
            in_progress: Cell::new(0),
            lines: RefCell::default(),
            places: self.places,
            began: self.began,
            patience: self.patience,
            records: self.records,
        });
        let mut later = BinaryHeap::new();
        let mut next = self.starts.next();
        let mut lot = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let typed = later.peek().map(|Reverse(Due(ask))| ask.at);
            let due = match (next.map(|start| start.at), typed) {
                (Some(start), Some(typed)) => start.min(typed),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => break,
            };
            if due >= self.duration {
                break;
            }
            let moment = after(self.began, due);
            if clock::now() < moment {
                alarm.wait_until(moment).await?;
                lot = 0;
            } else {
                lot += 1;
                if lot % LOT == 0 {
                    yield_now().await;
                }
            }
            match next.filter(|start| start.at <= due) {
                Some(start) => {
                    later.extend(self.crowd.ask(start).into_iter().map(|ask| Reverse(Due(ask))));
                    next = self.starts.next();
                }
                None => {
                    let Some(Reverse(Due(ask))) = later.pop() else { continue };
                    // Who is that far behind its own schedule does not make up for it.
                    let late = clock::now() > after(self.began, self.duration + LAST_ANSWERS);
                    if late || sender.in_progress.get() >= IN_PROGRESS_MAX {
                        let record = sender.record(&ask, Heard::not_sent(), clock::now());
                        // Nobody listens where the run was ended.
                        let _ = sender.records.send(record).await;
                    } else {
                        sender.start(ask);
                    }
                }
            }
        }
        // What is to fail near the end finds somebody who asks.
        let end = after(self.began, self.duration);
        while clock::now() < end && !self.stop.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut stopped: Option<Instant> = None;
        while sender.in_progress.get() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            if self.stop.load(Ordering::Relaxed) {
                let now = clock::now();
                if now.saturating_duration_since(*stopped.get_or_insert(now)) > LAST_ANSWERS {
                    sender.ending.send_replace(true);
                }
            }
        }
        Ok(())
    }
}

/// What requests in progress share.
struct Sending {
    client: Client,
    /// Set when nothing more is waited for.
    ending: watch::Sender<bool>,
    in_progress: Cell<usize>,
    /// Lines that are being typed, with the number of their newest question.
    lines: RefCell<HashMap<u64, watch::Sender<u32>>>,
    places: Arc<Places>,
    began: Instant,
    patience: Duration,
    records: mpsc::Sender<Record>,
}

/// A place of those that are in progress; free again however its request ends.
struct InProgress(Rc<Sending>);

impl InProgress {
    fn take(sending: &Rc<Sending>) -> Self {
        sending.in_progress.set(sending.in_progress.get() + 1);
        Self(Rc::clone(sending))
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.in_progress.set(self.0.in_progress.get() - 1);
    }
}

impl Sending {
    fn start(self: &Rc<Self>, ask: Ask) {
        let sent = clock::now();
        let newer = ask.typed.map(|(line, number)| self.newest(line, number));
        let place = InProgress::take(self);
        self.client.pulse.asked(sent);
        let sending = Rc::clone(self);
        drop(spawn_local(async move {
            let heard = sending.wait(&ask, sent, newer).await;
            sending.client.pulse.ended(heard.status > 0);
            let record = sending.record(&ask, heard, sent);
            // Nobody listens where the run was ended.
            let _ = sending.records.send(record).await;
            drop(place);
        }));
    }

    /// Notes a line's newest question, which ends the one before; whoever asks it waits for the next.
    fn newest(&self, line: u64, number: u32) -> watch::Receiver<u32> {
        let mut lines = self.lines.borrow_mut();
        // Lines that nobody types on are forgotten.
        if lines.len() > IN_PROGRESS_MAX {
            lines.retain(|_, newest| newest.receiver_count() > 0);
        }
        let newest = lines.entry(line).or_insert_with(|| watch::channel(number).0);
        newest.send_replace(number);
        newest.subscribe()
    }

    async fn wait(&self, ask: &Ask, sent: Instant, newer: Option<watch::Receiver<u32>>) -> Heard {
        let mut heard = Heard::nothing();
        let addresses = self.places.of(ask.region);
        let given_up = async {
            if let Some((mut newest, (_, own))) = newer.zip(ask.typed)
                && newest.wait_for(|number| *number > own).await.is_ok()
            {
                return;
            }
            // Nobody types on.
            std::future::pending::<()>().await;
        };
        let mut ending = self.ending.subscribe();
        let until = after(sent, self.patience).into();
        let ended = tokio::select! {
            ended = timeout_at(until, self.client.exchange(ask, &addresses, &mut heard)) => ended.ok(),
            () = given_up => {
                heard.outcome = Outcome::GivenUp;
                return heard;
            }
            _ = ending.wait_for(|ending| *ending) => {
                heard.outcome = Outcome::Unfinished;
                return heard;
            }
        };
        if ended.is_none() {
            let began = heard.first.is_some();
            heard.outcome = if began { Outcome::BrokenOff } else { Outcome::TimedOut };
        }
        heard
    }

    fn record(&self, ask: &Ask, heard: Heard, sent: Instant) -> Record {
        let now = clock::now();
        let since =
            |moment: Instant| moment.saturating_duration_since(self.began).saturating_sub(ask.at);
        let first = match heard.outcome {
            // At least so long.
            Outcome::GivenUp | Outcome::Superseded | Outcome::TimedOut => {
                Some(heard.first.unwrap_or(now))
            }
            Outcome::Answered | Outcome::Degraded => heard.first,
            _ => None,
        };
        Record {
            kind: ask.kind,
            region: ask.region,
            due: ask.at,
            lag: since(sent),
            first: first.map(since),
            total: since(now),
            gaps: heard.gaps,
            outcome: heard.outcome,
            source: heard.source,
            level: heard.level.map(|(at, level)| (at.saturating_duration_since(self.began), level)),
            retry_after: heard.retry_after,
            usage: heard.usage,
        }
    }
}
