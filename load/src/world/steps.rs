//! What an action does, to whom, and how everything is after it.

use std::collections::VecDeque;

use serde::Serialize;

use super::{
    World,
    nodes::{Node, Role, Standing},
};
use crate::action::Action;

/// A network that is a minute slower is cut.
const DELAY_MS_MAX: u64 = 60_000;
/// Slower than that, and checks take it for dead.
const TIMES_MAX: u32 = 50;

/// One thing to do. Nodes and regions are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ends a process at once.
    Kill(String),
    /// Stops a process.
    Pause(String),
    /// Lets a process have one part of the time in so many.
    Slow(String, u32),
    /// Lets a stopped or slowed process go on.
    Resume(String),
    /// Starts a node, and waits until it is ready.
    Start(String),
    /// Cuts a region off from all other places.
    Cut(String),
    /// Undoes that.
    Heal(String),
    /// Makes packets of a region so many milliseconds slower than they were at the start.
    Delay(String, u64),
    /// Fills the disk of a region's edge.
    Fill(String),
    /// Undoes that.
    Clear(String),
}

/// Why an action is not done.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

/// How everything is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct State {
    /// Every process.
    pub nodes: Vec<NodeState>,
    /// Regions that are cut off.
    pub cuts: Vec<String>,
    /// Regions whose network is slowed, and the milliseconds.
    pub slow_networks: Vec<(String, u64)>,
    /// Regions whose disk is full.
    pub full_disks: Vec<String>,
}

/// How a process is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(unnameable_types, reason = "read as JSON, or field by field")]
pub struct NodeState {
    /// Its name.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Where it belongs, but for DNS servers.
    pub region: Option<String>,
    /// Its process.
    pub pid: Option<u32>,
    /// How it is; of a slow one, only that.
    pub state: &'static str,
}

impl World {
    /// What an action does, in order. Nothing here is chance: pods are taken from one region after
    /// the other, in the regions' order and round again, in each the lowest number first; but only
    /// those that can be done to: running or slow ones to be killed or paused, running ones to be slowed.
    ///
    /// # Errors
    /// [`Refusal`], which names the field and what there is.
    pub fn steps(&self, action: &Action) -> Result<Vec<Step>, Refusal> {
        let brisk = |node: &Node| matches!(node.standing, Standing::Running | Standing::Slow(_));
        let runs = |node: &Node| node.standing == Standing::Running;
        let one = |step: fn(String) -> Step, region: &str| {
            self.known(region).map(|()| vec![step(region.to_owned())])
        };
        match action {
            Action::KillLlmNodes { count, region } => {
                let pods = self.choose(*count, region.as_deref(), brisk)?;
                Ok(pods.into_iter().map(Step::Kill).collect())
            }
            Action::PauseLlmNodes { count, region } => {
                let pods = self.choose(*count, region.as_deref(), brisk)?;
                Ok(pods.into_iter().map(Step::Pause).collect())
            }
            Action::SlowLlmNodes { count, region, times } => {
                if !(2..=TIMES_MAX).contains(times) {
                    return refuse(format!("times is {times}; write 2 to {TIMES_MAX}"));
                }
                let pods = self.choose(*count, region.as_deref(), runs)?;
                Ok(pods.into_iter().map(|pod| Step::Slow(pod, *times)).collect())
            }
            Action::KillEdge { region } => {
                self.known(region)?;
                let edge = |node: &&Node| node.role == Role::Edge && node.site == *region;
                match self.nodes.iter().find(edge) {
                    Some(edge) if edge.standing.is_alive() => {
                        Ok(vec![Step::Kill(edge.name.clone())])
                    }
                    _ => refuse(format!(
                        "region is `{region}`, whose edge does not run; undo starts it again"
                    )),
                }
            }
            Action::SlowNetwork { region, delay_ms } => {
                self.known(region)?;
                if *delay_ms > DELAY_MS_MAX {
                    return refuse(format!(
                        "delay_ms is {delay_ms}; write up to {DELAY_MS_MAX}, or use network_partition"
                    ));
                }
                Ok(vec![Step::Delay(region.clone(), *delay_ms)])
            }
            Action::NetworkPartition { region } => one(Step::Cut, region),
            Action::FillDisk { region } => one(Step::Fill, region),
            Action::Undo {} => Ok(self.undo()),
            Action::State {} => Ok(Vec::new()),
        }
    }

    /// What puts everything right: first the ground under the nodes, then the nodes, pods before edges.
    fn undo(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = self.cut.iter().cloned().map(Step::Heal).collect();
        steps.extend(self.slowed.keys().map(|region| Step::Delay(region.clone(), 0)));
        steps.extend(self.full.iter().cloned().map(Step::Clear));
        let wanting = |standing: fn(Standing) -> bool, step: fn(String) -> Step| {
            let nodes = self.nodes.iter().filter(move |node| standing(node.standing));
            nodes.map(move |node| step(node.name.clone()))
        };
        let held = |standing| matches!(standing, Standing::Paused | Standing::Slow(_));
        steps.extend(wanting(held, Step::Resume));
        steps.extend(wanting(|standing| !standing.is_alive(), Step::Start));
        steps
    }

