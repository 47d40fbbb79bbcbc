//! The processes, links and disks of a world, and the one who changes them.

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use nearhop_admin::clock;
use nearhop_conf::source::process_env;
use nearhop_emulator::{Disk, Emulator, process};
use nearhop_load::{
    action::Action,
    control::Answer,
    world::{Layout, Material, Node, Role, Standing, Step, World, tell},
};
use nearhop_proxy::child::{Child, stop_all};
use tempfile::TempDir;

use super::material;
use crate::built_in::ServedModel;

/// How often processes are looked at: one that ended by itself is told.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// The time that slow processes have, or do not have, at once: shorter than anything that is measured.
pub(super) const BEAT: Duration = Duration::from_millis(20);

/// Of each node that keeps files: a hundred times what they need.
const DISK: u64 = 8 << 20;
/// Temporary folders begin with it, and the process's id.
const FOLDER: &str = "nearhop-world-";
/// Of a log, when its node does not start.
const LAST_WORDS: usize = 2048;

/// Dropped in this order: what runs, what it writes on, what it speaks through.
pub(super) struct Running {
    world: World,
    material: Material,
    children: HashMap<String, Child>,
    /// By site.
    disks: HashMap<String, Disk>,
    wan: Emulator,
    folder: TempDir,
    beats: u32,
}

impl Running {
    /// Sites, links, disks and files; nothing runs yet.
    pub(super) fn prepare(layout: Layout, model: &ServedModel) -> anyhow::Result<Self> {
        let wan = Emulator::start(&layout.sites())?;
        let prefix = format!("{FOLDER}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let material = material::make(folder.path(), model)?;
        let world = World::new(layout, |site| wan.site(site).address());
        let mut disks = HashMap::new();
        for node in world.nodes().iter().filter(|node| node.keeps_files()) {
            let path = folder.path().join("disks").join(&node.site);
            disks.insert(node.site.clone(), Disk::mount(&path, DISK)?);
        }
        remove_leftovers();
        for node in world.nodes() {
            let disk = disks.get(&node.site).map(Disk::path).unwrap_or(folder.path());
            let config = world.config(node, &material, disk);
            std::fs::write(node.file(folder.path(), "yaml"), format!("{config:#}"))?;
        }
        let running =
            Self { world, material, children: HashMap::new(), disks, wan, folder, beats: 0 };
        running.set_links();
        Ok(running)
    }

    /// Starts every node; returns when all are ready.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let all: Vec<Node> = self.world.nodes().to_vec();
        self.start_nodes(&all).await
    }

    /// Ends everything, in order.
    pub(super) async fn stop(self) {
        stop_all(self.children.into_values().collect()).await;
    }

    pub(super) fn world(&self) -> &World {
        &self.world
    }

    pub(super) fn material(&self) -> &Material {
        &self.material
    }

