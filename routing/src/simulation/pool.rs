//! The upstreams, judged as the proxy judges them: what checks, attempts and latency say of each, and
//! when evidence that may be our own slowness counts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nearhop_wire::{ModelReport, PodReport};

use super::script::{Condition, End};
use crate::{
    Baseline, Breaker, BreakerSettings, Change, Class, Component, Counts, Evidence, Kinds, Offers,
    Pace, Pass, Reason, Seen, Slowness, Standing, Tried, UpstreamId, View, outlier,
};

/// Checks in a row that take an upstream out.
const CHECKS: u32 = 2;
/// Of the pods, those that soft evidence may take out at once.
const SHARE: f64 = 0.5;
/// While most of the others time out as well, a time-out says nothing.
const WIDESPREAD: Duration = Duration::from_secs(10);

/// What an upstream is.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub(super) class: Class,
    pub(super) name: Arc<str>,
    pub(super) order: u32,
    pub(super) report: Arc<PodReport>,
    /// How it is from when on; well before.
    pub(super) script: Vec<(Duration, Condition)>,
}

/// An upstream, and what is known of it.
pub(super) struct Member {
    pub(super) spec: Spec,
    pub(super) condition: Condition,
    pub(super) breaker: Breaker,
    /// The attempts under way there.
    pub(super) running: Vec<usize>,
    pub(super) paused: Option<Instant>,
    /// Names of models that a provider has.
    names: Arc<[String]>,
    is_known: bool,
    heard: Instant,
    slowness: Slowness,
    baseline: Baseline,
    ready_since: Option<Instant>,
    slow: Option<Instant>,
    failed_checks: u32,
}

pub(super) struct Pool {
    pub(super) members: Vec<Member>,
    /// The changes of breakers.
    pub(super) changes: Vec<(Instant, usize, Change)>,
    pace: Pace,
    blame: Blame,
}

impl Member {
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        let standing = self.breaker.standing(now);
        self.is_known && matches!(standing, Standing::Ready | Standing::Probing)
    }

    /// Whether it gets requests, though perhaps no more of them just now.
    pub(super) fn serves(&self, now: Instant) -> bool {
        self.is_known && !matches!(self.breaker.standing(now), Standing::Out(_))
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    fn show(&mut self, now: Instant) {
        let ready = self.is_ready(now);
        self.ready_since = ready.then(|| self.ready_since.unwrap_or(now));
    }

    pub(super) fn view(&self, at: usize, tried: Tried, now: Instant) -> View {
        let offers = match self.spec.class {
            Class::Provider => Offers::Names(Arc::clone(&self.names)),
            _ if self.is_known => Offers::Report(Arc::clone(&self.spec.report)),
            _ => Offers::Unknown,
        };
        View {
            id: id(at),
            name: Arc::clone(&self.spec.name),
            class: self.spec.class,
            standing: self.breaker.standing(now),
            offers,
            kinds: Kinds::ALL,
            in_flight: self.running.len(),
            queued: 0,
            slots: self.spec.report.slots,
            slowness: self.slowness.ratio(),
            ready_for: self.ready_since.map(|since| now - since),
            doubted: self.breaker.is_doubted(),
            order: self.spec.order,
            region_down: false,
            paused: self.paused.is_some_and(|until| until > now),
            matched: 0.0,
            tried,
        }
    }
}

pub(super) fn id(at: usize) -> UpstreamId {
    UpstreamId(at as u64)
}

impl Pool {
    pub(super) fn new(specs: Vec<Spec>, now: Instant) -> Self {
        let member = |spec: Spec| {
            let settings = match spec.class {
                Class::Provider => BreakerSettings::PROVIDER,
                Class::Pod | Class::Region | Class::Local => BreakerSettings::POD,
            };
            Member {
                names: ["*".to_owned()].into(),
                is_known: spec.class == Class::Provider,
                spec,
                condition: Condition::Well,
                breaker: Breaker::new(settings),
                running: Vec::new(),
                paused: None,
                heard: now,
                slowness: Slowness::default(),
                baseline: Baseline::new(),
                ready_since: None,
                slow: None,
                failed_checks: 0,
            }
        };
        Self {
            members: specs.into_iter().map(member).collect(),
            changes: Vec::new(),
            pace: Pace::new(),
            blame: Blame::new(),
        }
    }

