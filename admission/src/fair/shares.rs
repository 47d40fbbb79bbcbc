//! Who holds a place, who waits for one, and whose turn it is: the decisions, without a clock.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{
    line::{Line, Waiting},
    pace::{Arrivals, Pace},
};

/// Classes that are told apart; what is beyond goes with the last.
const CLASSES: usize = 4;
/// The classes before this one come from typing: inline and fill in the middle.
const TYPED: usize = 2;
/// What is told to come again is told at least, and at most.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Where the newest goes first and more come than are served, the oldest's turn comes only if those
/// after it run out by chance. It waits while that is likelier than one in so many.
const CHANCE: f64 = 100.0;

/// Where one waits: its class, and its number by arrival.
pub(super) type Turn = (usize, u64);

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) class: u8,
    /// Later, a place would be wasted on it.
    pub(super) start_by: Instant,
}

/// Who holds and who waits. Pure: what a waiter is, its caller decides.
#[derive(Debug)]
pub(super) struct Shares<W> {
    pub(super) places: usize,
    waiting_max: usize,
    pub(super) held: usize,
    pub(super) waiting: usize,
    /// Counts arrivals and turns.
    next: u64,
    pace: Pace,
    pub(super) arrivals: Arrivals,
    pub(super) tenants: HashMap<String, Share<W>>,
}

#[derive(Debug)]
pub(super) struct Share<W> {
    pub(super) held: usize,
    waiting: usize,
    lines: [Line<W>; CLASSES],
    /// When it last had a turn, or came: of those that hold as many, the one that had none for
    /// longest is next.
    turn: u64,
}

impl<W> Share<W> {
    /// Those that wait in classes before this one.
    fn before(&self, class: usize) -> usize {
        self.lines.iter().take(class).map(Line::len).sum()
    }

    fn insert(&mut self, (class, number): Turn, waiting: Waiting<W>) {
        self.lines[class].insert(number, waiting);
        self.waiting += 1;
    }

    fn remove(&mut self, (class, number): Turn) -> Option<Waiting<W>> {
        let waiting = self.lines.get_mut(class)?.remove(number)?;
        self.waiting -= 1;
        Some(waiting)
    }

    fn pop_next(&mut self, now: Instant) -> Option<Waiting<W>> {
        let (class, line) = self.lines.iter_mut().enumerate().find(|(_, line)| line.len() > 0)?;
        line.newest_first(class < TYPED, now);
        self.waiting -= 1;
        line.pop_next()
    }

    /// Who waits and would be served last.
    fn last(&self) -> Option<Turn> {
        let mut lines = self.lines.iter().enumerate().rev();
        lines.find_map(|(class, line)| Some((class, line.last()?)))
    }
}

/// What comes of asking for a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked<W> {
    Entered,
    Waits(Turn),
    /// There is no turn for it; when there would be one.
    Full(W, Duration),
    /// It has too little time left.
    Late(W),
}

/// One that waited and shall not any more, and when to come again.
pub(super) type Shed<W> = (W, Duration);

/// Whose turn it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<W> {
    /// It holds a place now.
    Enters(String, W),
    /// It has too little time left.
    Late(W),
}