    /// The socket's place.
    pub(super) fn control(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// Does what somebody asks for.
    pub(super) async fn answer(&mut self, action: &Action) -> Answer {
        if *action == (Action::State {}) {
            self.look();
            let pid = |name: &str| self.children.get(name).map(|child| child.pid);
            return Answer::State(self.world.state(pid));
        }
        let error = |error: String| Answer::Error { error };
        let steps = match self.world.steps(action) {
            Ok(steps) => steps,
            Err(refusal) => return error(refusal.to_string()),
        };
        match self.take(&steps).await {
            Ok(()) => Answer::Done { done: tell(&steps), at: clock::since_epoch().as_secs_f64() },
            Err(problem) => error(format!("not all of it was done: {problem:#}")),
        }
    }

    async fn take(&mut self, steps: &[Step]) -> anyhow::Result<()> {
        let mut to_start = Vec::new();
        for step in steps {
            match step {
                // Together, behind everything else.
                Step::Start(name) => {
                    to_start
                        .extend(self.world.nodes().iter().find(|node| node.name == *name).cloned());
                    continue;
                }
                Step::Kill(name) => {
                    if let Some(mut child) = self.children.remove(name) {
                        // It may have ended in between.
                        let _ = child.kill().await;
                    }
                }
                Step::Pause(name) => self.signal(name, process::pause)?,
                Step::Resume(name) => self.signal(name, process::resume)?,
                // By `beat`.
                Step::Slow(..) => {}
                Step::Cut(region) => {
                    for other in self.world.places().into_iter().filter(|place| place != region) {
                        self.wan.cut(region, other);
                    }
                }
                Step::Heal(region) => self.wan.rejoin(region),
                Step::Fill(region) => self.disk(region, Disk::fill)?,
                Step::Clear(region) => self.disk(region, Disk::clear)?,
                Step::Delay(..) => {}
            }
            self.world.took(step);
            if matches!(step, Step::Delay(..)) {
                self.set_links();
            }
        }
        self.start_nodes(&to_start).await
    }

    /// Sets every link to what the world says; cuts stay.
    fn set_links(&self) {
        for link in self.world.links() {
            self.wan.link(&link.one, &link.other).delay(link.delay).jitter(link.jitter);
        }
    }

    fn signal(&self, name: &str, send: fn(u32) -> io::Result<()>) -> anyhow::Result<()> {
        let Some(child) = self.children.get(name) else { bail!("{name} has no process") };
        send(child.pid).with_context(|| format!("{name} (pid {})", child.pid))
    }

    fn disk(&self, region: &str, act: fn(&Disk) -> io::Result<()>) -> anyhow::Result<()> {
        let disk = self.disks.get(region).with_context(|| format!("{region} has no disk"))?;
        act(disk).with_context(|| format!("the disk of {region}, {}", disk.path().display()))
    }

    /// Those of a role at once, pods before DNS servers before edges, since an edge is ready when a pod is.
    async fn start_nodes(&mut self, nodes: &[Node]) -> anyhow::Result<()> {
        for role in [Role::Pod, Role::Dns, Role::Edge] {
            let of_role = || nodes.iter().filter(|node| node.role == role);
            for node in of_role() {
                let child = self.spawn(node)?;
                self.children.insert(node.name.clone(), child);
            }
            for node in of_role() {
                let Some(child) = self.children.get_mut(&node.name) else { continue };
                if let Err(error) = child.wait_ready().await {
                    eprintln!("{}", last_words(&node.file(self.folder.path(), "log")));
                    bail!(error);
                }
                self.world.took(&Step::Start(node.name.clone()));
            }
        }
        Ok(())
    }

    fn spawn(&self, node: &Node) -> anyhow::Result<Child> {
        let log = node.file(self.folder.path(), "log");
        let log = File::options().append(true).create(true).open(log)?;
        let level = process_env("RUST_LOG").unwrap_or_else(|| "error".to_owned());
        let mut command = self.wan.site(&node.site).command(std::env::current_exe()?);
        command
            .args([node.role.command(), "-c"])
            .arg(node.file(self.folder.path(), "yaml"))
            .env("RUST_LOG", level)
            .stderr(log);
        Ok(Child::start(&node.name, command)?)
    }

    /// Notices who has ended by itself.
    pub(super) fn look(&mut self) {
        let alive = |name: &String| {
            self.world.nodes().iter().any(|node| node.name == *name && node.standing.is_alive())
        };
        let ended = self.children.iter_mut().filter(|(name, _)| alive(name));
        let ended = ended.filter_map(|(name, child)| child.has_ended().then(|| name.clone()));
        let ended: Vec<String> = ended.collect();
        for name in ended {
            eprintln!("nearhop load emulate: {name} ended; `undo` starts it again");
            self.children.remove(&name);
            self.world.ended(&name);
        }
    }

    pub(super) fn has_slow(&self) -> bool {
        self.world.nodes().iter().any(|node| matches!(node.standing, Standing::Slow(_)))
    }

    /// Slow processes run for one beat in so many.
    pub(super) fn beat(&mut self) {
        self.beats = self.beats.wrapping_add(1);
        for node in self.world.nodes() {
            let Standing::Slow(times) = node.standing else { continue };
            let send = match self.beats % times {
                0 => process::resume,
                1 => process::pause,
                _ => continue,
            };
            // It may have ended; the next look tells.
            let _ = self.signal(&node.name, send);
        }
    }
}

/// The end of a log.
fn last_words(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LAST_WORDS)..]).into_owned()
}

/// Removes folders of killed runs. Their disks were unmounted by the first of ours.
fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(FOLDER)?.split_once('-'));
        let owner = owner.and_then(|(owner, _)| owner.parse().ok());
        if owner.is_some_and(|owner| !process::exists(owner)) {
            // Two starts may see the same one.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