    fn of(&self, class: Class) -> impl Iterator<Item = (usize, &Member)> {
        self.members.iter().enumerate().filter(move |(_, one)| one.spec.class == class)
    }

    /// Whether evidence that may be our own slowness may take this one out.
    fn soft(&self, at: usize, now: Instant) -> bool {
        if self.members[at].spec.class != Class::Pod {
            return true;
        }
        let ready = |(other, one): &(usize, &Member)| *other != at && one.is_ready(now);
        let total = self.of(Class::Pod).count();
        let others_ready = self.of(Class::Pod).filter(ready).count();
        others_ready > 0 && (total - others_ready) as f64 <= (SHARE * total as f64).max(1.0)
    }

    /// Whether at least half of the other pods timed out just now as well.
    fn is_widespread(&self, at: usize, now: Instant) -> bool {
        let recent = |one: &Member| one.slow.is_some_and(|when| now - when < WIDESPREAD);
        let others = self.of(Class::Pod).filter(|(other, _)| *other != at);
        let (mut count, mut slow) = (0, 0);
        for (_, one) in others {
            count += 1;
            slow += usize::from(recent(one));
        }
        self.members[at].spec.class == Class::Pod && slow > 0 && 2 * slow >= count
    }

    /// An attempt for `tenant` ended.
    pub(super) fn ended(
        &mut self,
        at: usize,
        pass: Pass,
        (end, tenant): (End, usize),
        now: Instant,
    ) -> Option<Change> {
        let evidence = self.blame.weigh(tenant, end.evidence(), now);
        let widespread = evidence == Evidence::Slow && self.is_widespread(at, now);
        let soft = self.soft(at, now);
        let member = &mut self.members[at];
        if evidence == Evidence::Slow {
            // Whether it counts or not: else those that came first would forget each other.
            member.slow = Some(now);
        }
        let evidence = if widespread { Evidence::Neutral } else { evidence };
        let change = member.breaker.finish(pass, evidence, soft, now);
        self.changed(at, change, now)
    }

    pub(super) fn first_content(
        &mut self,
        at: usize,
        (bytes, took): (usize, Duration),
        now: Instant,
    ) {
        let member = &mut self.members[at];
        match member.spec.class {
            Class::Pod => member.slowness.add(self.pace.add(bytes, took)),
            Class::Provider => member.baseline.add(bytes, took, now),
            Class::Region | Class::Local => {}
        }
    }

    pub(super) fn hedge_after(&self, bytes: usize) -> Option<Duration> {
        self.pace.hedge_after(bytes)
    }

    /// Takes out who is slower than its peers, or than it used to be.
    pub(super) fn judge_latency(&mut self, now: Instant) -> Vec<usize> {
        let pods: Vec<usize> = self.of(Class::Pod).map(|(at, _)| at).collect();
        let pace = |at: &usize| {
            let slowness = self.members[*at].slowness;
            (slowness.ratio(), slowness.samples())
        };
        let paces: Vec<_> = pods.iter().map(pace).collect();
        let outliers = pods.iter().enumerate().filter(|(place, _)| outlier(&paces, *place));
        let high = self.of(Class::Provider).filter(|(_, one)| one.baseline.is_high(now));
        let late: Vec<usize> = outliers.map(|(_, at)| *at).chain(high.map(|(at, _)| at)).collect();
        let mut taken = Vec::new();
        for at in late {
            let soft = self.soft(at, now);
            let member = &mut self.members[at];
            let change = member.breaker.too_slow(soft, now);
            if change.is_some() {
                member.baseline.forget_recent();
                member.slowness.forget();
                taken.push(at);
            }
            self.changed(at, change, now);
        }
        self.members.iter_mut().for_each(|one| one.show(now));
        taken
    }

    pub(super) fn check_passed(&mut self, at: usize, began: Instant, now: Instant) {
        let member = &mut self.members[at];
        member.heard = now;
        member.failed_checks = 0;
        member.is_known = true;
        let up = member.breaker.checks(true, true, now);
        let passed = member.breaker.check_passed(began, now);
        self.changed(at, up, now);
        self.changed(at, passed, now);
    }

