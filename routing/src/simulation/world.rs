//! Requests in virtual time: they arrive whatever upstreams do, and are driven as the proxy drives
//! them. Every step is held against what must always be so.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use nearhop_wire::{Kind, ModelReport};

use super::{
    pool::{Pool, Spec, id, is_soft, model},
    script::{Checked, Condition, End, Fate},
};
use crate::{
    Asking, Budget, BudgetSettings, Candidate, Change, Class, Ladder, LadderSettings, LeftOut,
    Level, Offers, Pass, Plan, Rung, Standing, Step, Tried, UpstreamId, View, Why, route, start,
};

/// Attempts a request.
const MOST: usize = 3;
/// While whoever would take a request is being tried again by others.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const FIRST_BYTE: Duration = Duration::from_secs(30);
const NEXT_TOKEN: Duration = Duration::from_secs(10);
const CHECK_EVERY: Duration = Duration::from_secs(1);
const CHECK_WAITS: Duration = Duration::from_millis(800);
const JUDGE: Duration = Duration::from_millis(500);
/// When requests begin to come: everybody was looked at by then.
pub(super) const BEGIN: Duration = Duration::from_secs(2);

/// Who asks.
#[derive(Debug, Clone, Default)]
pub(super) struct Tenant {
    /// The regions that may see it; `None` for all.
    pub(super) regions: Option<Vec<String>>,
    /// The providers that may see it.
    pub(super) providers: Vec<String>,
    /// Its requests break any pod's connection.
    pub(super) poisoned: bool,
}

/// What happens.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) seed: u64,
    pub(super) specs: Vec<Spec>,
    pub(super) tenants: Vec<Tenant>,
    /// Requests a second, from when on.
    pub(super) rate: Vec<(Duration, f64)>,
    /// No more requests come.
    pub(super) until: Duration,
    pub(super) hedges: bool,
    /// Only that kind comes.
    pub(super) kind: Option<Kind>,
    /// So many times slower than usual are all pods.
    pub(super) scale: f64,
}

/// What must always be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    ReadyFirst,
    Budget,
    Egress,
    Revision,
    Deadline,
    HalfOpen,
    LastPod,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives,
    Look(usize),
    /// An attempt's next step, of that number.
    Step(usize, u32),
    IsLate(usize),
    Turns(usize, usize),
    Checks(usize),
    /// Of an upstream, when the check began, and whether it passed.
    Checked(usize, Instant, bool),
    Judge,
}

pub(super) struct Request {
    pub(super) tenant: usize,
    kind: Kind,
    pinned: bool,
    bytes: usize,
    pub(super) arrived: Instant,
    deadline: Instant,
    seed: u64,
    tried: Vec<(UpstreamId, Tried)>,
    running: Vec<usize>,
    made: usize,
    pub(super) attempts: usize,
    resuming: bool,
    hedge: Option<Instant>,
    /// Whether it has content.
    begun: bool,
    /// Whether that is the backup model's.
    by_backup: bool,
    pub(super) ended: Option<(Instant, Ended)>,
}

/// How a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Served,
    /// The client must change it.
    ClientFault,
    Failed,
    Deadline,
}

struct Attempt {
    request: usize,
    at: usize,
    rung: Rung,
    pass: Option<Pass>,
    began: Instant,
    until: Instant,
    /// So long does its answer take.
    takes: Duration,
    next: Next,
    step: u32,
    streams: bool,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Content,
    Ends(End),
}

pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) origin: Instant,
    pub(super) now: Instant,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    sequence: u64,
    dice: fastrand::Rng,
    pub(super) pool: Pool,
    budget: Budget,
    pub(super) ladder: Ladder,
    pub(super) steps: Vec<(Instant, Step)>,
    pub(super) requests: Vec<Request>,
    attempts: Vec<Attempt>,
    primary: ModelReport,
    backup: ModelReport,
    begun: u64,
    extra: u64,
    /// Requests without an end.
    open: usize,
    /// Those that were taken out just now, and whose attempts are to be freed.
    ejected: Vec<usize>,
    pub(super) broken: Vec<(Rule, String)>,
    /// The most attempts at once on each upstream within a second of being tried again.
    pub(super) comeback: usize,
}