    /// Keeps the books: `step` was done.
    pub fn took(&mut self, step: &Step) {
        match step {
            Step::Kill(node) => self.set(node, Standing::Killed),
            Step::Pause(node) => self.set(node, Standing::Paused),
            Step::Slow(node, times) => self.set(node, Standing::Slow(*times)),
            Step::Resume(node) | Step::Start(node) => self.set(node, Standing::Running),
            Step::Cut(region) => drop(self.cut.insert(region.clone())),
            Step::Heal(region) => drop(self.cut.remove(region)),
            Step::Delay(region, 0) => drop(self.slowed.remove(region)),
            Step::Delay(region, ms) => drop(self.slowed.insert(region.clone(), *ms)),
            Step::Fill(region) => drop(self.full.insert(region.clone())),
            Step::Clear(region) => drop(self.full.remove(region)),
        }
    }

    /// Keeps the books: a node ended, and no step was the cause.
    pub fn ended(&mut self, node: &str) {
        self.set(node, Standing::Ended);
    }

    fn set(&mut self, name: &str, standing: Standing) {
        if let Some(node) = self.nodes.iter_mut().find(|node| node.name == name) {
            node.standing = standing;
        }
    }

    /// How everything is; `pid` knows the processes.
    #[must_use]
    pub fn state(&self, pid: impl Fn(&str) -> Option<u32>) -> State {
        let node = |node: &Node| NodeState {
            name: node.name.clone(),
            role: node.role,
            region: node.region().map(str::to_owned),
            pid: pid(&node.name).filter(|_| node.standing.is_alive()),
            state: node.standing.word(),
        };
        State {
            nodes: self.nodes.iter().map(node).collect(),
            cuts: self.cut.iter().cloned().collect(),
            slow_networks: self.slowed.iter().map(|(name, ms)| (name.clone(), *ms)).collect(),
            full_disks: self.full.iter().cloned().collect(),
        }
    }

    /// Names of `count` pods for which `fits` holds.
    fn choose(
        &self,
        count: usize,
        region: Option<&str>,
        fits: impl Fn(&Node) -> bool,
    ) -> Result<Vec<String>, Refusal> {
        if let Some(region) = region {
            self.known(region)?;
        }
        if count == 0 {
            return refuse("count is 0; write 1 or more".to_owned());
        }
        let regions = self.layout.region_names();
        let mut lines: Vec<VecDeque<&Node>> = regions
            .iter()
            .filter(|name| region.is_none_or(|region| region == **name))
            .map(|name| {
                let here = |node: &&Node| node.role == Role::Pod && node.site == **name;
                self.nodes.iter().filter(here).filter(|node| fits(node)).collect()
            })
            .collect();
        let there = lines.iter().map(VecDeque::len).sum::<usize>();
        if count > there {
            let place = region.map_or_else(|| "all regions together".to_owned(), str::to_owned);
            return refuse(format!(
                "count is {count}, and {there} pods of {place} run; write up to that, or undo first"
            ));
        }
        let mut chosen = Vec::with_capacity(count);
        while chosen.len() < count {
            let turn = lines.iter_mut().filter_map(VecDeque::pop_front);
            let left = count - chosen.len();
            chosen.extend(turn.take(left).map(|node| node.name.clone()));
        }
        Ok(chosen)
    }

    fn known(&self, region: &str) -> Result<(), Refusal> {
        let regions = self.layout.region_names();
        if regions.contains(&region) {
            return Ok(());
        }
        refuse(format!(
            "region is `{region}`, which is not here; write one of {}",
            regions.join(", ")
        ))
    }
}

fn refuse<T>(what: String) -> Result<T, Refusal> {
    Err(Refusal(what))
}

impl Standing {
    const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Slow(_) => "slow",
            Self::Paused => "paused",
            Self::Killed => "killed",
            Self::Ended => "ended",
        }
    }
}

/// What was done, in words: `killed us-west/pod-1, eu-west/pod-1; cut off ap-south`.
#[must_use]
pub fn tell(steps: &[Step]) -> String {
    let mut said = String::new();
    let mut last = None;
    for step in steps {
        let (verb, what) = step.words();
        said += match last {
            None => "",
            Some(last) if last == verb => ", ",
            Some(_) => "; ",
        };
        if last != Some(verb) {
            said += verb;
            said.push(' ');
        }
        said += &what;
        last = Some(verb);
    }
    if steps.is_empty() { "nothing was to be done".to_owned() } else { said }
}

impl Step {
    fn words(&self) -> (&'static str, String) {
        match self {
            Self::Kill(node) => ("killed", node.clone()),
            Self::Pause(node) => ("paused", node.clone()),
            Self::Slow(node, times) => ("slowed", format!("{node} {times} times")),
            Self::Resume(node) => ("let go on", node.clone()),
            Self::Start(node) => ("started", node.clone()),
            Self::Cut(region) => ("cut off", region.clone()),
            Self::Heal(region) => ("healed", region.clone()),
            Self::Delay(region, 0) => ("no delay any more at", region.clone()),
            Self::Delay(region, ms) => ("delayed", format!("{region} by {ms} ms")),
            Self::Fill(region) => ("filled the disk of", region.clone()),
            Self::Clear(region) => ("cleared the disk of", region.clone()),
        }
    }
}
