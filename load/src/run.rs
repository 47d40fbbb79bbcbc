//! One scenario from its first request to its report.

use std::{
    net::SocketAddr,
    path::Path,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nearhop_admin::clock;
use nearhop_conf::{Arrivals, ChaosEvent, Criterion, RequestKind, Scenario, Target};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, spawn_local},
    time::{interval, sleep, timeout},
};

use crate::{
    alarm::after,
    canary::{self, Purges},
    capacity::{Costs, PathCosts},
    chaos,
    crowd::{Ask, Crowd},
    exchange::{Client, Heard},
    places::Places,
    progress::Progress,
    pulse::Pulse,
    record::{Outcome, Record},
    report::{Ended, Event, Made, Report},
    schedule::{Rate, Starts},
    tally::{Tally, share},
    trace::Trace,
    verdict::Measured,
    watch::Watch,
    worker::Work,
};

/// Records that wait to be counted, of all workers.
const RECORDS_MAX: usize = 1 << 16;
/// After the load: for the ladder to be left, which takes a minute of good times.
const COOLING: Duration = Duration::from_secs(150);
const SHOWN_EVERY: Duration = Duration::from_secs(2);
const PREFLIGHT: Duration = Duration::from_secs(15);

/// How a scenario is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The share of the users that is there.
    pub scale: f64,
    /// By how much durations are divided.
    pub shorten: f64,
    /// What choices by chance begin with.
    pub seed: u64,
    /// Threads that send.
    pub workers: usize,
    /// What the benchmarks say that paths cost.
    pub costs: Option<PathCosts>,
    /// Whether progress is shown on standard error.
    pub progress: bool,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The scenario cannot be run against this target.
    #[error("{0}")]
    Unfit(String),
    /// The target does not answer at all.
    #[error("{0}. Is it running, and is the target's url right?")]
    Unreachable(String),
    /// This machine gives no thread, timer or socket.
    #[error("the load cannot be sent: {0}")]
    System(#[from] std::io::Error),
}

/// A scenario made smaller and shorter.
fn scaled(scenario: &Scenario, options: &Options) -> Scenario {
    let shorter = |duration: Duration| duration.div_f64(options.shorten);
    let mut scaled = scenario.clone();
    scaled.duration = shorter(scenario.duration);
    for event in &mut scaled.chaos {
        event.at = shorter(event.at);
    }
    scaled
}

/// Says what of a scenario cannot be run against a target, without asking it anything.
///
/// # Errors
/// [`LoadError::Unfit`].
pub fn check(scenario: &Scenario, target: &Target) -> Result<(), LoadError> {
    chaos::check(&scenario.chaos, target).map_err(LoadError::Unfit)?;
    if let Arrivals::Trace(path) = &scenario.profile.arrivals {
        open(path)?;
    }
    Client::new(target, &Arc::new(Pulse::new(clock::now()))).map_err(LoadError::Unfit)?;
    Ok(())
}