impl World {
    /// Runs it to its end.
    pub(super) fn run(setup: Setup) -> Self {
        let now = start();
        let mut world = Self {
            origin: now,
            now,
            events: BinaryHeap::new(),
            sequence: 0,
            dice: fastrand::Rng::with_seed(setup.seed),
            pool: Pool::new(setup.specs.clone(), now),
            budget: Budget::new(BudgetSettings::default(), now),
            ladder: Ladder::new(LadderSettings::default()),
            steps: Vec::new(),
            requests: Vec::new(),
            attempts: Vec::new(),
            primary: model("m", "1"),
            backup: model("b", "1"),
            begun: 0,
            extra: 0,
            open: 0,
            ejected: Vec::new(),
            broken: Vec::new(),
            comeback: 0,
            setup,
        };
        for at in 0..world.pool.members.len() {
            if world.pool.members[at].spec.class != Class::Provider {
                let offset = CHECK_EVERY.mul_f64(world.dice.f64());
                world.at(now + offset, Event::Checks(at));
            }
            for (place, (when, _)) in world.pool.members[at].spec.script.clone().iter().enumerate()
            {
                world.at(now + *when, Event::Turns(at, place));
            }
        }
        world.at(now + BEGIN, Event::Arrives);
        world.at(now + BEGIN, Event::Judge);
        while let Some(Reverse((now, _, event))) = world.events.pop() {
            world.now = now;
            world.happens(event);
            world.free();
        }
        if world.open > 0 {
            world.breaks(Rule::Deadline, format!("{} requests have no end", world.open));
        }
        world
    }

    pub(super) fn passed(&self) -> Duration {
        self.now - self.origin
    }