impl<W> Shares<W> {
    pub(super) fn new(places: usize, waiting_max: usize) -> Self {
        Self {
            places,
            waiting_max,
            held: 0,
            waiting: 0,
            next: 0,
            pace: Pace::default(),
            arrivals: Arrivals::default(),
            tenants: HashMap::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn share(&mut self, tenant: &str) -> &mut Share<W> {
        if !self.tenants.contains_key(tenant) {
            let (lines, turn) = (std::array::from_fn(|_| Line::default()), self.number());
            self.tenants.insert(tenant.to_owned(), Share { held: 0, waiting: 0, lines, turn });
        }
        self.tenants.get_mut(tenant).expect("it was just put in")
    }

    /// Places that become free a second while all are taken; `None` where it is not known yet.
    pub(super) fn rate(&mut self, now: Instant) -> Option<f64> {
        self.pace.pass(self.held, now);
        // Without any place, nobody can say when there will be one.
        let places = (self.places > 0).then_some(self.places as f64)?;
        Some(self.pace.of_a_place()? * places)
    }

    /// Turns a second that a class of `tenant` has until `ahead` of them have gone before; none
    /// where earlier classes take all of them.
    fn rate_of(
        &mut self,
        tenant: &str,
        (class, ahead): (usize, usize),
        now: Instant,
    ) -> Option<f64> {
        let rate = self.rate(now)?;
        let own = self.tenants.get(tenant);
        let held = own.map_or(0, |own| own.held);
        let turns = ahead + 1;
        // Turns go round, first to those that hold fewer: another has one for each of these, for
        // each that it holds less, and no more than wait.
        let others = self.tenants.iter().filter(|(name, _)| *name != tenant);
        let theirs =
            others.map(|(_, other)| other.waiting.min((turns + held).saturating_sub(other.held)));
        let all = turns + theirs.sum::<usize>();
        let earlier = own.into_iter().flat_map(|own| own.lines.iter().take(class));
        let overtaking: f64 = earlier.map(|line| line.arrivals.a_second(now)).sum();
        Some((rate * turns as f64 / all as f64 - overtaking).max(0.0))
    }

    /// When one of `tenant` and `class` would be served: the time of those that wait, as often as
    /// it would have to ask, where of several that come one is served.
    pub(super) fn retry_after(&mut self, tenant: &str, class: usize, now: Instant) -> Duration {
        let own = self.tenants.get(tenant);
        let ahead = own.map_or(0, |own| own.before(class + 1));
        let come = own.map_or(0.0, |own| own.lines[class].arrivals.a_second(now));
        let (least, most) = RETRY_AFTER;
        let Some(rate) = self.rate_of(tenant, (class, ahead), now) else { return least };
        let wait = ((ahead + 1) as f64 / rate).max(least.as_secs_f64());
        let wait = wait * (come / rate).max(1.0);
        Duration::try_from_secs_f64(wait).unwrap_or(most).clamp(least, most)
    }

    pub(super) fn ask(
        &mut self,
        tenant: &str,
        wish: Wish,
        waiter: W,
        now: Instant,
    ) -> (Asked<W>, Vec<Shed<W>>) {
        self.pace.pass(self.held, now);
        self.arrivals.take(now);
        let class = usize::from(wish.class).min(CLASSES - 1);
        let free = self.held < self.places && self.waiting == 0;
        let share = self.share(tenant);
        share.lines[class].arrivals.take(now);
        if free {
            share.held += 1;
            self.held += 1;
            return (Asked::Entered, Vec::new());
        }
        if wish.start_by < now {
            self.forget(tenant);
            return (Asked::Late(waiter), Vec::new());
        }
        let newest_first = share.lines[class].newest_first(class < TYPED, now);
        let ahead = share.before(if newest_first { class } else { class + 1 });
        let patience = wish.start_by.saturating_duration_since(now).as_secs_f64();
        let rate = self.rate_of(tenant, (class, ahead), now);
        if rate.is_some_and(|rate| (ahead + 1) as f64 > patience * rate) {
            let retry_after = self.retry_after(tenant, class, now);
            self.forget(tenant);
            return (Asked::Full(waiter, retry_after), Vec::new());
        }
        let turn = (class, self.number());
        self.share(tenant).insert(turn, Waiting { waiter, since: now, start_by: wish.start_by });
        self.waiting += 1;
        let mut shed = Vec::new();
        if newest_first && let Some(rate) = rate {
            self.shorten((tenant, class), (rate, patience), now, &mut shed);
        }
        let own = self.shed_beyond(Some(turn), now, &mut shed);
        (own.unwrap_or(Asked::Waits(turn)), shed)
    }

    /// Where the newest goes first: those at the other end have no turn in time, or hardly one.
    fn shorten(
        &mut self,
        (tenant, class): (&str, usize),
        (rate, patience): (f64, f64),
        now: Instant,
        shed: &mut Vec<Shed<W>>,
    ) {
        let share = self.share(tenant);
        let come = share.lines[class].arrivals.a_second(now);
        let mut ahead_max = rate * patience;
        if come > rate {
            ahead_max = ahead_max.min(CHANCE.ln() / (come / rate).ln());
        }
        let mut gave_up = Vec::new();
        while share.lines[class].len() as f64 > ahead_max + 1.0
            && let Some(number) = share.lines[class].last()
            && let Some(last) = share.remove((class, number))
        {
            gave_up.push(last.waiter);
        }
        self.waiting -= gave_up.len();
        if !gave_up.is_empty() {
            let retry_after = self.retry_after(tenant, class, now);
            shed.extend(gave_up.into_iter().map(|waiter| (waiter, retry_after)));
        }
    }

    /// Holds the bound on those that wait: the tenant that has most, held or waiting, gives up its
    /// last. Returns the one at `own`, should it come to that.
    fn shed_beyond(
        &mut self,
        own: Option<Turn>,
        now: Instant,
        shed: &mut Vec<Shed<W>>,
    ) -> Option<Asked<W>> {
        let mut own_shed = None;
        while self.waiting > self.waiting_max {
            let waiting = self.tenants.iter().filter_map(|(tenant, share)| {
                Some((share.held + share.waiting, share.last()?, tenant))
            });
            let (_, turn, tenant) = waiting.max().expect("somebody waits");
            let tenant = tenant.clone();
            let last = self.leave(&tenant, turn).expect("it was the last one that waits");
            let retry_after = self.retry_after(&tenant, turn.0, now);
            if own == Some(turn) {
                own_shed = Some(Asked::Full(last, retry_after));
            } else {
                shed.push((last, retry_after));
            }
        }
        own_shed
    }

    /// Changes how many there may be; who waits beyond that does not any more.
    pub(super) fn resize(
        &mut self,
        places: usize,
        waiting_max: usize,
        now: Instant,
    ) -> Vec<Shed<W>> {
        (self.places, self.waiting_max) = (places, waiting_max);
        let mut shed = Vec::new();
        self.shed_beyond(None, now, &mut shed);
        shed
    }

    /// A waiter does not want its turn any more.
    pub(super) fn leave(&mut self, tenant: &str, turn: Turn) -> Option<W> {
        let left = self.tenants.get_mut(tenant)?.remove(turn)?;
        self.waiting -= 1;
        self.forget(tenant);
        Some(left.waiter)
    }

    /// A place of `tenant` is free again. What it was used for says how fast places become free.
    pub(super) fn release(&mut self, tenant: &str, now: Instant) {
        self.pace.pass(self.held, now);
        self.pace.give_back();
        self.vacate(tenant);
    }

    /// A place of `tenant` was not used at all.
    pub(super) fn vacate(&mut self, tenant: &str) {
        let share = self.tenants.get_mut(tenant).expect("who holds a place is not forgotten");
        share.held -= 1;
        self.held -= 1;
        self.forget(tenant);
    }

    /// Whose turn it is, where a place is free.
    pub(super) fn next(&mut self, now: Instant) -> Option<Next<W>> {
        if self.held >= self.places || self.waiting == 0 {
            return None;
        }
        self.pace.pass(self.held, now);
        let number = self.number();
        let waiting = self.tenants.iter_mut().filter(|(_, share)| share.waiting > 0);
        let (tenant, share) = waiting.min_by_key(|(_, share)| (share.held, share.turn))?;
        let next = share.pop_next(now)?;
        self.waiting -= 1;
        let tenant = tenant.clone();
        if next.start_by < now {
            self.forget(&tenant);
            return Some(Next::Late(next.waiter));
        }
        share.turn = number;
        share.held += 1;
        self.held += 1;
        Some(Next::Enters(tenant, next.waiter))
    }

    fn forget(&mut self, tenant: &str) {
        let idle = |share: &Share<W>| share.held == 0 && share.waiting == 0;
        if self.tenants.get(tenant).is_some_and(idle) {
            self.tenants.remove(tenant);
        }
    }
}