/// Runs a scenario; `stop` ends it early, with a report of what there is.
///
/// # Errors
/// [`LoadError`], before anything is sent.
pub async fn run(
    scenario: &Scenario,
    target: &Arc<Target>,
    options: &Options,
    stop: &Arc<AtomicBool>,
) -> Result<Report, LoadError> {
    check(scenario, target)?;
    let planned = scaled(scenario, options);
    let trace = match &planned.profile.arrivals {
        Arrivals::Trace(path) => Some(open(path)?),
        Arrivals::Poisson | Arrivals::Even => None,
    };
    let found = Places::find(target).await.map_err(LoadError::Unreachable)?;
    let (places, ttls) = (Arc::new(found.0), found.1);
    let client =
        Client::new(target, &Arc::new(Pulse::new(clock::now()))).map_err(LoadError::Unfit)?;
    let client = Rc::new(client);
    preflight(&client, target, &places).await?;

    let mut watch = Watch::new(target);
    watch.look().await;
    let (done, seen) = oneshot::channel();
    let began_unix = clock::since_epoch();
    let began = clock::now();
    let (records, received) = mpsc::channel(RECORDS_MAX);
    let pulse = Arc::new(Pulse::new(clock::now()));
    let workers =
        send(&planned, options, (target, &places, trace), (began, stop, &pulse), &records)?;
    drop(records);
    let (told, mut events) = mpsc::unbounded_channel();
    let beside = Beside { began, target: Arc::clone(target), places: Arc::clone(&places), told };
    let tasks = beside.start(&planned, ttls);
    let (purged, purging) = beside.purges(&client, planned.duration);
    let rate = planned.profile.rate() * options.scale;
    let progress = Progress::new(&planned, rate, options.progress);
    let watching = spawn_local(watch.keep(after(began, planned.duration), seen));
    let (tally, silent) = count(received, &planned, (began, stop, &pulse), progress).await;
    purging.abort();
    for task in tasks {
        task.abort();
    }
    for worker in workers {
        let joined = tokio::task::spawn_blocking(move || worker.join()).await;
        match joined.map_err(std::io::Error::from)? {
            Ok(ended) => ended?,
            Err(_panic) => {
                let what = "a thread that sends has panicked; its words are above";
                return Err(LoadError::System(std::io::Error::other(what)));
            }
        }
    }
    let took = clock::now().saturating_duration_since(began);
    if target.control.is_some() && !planned.chaos.is_empty() {
        let undo = ChaosEvent {
            at: took,
            action: "undo".to_owned(),
            count: None,
            region: None,
            delay: None,
        };
        let done = chaos::perform(&undo, target).await;
        beside.tell("undo", done);
    }
    let after = match planned.criteria.contains(&Criterion::GracefulDegradation) && silent.is_none()
    {
        true => cool(&client, target, &places, stop).await,
        false => None,
    };
    drop(beside);
    let mut happened = Vec::new();
    while let Ok(event) = events.try_recv() {
        happened.push(event);
    }
    drop(done);
    let watch = watching.await.map_err(std::io::Error::from)?;
    let measured = measured(&tally, &watch, rate, *purged.borrow(), after);
    let costs = costs(&tally, &watch);
    let ended = match silent {
        Some(reason) => Ended::TargetGone(reason),
        None if stop.load(Ordering::Relaxed) => Ended::Interrupted,
        None => Ended::Finished,
    };
    let made = Made { scenario, planned: &planned, options, target, began_unix, took, ended };
    Ok(Report::make(&made, &tally, (&measured, &costs), happened))
}

fn open(path: &Path) -> Result<Arc<Trace>, LoadError> {
    Trace::open(path).map(Arc::new).map_err(|error| LoadError::Unfit(error.to_string()))
}