    fn at(&mut self, when: Instant, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((when, self.sequence, event)));
    }

    fn breaks(&mut self, rule: Rule, what: String) {
        let passed = self.passed();
        self.broken.push((rule, format!("seed {} at {passed:?}: {what}", self.setup.seed)));
    }

    /// Whether it goes on: requests come, or some have no end yet.
    fn goes_on(&self) -> bool {
        self.passed() < self.setup.until
            || self.open > 0
            || self.pool.members.iter().any(|member| !member.running.is_empty())
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives => self.arrives(),
            Event::Look(request) => self.look(request),
            Event::Step(attempt, step) => self.step(attempt, step),
            Event::IsLate(request) => self.is_late(request),
            Event::Turns(at, place) => self.turns(at, place),
            Event::Checks(at) => self.checks(at),
            Event::Checked(at, began, passed) => self.checked(at, began, passed),
            Event::Judge => self.judge(),
        }
    }

    fn arrives(&mut self) {
        let passed = self.passed();
        if passed >= self.setup.until {
            return;
        }
        let rate = self.setup.rate.iter().rev().find(|(from, _)| *from <= passed);
        let rate = rate.map_or(1.0, |(_, rate)| *rate);
        let wait = -(1.0 - self.dice.f64()).ln() / rate;
        self.at(self.now + Duration::from_secs_f64(wait.min(5.0)), Event::Arrives);
        let (kind, waits) = match self.dice.u8(..10) {
            0..4 => (Kind::Inline, 5),
            4..7 => (Kind::Fim, 10),
            7..9 => (Kind::Chat, 20),
            _ => (Kind::Agent, 20),
        };
        let (kind, waits) = self.setup.kind.map_or((kind, waits), |kind| (kind, 5));
        let request = self.requests.len();
        self.open += 1;
        self.requests.push(Request {
            tenant: self.dice.usize(..self.setup.tenants.len()),
            kind,
            pinned: self.dice.u8(..8) == 0,
            bytes: self.dice.usize(100..6000),
            arrived: self.now,
            deadline: self.now + Duration::from_secs(waits),
            seed: self.dice.u64(..),
            tried: Vec::new(),
            running: Vec::new(),
            made: 0,
            attempts: 0,
            resuming: false,
            hedge: None,
            begun: false,
            by_backup: false,
            ended: None,
        });
        self.look(request);
    }

    /// One turn of the loop that begins attempts.
    fn look(&mut self, request: usize) {
        let (now, asked) = (self.now, &self.requests[request]);
        if asked.ended.is_some() || !asked.running.is_empty() {
            return;
        }
        if now >= asked.deadline {
            return self.end(request, Ended::Deadline);
        }
        if asked.made >= MOST {
            return self.end(request, Ended::Failed);
        }
        let (views, plan) = self.routed(request);
        let Some(candidate) = plan.candidates.first().copied() else {
            return match plan.full {
                true => {
                    let again = (now + LOOK_AGAIN).min(self.requests[request].deadline);
                    self.at(again, Event::Look(request));
                }
                false => self.end(request, Ended::Failed),
            };
        };
        let tenant = self.requests[request].tenant.to_string();
        match self.requests[request].made {
            0 => {
                self.budget.request(&tenant, now);
                self.begun += 1;
            }
            _ if !self.budget.retry(&tenant, now) => return self.end(request, Ended::Failed),
            _ => self.extra(),
        }
        if !self.begin(request, candidate, (&views, &plan)) {
            self.breaks(Rule::ReadyFirst, format!("{candidate:?} takes none"));
        }
    }

    /// An attempt beyond the first of a request was paid for.
    fn extra(&mut self) {
        self.extra += 1;
        let promised = 0.2 * self.begun as f64 + 10.0 * self.passed().as_secs_f64() + 10.0;
        if self.extra as f64 > promised + 1e-6 {
            self.breaks(Rule::Budget, format!("{} of {promised}", self.extra));
        }
    }

    fn is_late(&mut self, request: usize) {
        let asked = &self.requests[request];
        let is_due = asked.hedge == Some(self.now) && asked.running.len() == 1 && !asked.begun;
        if !is_due || asked.ended.is_some() {
            return;
        }
        let (views, plan) = self.routed(request);
        let Some(candidate) = plan.candidates.first().copied() else { return };
        let another = candidate.rung == Rung::Pods && candidate.why != Why::Again;
        let tenant = asked.tenant.to_string();
        if another && self.budget.hedge(&tenant, self.now) {
            self.extra();
            self.begin(request, candidate, (&views, &plan));
        }
    }

    fn routed(&self, request: usize) -> (Vec<View>, Plan) {
        let asked = &self.requests[request];
        let tried = |at| {
            let seen = asked.tried.iter().find(|(tried, _)| *tried == id(at));
            seen.map_or(Tried::No, |(_, tried)| *tried)
        };
        let members = self.pool.members.iter().enumerate();
        let views: Vec<View> =
            members.map(|(at, member)| member.view(at, tried(at), self.now)).collect();
        let plan = route(&views, &self.asking(asked), asked.seed);
        (views, plan)
    }

    fn asking(&self, asked: &Request) -> Asking<'_> {
        let tenant = &self.setup.tenants[asked.tenant];
        Asking {
            // Only who began goes on as it began.
            model: match asked.resuming && asked.by_backup {
                true => &self.backup,
                false => &self.primary,
            },
            pinned: asked.pinned,
            backup: (!asked.pinned).then_some(&self.backup),
            kind: asked.kind,
            shape: asked.kind,
            tools: asked.kind == Kind::Agent,
            regions: tenant.regions.as_deref(),
            providers: &tenant.providers,
            resuming: asked.resuming,
            from_region: false,
            level: self.ladder.level(),
        }
    }

    /// Begins an attempt; false where nobody takes it.
    fn begin(
        &mut self,
        request: usize,
        candidate: Candidate,
        (views, plan): (&[View], &Plan),
    ) -> bool {
        let (now, at) = (self.now, candidate.at);
        self.judge_choice(request, candidate, (views, plan));
        let breaker = &mut self.pool.members[at].breaker;
        let insists = candidate.why == Why::LastResort;
        let begun = match breaker.begin(now) {
            Some(begun) => begun,
            None if insists => (breaker.insist(), None),
            None => return false,
        };
        let (pass, change) = begun;
        let view = breaker.view(now);
        if view.running > 10 {
            self.breaks(Rule::HalfOpen, format!("{} on {at}", view.running));
        }
        self.pool.changed(at, change, now);
        let others = plan.candidates.len() > 1 && self.requests[request].made + 1 < MOST;
        let asked = &mut self.requests[request];
        asked.made += 1;
        asked.attempts += 1;
        asked.tried.retain(|(tried, _)| *tried != id(at));
        asked.tried.push((id(at), Tried::Lost));
        let left = asked.deadline - now;
        let until = now + if others { left / 2 } else { left }.min(FIRST_BYTE);
        let (bytes, poisoned) = (asked.bytes, self.setup.tenants[asked.tenant].poisoned);
        let hedges = self.setup.hedges
            && asked.made == 1
            && candidate.rung == Rung::Pods
            && plan.candidates.len() > 1
            && !asked.resuming
            && self.ladder.level() < Level::L1;
        let hedge = hedges.then(|| self.pool.hedge_after(bytes)).flatten();
        asked.hedge = hedge.map(|after| now + after);
        let attempt = self.attempts.len();
        self.requests[request].running.push(attempt);
        if let Some(late) = self.requests[request].hedge {
            self.at(late, Event::IsLate(request));
        }
        let (class, condition) =
            (self.pool.members[at].spec.class, self.pool.members[at].condition);
        let first = self.first_content(at, bytes);
        let fate = match (poisoned, class, condition.fate(class, &mut self.dice)) {
            (true, Class::Pod, Fate::Answered(_)) => Fate::Ends(End::Reset),
            (_, _, fate) => fate,
        };
        let (when, next) = match fate {
            Fate::Answered(times) => (now + first.mul_f64(times), Next::Content),
            Fate::Silent => (until, Next::Ends(End::TimedOut)),
            Fate::Ends(end) => {
                let soon = Duration::from_millis(self.dice.u64(1..20));
                (now + soon, Next::Ends(end))
            }
        };
        let (when, next) = match when < until {
            true => (when, next),
            false => (until, Next::Ends(End::TimedOut)),
        };
        let takes = Duration::from_secs_f64(0.1 + 1.2 * self.dice.f64());
        let pass = Some(pass);
        self.attempts.push(Attempt {
            request,
            at,
            rung: candidate.rung,
            pass,
            began: now,
            until,
            takes,
            next,
            step: 0,
            streams: false,
        });
        self.pool.members[at].running.push(attempt);
        self.at(when, Event::Step(attempt, 0));
        self.watch_comeback(at);
        true
    }

    /// How long a first token takes there, were it well.
    fn first_content(&mut self, at: usize, bytes: usize) -> Duration {
        let member = &self.pool.members[at];
        let slots = member.spec.report.slots.max(1) as f64;
        let busy = 1.0 + member.running.len() as f64 / slots;
        let far = match member.spec.class {
            Class::Pod => 0.0,
            Class::Region => 0.08,
            Class::Provider => 0.15,
            Class::Local => 0.05,
        };
        let scale = if member.spec.class == Class::Pod { self.setup.scale } else { 1.0 };
        let (length, turn) = (1.0 - self.dice.f64(), self.dice.f64());
        let normal = (-2.0 * length.ln()).sqrt() * (std::f64::consts::TAU * turn).cos();
        let computes = (0.03 + 5e-6 * bytes as f64) * busy * scale;
        Duration::from_secs_f64(far + computes * (0.3 * normal).exp())
    }

    /// Holds a choice against what must always be so, apart from how it was made.
    fn judge_choice(
        &mut self,
        request: usize,
        candidate: Candidate,
        (views, plan): (&[View], &Plan),
    ) {
        let (chosen, asked) = (&views[candidate.at], &self.requests[request]);
        let asking = self.asking(asked);
        let better = |view: &View| {
            view.standing == Standing::Ready
                && view.tried == Tried::No
                && !view.paused
                && may(view, &asking)
                && answers(view, &asking)
        };
        let mut broken = Vec::new();
        if matches!(chosen.standing, Standing::Out(_)) && views.iter().any(better) {
            broken.push((Rule::ReadyFirst, format!("{candidate:?} though others are ready")));
        }
        if !may(chosen, &asking) {
            broken.push((Rule::Egress, format!("{} sees {:?}", chosen.name, asked.tenant)));
        }
        let writes = if asked.by_backup { &self.backup } else { &self.primary };
        let exact = match &chosen.offers {
            Offers::Report(report) => report.serves(writes, asked.pinned),
            Offers::Names(_) | Offers::Unknown => false,
        };
        let is_ours = matches!(chosen.class, Class::Pod | Class::Region);
        // A pin says which of our weights; who has none of them may stand in.
        if (asked.resuming || asked.pinned && is_ours) && !exact {
            broken.push((Rule::Revision, format!("{candidate:?} has another")));
        }
        let rungs = plan.left_out.len() + plan.candidates.len();
        if rungs != views.len() || plan.left_out.contains(&(candidate.at, LeftOut::Full)) {
            broken.push((Rule::ReadyFirst, "a plan names everybody once".to_owned()));
        }
        broken.into_iter().for_each(|(rule, what)| self.breaks(rule, what));
    }

    /// An attempt goes on.
    fn step(&mut self, attempt: usize, step: u32) {
        let running = &self.attempts[attempt];
        if running.pass.is_none() || running.step != step {
            return;
        }
        match running.next {
            Next::Content => self.content(attempt),
            Next::Ends(end) => self.ends(attempt, end),
        }
    }

    fn then(&mut self, attempt: usize, when: Instant, next: Next) {
        let running = &mut self.attempts[attempt];
        running.step += 1;
        running.next = next;
        let step = running.step;
        self.at(when, Event::Step(attempt, step));
    }

    /// The first content came: whoever was asked beside it is given up.
    fn content(&mut self, attempt: usize) {
        let (now, running) = (self.now, &mut self.attempts[attempt]);
        running.streams = true;
        let (request, at, rung) = (running.request, running.at, running.rung);
        let (began, takes) = (running.began, running.takes);
        let asked = &mut self.requests[request];
        let (bytes, deadline) = (asked.bytes, asked.deadline);
        if !asked.begun && asked.kind <= Kind::Fim {
            self.ladder.first_token(now - asked.arrived, now);
        }
        if !asked.begun {
            asked.by_backup = rung == Rung::Backup;
        }
        asked.begun = true;
        let losers: Vec<usize> =
            asked.running.iter().copied().filter(|other| *other != attempt).collect();
        self.pool.first_content(at, (bytes, now - began), now);
        self.pool.members[at].heard(now);
        self.pool.members[at].breaker.answers();
        for loser in losers {
            let waited = now - self.attempts[loser].began;
            let slower = self.attempts[loser].at;
            self.pool.first_content(slower, (bytes, waited), now);
            self.finish(loser, End::Abandoned);
        }
        match self.pool.members[at].condition {
            condition if condition.fate_of_streams() == Some(End::TimedOut) => {
                self.then(attempt, (now + NEXT_TOKEN).min(deadline), Next::Ends(End::TimedOut));
            }
            _ if now + takes >= deadline => {
                self.then(attempt, deadline, Next::Ends(End::TimedOut));
            }
            _ => self.then(attempt, now + takes, Next::Ends(End::Done)),
        }
    }

    /// Gives an attempt back, and tells what it says of its upstream.
    fn finish(&mut self, attempt: usize, end: End) {
        let now = self.now;
        let running = &mut self.attempts[attempt];
        let (request, at) = (running.request, running.at);
        let Some(pass) = running.pass.take() else { return };
        self.pool.members[at].running.retain(|other| *other != attempt);
        let asked = &mut self.requests[request];
        asked.running.retain(|other| *other != attempt);
        let tenant = asked.tenant;
        if end == End::Busy && self.pool.members[at].spec.class == Class::Provider {
            self.pool.members[at].paused = Some(now + Duration::from_secs(2));
        }
        if matches!(end, End::Done | End::ServerError | End::ClientFault | End::Busy) {
            self.pool.members[at].heard(now);
        }
        let change = self.pool.ended(at, pass, (end, tenant), now);
        self.note(at, change);
    }

    /// An attempt ended: what follows for its request.
    fn ends(&mut self, attempt: usize, end: End) {
        let running = &self.attempts[attempt];
        let (request, at, streamed) = (running.request, running.at, running.streams);
        let class = self.pool.members[at].spec.class;
        let asked = &self.requests[request];
        let end = match end {
            End::TimedOut if self.now >= asked.deadline => End::OutOfTime,
            End::ClientFault if asked.resuming => End::Unfit,
            end => end,
        };
        self.finish(attempt, end);
        match end {
            End::Done => return self.end(request, Ended::Served),
            End::ClientFault => {
                for other in self.requests[request].running.clone() {
                    self.finish(other, End::Abandoned);
                }
                return self.end(request, Ended::ClientFault);
            }
            _ => {}
        }
        let asked = &mut self.requests[request];
        asked.tried.retain(|(tried, _)| *tried != id(at));
        asked.tried.push((id(at), end.tried()));
        if streamed {
            if !matches!(class, Class::Pod | Class::Region) {
                return self.end(request, Ended::Failed);
            }
            asked.resuming = true;
            asked.made = asked.made.min(1);
        }
        self.at(self.now, Event::Look(request));
    }

    fn end(&mut self, request: usize, ended: Ended) {
        self.open -= 1;
        let asked = &mut self.requests[request];
        asked.ended = Some((self.now, ended));
        if self.now > asked.deadline {
            let late = self.now - asked.deadline;
            self.breaks(Rule::Deadline, format!("{late:?} past it"));
        }
    }

    /// A breaker changed. What it had under way is freed where it opened.
    fn note(&mut self, at: usize, change: Option<Change>) {
        let Some(Change::Opened(reason)) = change else { return };
        self.ejected.push(at);
        let is_pod = self.pool.members[at].spec.class == Class::Pod;
        if is_pod && is_soft(reason) && self.pool.pods_serving(self.now) == 0 {
            self.breaks(Rule::LastPod, format!("{reason:?} took out {at}"));
        }
    }

    /// The same, of all changes since there were so many.
    fn note_since(&mut self, before: usize) {
        for place in before..self.pool.changes.len() {
            let (_, at, change) = self.pool.changes[place];
            self.note(at, Some(change));
        }
    }

    /// What waits on who was taken out goes elsewhere.
    fn free(&mut self) {
        while let Some(at) = self.ejected.pop() {
            for attempt in self.pool.members[at].running.clone() {
                let is_kept = self.attempts[attempt].streams
                    && !matches!(self.pool.members[at].spec.class, Class::Pod | Class::Region);
                if !is_kept {
                    self.ends(attempt, End::Ejected);
                }
            }
        }
    }

    /// An upstream is otherwise from now on.
    fn turns(&mut self, at: usize, place: usize) {
        let member = &mut self.pool.members[at];
        member.condition = member.spec.script[place].1;
        let (condition, now) = (member.condition, self.now);
        let Some(end) = condition.fate_of_streams() else { return };
        for attempt in member.running.clone() {
            let running = &self.attempts[attempt];
            let deadline = self.requests[running.request].deadline;
            let when = match (end, running.streams) {
                (End::TimedOut, true) => (now + NEXT_TOKEN).min(deadline),
                (End::TimedOut, false) => running.until,
                _ => now,
            };
            self.then(attempt, when, Next::Ends(end));
        }
    }

    fn checks(&mut self, at: usize) {
        let now = self.now;
        if self.goes_on() {
            self.at(now + CHECK_EVERY, Event::Checks(at));
        }
        let soon = now + Duration::from_millis(self.dice.u64(1..10));
        let (when, passes) = match self.pool.members[at].condition.check() {
            Checked::Passes => (soon, true),
            Checked::Fails => (soon, false),
            Checked::TimesOut => (now + CHECK_WAITS, false),
        };
        self.at(when, Event::Checked(at, now, passes));
    }

    fn checked(&mut self, at: usize, began: Instant, passed: bool) {
        let before = self.pool.changes.len();
        if passed {
            self.pool.check_passed(at, began, self.now);
        } else {
            let stalls = self.pool.members[at].condition.fate_of_streams().is_some();
            let streams = |attempt: &usize| self.attempts[*attempt].streams;
            let flows = !stalls && self.pool.members[at].running.iter().any(streams);
            self.pool.check_failed(at, flows, began, self.now);
        }
        self.note_since(before);
    }

    fn judge(&mut self) {
        let now = self.now;
        if self.goes_on() {
            self.at(now + JUDGE, Event::Judge);
        }
        let before = self.pool.changes.len();
        self.pool.judge_latency(now);
        self.note_since(before);
        let seen = self.pool.seen(now);
        self.steps.extend(self.ladder.step(&seen, now).map(|step| (now, step)));
    }

    /// How many are under way on one that was tried again within the last second.
    fn watch_comeback(&mut self, at: usize) {
        let second = Duration::from_secs(1);
        let is_new = |(when, who, change): &&(Instant, usize, Change)| {
            *who == at && *change == Change::HalfOpened && self.now - *when < second
        };
        let recent = self.pool.changes.iter().rev().take(32).any(|change| is_new(&change));
        if recent {
            self.comeback = self.comeback.max(self.pool.members[at].running.len());
        }
    }
}