    /// A check failed; whether that took it out. `flows` is whether answers come from it.
    pub(super) fn check_failed(
        &mut self,
        at: usize,
        flows: bool,
        began: Instant,
        now: Instant,
    ) -> bool {
        let soft = self.soft(at, now);
        let member = &mut self.members[at];
        let flows = flows || member.condition.babbles();
        let silent = !member.running.is_empty() && !flows && member.heard < began;
        member.failed_checks += 1;
        let silent = member.breaker.check_failed(silent, soft, now);
        let down = member.failed_checks >= CHECKS;
        let down = down.then(|| member.breaker.checks(false, soft, now)).flatten();
        let taken = silent.is_some() || down.is_some();
        self.changed(at, silent, now);
        self.changed(at, down, now);
        taken
    }

    pub(super) fn changed(
        &mut self,
        at: usize,
        change: Option<Change>,
        now: Instant,
    ) -> Option<Change> {
        self.changes.extend(change.map(|change| (now, at, change)));
        self.members[at].show(now);
        change
    }

    /// What the ladder is told.
    pub(super) fn seen(&self, now: Instant) -> Seen {
        let of = |class| {
            let paused = |one: &Member| one.paused.is_some_and(|until| until > now);
            let is_usable = |one: &Member| one.is_known && one.breaker.is_believed(now);
            let mut usable = self.of(class).filter(|(_, one)| is_usable(one)).peekable();
            match (self.of(class).next().is_some(), usable.peek().is_some()) {
                (false, _) => Component::Absent,
                (true, false) => Component::Out,
                (true, true) if usable.all(|(_, one)| paused(one)) => Component::Strained,
                (true, true) => Component::Well,
            }
        };
        Seen {
            pods: of(Class::Pod),
            regions: of(Class::Region),
            providers: of(Class::Provider),
            local: self.of(Class::Local).any(|(_, one)| one.is_ready(now)),
        }
    }

    /// Pods that get requests.
    pub(super) fn pods_serving(&self, now: Instant) -> usize {
        self.of(Class::Pod).filter(|(_, one)| one.serves(now)).count()
    }
}

/// Whether this takes an upstream out only where others are left.
pub(super) const fn is_soft(reason: Reason) -> bool {
    !matches!(reason, Reason::Dead | Reason::Misconfigured | Reason::Forced)
}

/// What fails for one tenant alone is held against that tenant: simpler than the proxy's, without
/// upstreams and time-outs.
struct Blame {
    tenants: Vec<Counts>,
    all: Counts,
}

impl Blame {
    const WINDOW: Duration = Duration::from_secs(60);
    const TENANTS: usize = 16;

    fn new() -> Self {
        let counts = Counts::new(Self::WINDOW);
        Self { tenants: vec![counts.clone(); Self::TENANTS], all: counts }
    }

    fn weigh(&mut self, tenant: usize, evidence: Evidence, now: Instant) -> Evidence {
        let bad = match evidence {
            Evidence::Good => false,
            Evidence::Dead | Evidence::Failure => true,
            Evidence::Neutral | Evidence::Slow | Evidence::Misconfigured => return evidence,
        };
        let own = &mut self.tenants[tenant];
        let ((all_good, all_bad), (own_good, own_bad)) = (self.all.totals(now), own.totals(now));
        self.all.add(bad, now);
        own.add(bad, now);
        let others = (all_good.saturating_sub(own_good), all_bad.saturating_sub(own_bad));
        match bad && own_bad >= 4 && others.0 >= 4 && others.1 == 0 {
            true => Evidence::Neutral,
            false => evidence,
        }
    }
}

/// A model of that name at that revision.
pub(super) fn model(name: &str, revision: &str) -> ModelReport {
    ModelReport {
        name: name.into(),
        revision: revision.into(),
        template: "t".into(),
        temperature: 0.0,
        max_tokens: 64,
        context_length: 1024,
        aliases: Vec::new(),
        suffix_first: false,
    }
}