/// Asks each region once: what cannot work at all is told before an hour of load.
async fn preflight(client: &Client, target: &Target, places: &Places) -> Result<(), LoadError> {
    for (at, region) in target.regions.iter().enumerate() {
        let addresses = places.of(at);
        let mut heard = Heard::nothing();
        let probe = probe(target, at);
        let asked = client.exchange(&probe, &addresses, &mut heard);
        let named: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        let at = format!("regions[{}] at {}", region.name, named.join(", "));
        if timeout(PREFLIGHT, asked).await.is_err() {
            let waited = PREFLIGHT.as_secs();
            return Err(LoadError::Unreachable(format!("{at} gives no answer within {waited} s")));
        }
        match heard.outcome {
            Outcome::Unreachable => {
                return Err(LoadError::Unreachable(format!("{at} does not answer: {}", heard.why)));
            }
            Outcome::Refused => {
                let what = format!(
                    "{at} refuses the question ({}): check the target's model and keys",
                    heard.status
                );
                return Err(LoadError::Unfit(what));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A small question whose answer no cache has.
fn probe(target: &Target, region: usize) -> Ask {
    let prompt = format!("# probe {:016x}\nx = ", fastrand::u64(..));
    let body = serde_json::json!({"model": target.model, "prompt": prompt, "max_tokens": 1});
    Ask {
        at: Duration::ZERO,
        kind: RequestKind::Inline,
        body: body.to_string().into(),
        streamed: false,
        key: 0,
        region,
        typed: None,
    }
}

type Worker = thread::JoinHandle<std::io::Result<()>>;

/// Starts the workers, each with its part.
fn send(
    planned: &Scenario,
    options: &Options,
    (target, places, trace): (&Arc<Target>, &Arc<Places>, Option<Arc<Trace>>),
    (began, stop, pulse): (Instant, &Arc<AtomicBool>, &Arc<Pulse>),
    records: &mpsc::Sender<Record>,
) -> Result<Vec<Worker>, LoadError> {
    let parts = options.workers.max(1);
    let nonce = fastrand::u64(..);
    let mut workers = Vec::new();
    for part in 0..parts {
        let seed = options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(part as u64);
        let crowd = Crowd::new(&planned.profile, target, seed, nonce);
        let rate = Rate {
            height: crowd.starts(planned.profile.rate() * options.scale),
            spike_factor: planned.profile.spike_factor,
            duration: planned.duration,
        };
        let arrivals = &planned.profile.arrivals;
        let work = Work {
            starts: Starts::new(rate, arrivals, trace.clone(), (part, parts), seed ^ 0x5eed),
            crowd,
            target: Arc::clone(target),
            places: Arc::clone(places),
            began,
            duration: planned.duration,
            patience: planned.profile.timeout,
            pulse: Arc::clone(pulse),
            stop: Arc::clone(stop),
            records: records.clone(),
        };
        let thread = thread::Builder::new().name(format!("load-{part}"));
        workers.push(thread.spawn(move || work.run())?);
    }
    Ok(workers)
}

/// What goes on beside the load.
#[derive(Clone)]
struct Beside {
    began: Instant,
    target: Arc<Target>,
    places: Arc<Places>,
    told: mpsc::UnboundedSender<Event>,
}

impl Beside {
    fn tell(&self, what: &str, said: Result<String, String>) {
        let at_s = clock::now().saturating_duration_since(self.began).as_secs_f64();
        let failed = said.is_err();
        let said = said.unwrap_or_else(|error| format!("FAILED: {error}"));
        let _ = self.told.send(Event { at_s, what: what.to_owned(), said, failed });
    }

    /// Keeps the ways to regions, and lets fail what is to fail.
    fn start(&self, planned: &Scenario, ttls: Vec<Duration>) -> Vec<JoinHandle<()>> {
        let mut tasks = Vec::new();
        for (region, ttl) in ttls.into_iter().enumerate() {
            let beside = self.clone();
            tasks.push(spawn_local(async move {
                let tell = |said| beside.tell("way", Ok(said));
                beside.places.keep(&beside.target, region, ttl, tell).await;
            }));
        }
        let (beside, events) = (self.clone(), planned.chaos.clone());
        tasks.push(spawn_local(async move {
            for event in events {
                sleep(after(beside.began, event.at).saturating_duration_since(clock::now())).await;
                let said = chaos::perform(&event, &beside.target).await;
                beside.tell(&event.action, said);
            }
        }));
        tasks
    }

    /// Looks after purges, twenty rounds a run, where the target lets it.
    fn purges(
        &self,
        client: &Rc<Client>,
        duration: Duration,
    ) -> (Rc<std::cell::RefCell<Purges>>, JoinHandle<()>) {
        let purges = Rc::new(std::cell::RefCell::new(Purges::default()));
        let (beside, client, counted) = (self.clone(), Rc::clone(client), Rc::clone(&purges));
        let task = spawn_local(async move {
            let able = |region: &usize| beside.target.regions[*region].admin.is_some();
            let regions: Vec<usize> = (0..beside.target.regions.len()).filter(able).collect();
            let target = &beside.target;
            if target.admin_token.is_none() || canary::whose(target).is_none() || regions.is_empty()
            {
                return;
            }
            let every = (duration / 20).clamp(Duration::from_secs(1), Duration::from_secs(60));
            for region in regions.into_iter().cycle() {
                sleep(every).await;
                let round = canary::round(&client, &beside.target, &beside.places, region).await;
                counted.borrow_mut().add(round);
            }
        });
        (purges, task)
    }
}

/// Counts what workers write down until the last has ended. Says why it ended before its time, where
/// the target fell silent.
async fn count(
    mut received: mpsc::Receiver<Record>,
    planned: &Scenario,
    (began, stop, pulse): (Instant, &Arc<AtomicBool>, &Pulse),
    mut progress: Progress,
) -> (Tally, Option<String>) {
    let mut tally = Tally::new();
    let mut looks = interval(SHOWN_EVERY);
    let mut lot = Vec::new();
    let end = after(began, planned.duration);
    let mut gone = None;
    loop {
        tokio::select! {
            _ = looks.tick() => {
                let now = clock::now();
                progress.show(now.saturating_duration_since(began), &tally);
                if let Some(silence) = pulse.silent(now).filter(|_| now < end && gone.is_none()) {
                    // The workers end, and write down what was in progress.
                    stop.store(true, Ordering::Relaxed);
                    gone = Some(format!("nothing was heard for {} s", silence.as_secs()));
                }
            }
            count = received.recv_many(&mut lot, 1024) => {
                if count == 0 {
                    progress.end();
                    return (tally, gone);
                }
                lot.drain(..).for_each(|record: Record| tally.add(&record));
            }
        }
    }
}

/// Asks a little until every region is back at the lowest level; the highest that is left.
async fn cool(client: &Client, target: &Target, places: &Places, stop: &AtomicBool) -> Option<u8> {
    let until = after(clock::now(), COOLING);
    let mut clear = 0;
    loop {
        let mut levels = Vec::new();
        for region in 0..target.regions.len() {
            let mut heard = Heard::nothing();
            let (probe, addresses) = (probe(target, region), places.of(region));
            let asked = client.exchange(&probe, &addresses, &mut heard);
            let _ = timeout(PREFLIGHT, asked).await;
            levels.push(heard.level.map(|(_, level)| level));
        }
        // A region that does not answer is not known to be well.
        let known: Option<Vec<u8>> = levels.into_iter().collect();
        let highest = known.and_then(|levels| levels.into_iter().max());
        clear = if highest == Some(0) { clear + 1 } else { 0 };
        if clear >= 3 || clock::now() >= until || stop.load(Ordering::Relaxed) {
            return highest;
        }
        sleep(Duration::from_millis(300)).await;
    }
}

fn measured(
    tally: &Tally,
    watch: &Watch,
    rate: f64,
    purges: Purges,
    level_after: Option<u8>,
) -> Measured {
    let tokens = if tally.answers_without_usage > 0 { None } else { watch.tokens() };
    Measured { due_rate: rate, cpu: watch.cpu(), gpu: watch.gpu(), tokens, purges, level_after }
}

fn costs(tally: &Tally, watch: &Watch) -> Costs {
    let sent = tally.all.outcomes.sum(|one| one != Outcome::NotSent && one != Outcome::Unreachable);
    let of = |holds: &dyn Fn(&str) -> bool| -> u64 {
        tally.sources.iter().filter(|((_, one), _)| holds(one)).map(|(_, (count, _))| *count).sum()
    };
    let generated = of(&|one| matches!(one, "origin" | "region" | "unnamed"));
    let each = |seconds: Option<f64>, count: f64| {
        seconds.filter(|_| count > 0.0).map(|seconds| seconds / count)
    };
    let generated = share(generated, of(&|_| true));
    let [edges, pods] = watch.used();
    #[expect(clippy::cast_precision_loss, reason = "requests are far fewer than 2^52")]
    let sent = sent as f64;
    Costs {
        edge_cpu_s: each(edges, sent),
        // What was given up was generated in part, and is in it.
        pod_cpu_s: each(pods, sent * generated.unwrap_or(0.0)),
        generated,
    }
}