/// Whether the request may be seen there.
fn may(view: &View, asking: &Asking<'_>) -> bool {
    let is_named = |names: &[String]| names.iter().any(|name| **name == *view.name);
    match view.class {
        Class::Pod | Class::Local => true,
        Class::Region => asking.regions.is_none_or(is_named),
        Class::Provider => is_named(asking.providers),
    }
}

/// Whether it could answer it.
fn answers(view: &View, asking: &Asking<'_>) -> bool {
    let stands_in = !asking.resuming;
    match (&view.offers, view.class) {
        (Offers::Report(report), Class::Pod | Class::Region) => {
            let backup = asking.backup.is_some_and(|backup| report.serves(backup, false));
            report.serves(asking.model, asking.pinned) || backup && stands_in
        }
        (Offers::Names(_), _) => stands_in && !asking.tools,
        (_, Class::Local) => {
            let shed = asking.level >= Level::L3 && asking.kind >= Kind::Chat;
            stands_in && !asking.tools && !shed
        }
        (Offers::Report(_) | Offers::Unknown, _) => false,
    }
}

impl Condition {
    /// What becomes of what is under way when an upstream turns so.
    const fn fate_of_streams(self) -> Option<End> {
        match self {
            Self::Refusing | Self::Resetting | Self::Cutting => Some(End::Reset),
            Self::Hanging | Self::Dripping | Self::Mute => Some(End::TimedOut),
            _ => None,
        }
    }
}
