//! Rollouts over folders that hold a manifest and a counting network.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nearhop_admin::{Metrics, clock};
use nearhop_conf::{Origin, OriginModel};

use super::{open::start, *};
use crate::{
    counters::Families,
    queue::tests::job,
    session::{Session, fake::Counting},
};

/// The settings of a pod in tests.
pub(crate) fn origin() -> Origin {
    let any = "127.0.0.1:0".parse().unwrap();
    Origin {
        listen: any,
        tls: None,
        admin: nearhop_conf::Admin { listen: any, token: None },
        models: Vec::new(),
        slots: 2,
        queue: 8,
        queue_tokens: 100_000,
        prefill_chunk: 64,
        prefix_cache: nearhop_conf::ByteSize::mib(1),
        embed_batch: 64,
        threads: 1,
        require_provider: None,
        engine_cache: None,
        stall_after: Duration::from_millis(300),
        drain: Duration::from_millis(100),
        ort_library: None,
    }
}

/// Loads folders, whose network is the counting one, or the one given.
pub(crate) struct FakeOpener {
    pub(crate) origin: Origin,
    pub(crate) families: Families,
    pub(crate) session: Mutex<Option<Box<dyn Session>>>,
    broken: AtomicBool,
}

impl FakeOpener {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            origin: origin(),
            families: Families::new(metrics),
            session: Mutex::default(),
            broken: AtomicBool::new(false),
        }
    }
}

impl Opener for FakeOpener {
    fn open(&self, folder: &Path, model: Arc<Model>) -> Result<Served, OriginError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(OriginError::Models("broken on purpose".to_owned()));
        }
        let given = self.session.lock().unwrap().take();
        let slots = self.origin.slots;
        let counting = || Box::new(Counting::new(slots, model.vocabulary())) as Box<dyn Session>;
        let engine = start(given.unwrap_or_else(counting), &model, &self.origin, &self.families)?;
        Ok(Served {
            _shown: self.families.show(&model, Provider::Cpu),
            model,
            runner: Runner::Generate(engine),
            slots,
            provider: Provider::Cpu,
            declined: Vec::new(),
            findings: Vec::new(),
            folder: folder.to_owned(),
            loaded: clock::since_epoch().as_secs(),
            longest_step: Duration::ZERO,
        })
    }
}

pub(crate) fn tiny() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny")
}

/// A copy of the tiny model under another name and revision.
pub(crate) fn copy(folder: &Path, name: &str, revision: &str) -> PathBuf {
    let to = folder.join(format!("{name}-{revision}"));
    std::fs::create_dir_all(&to).unwrap();
    for file in ["model.onnx", "tokenizer.json"] {
        std::fs::copy(tiny().join(file), to.join(file)).unwrap();
    }
    let text = std::fs::read_to_string(tiny().join("nearhop.yaml")).unwrap();
    let text = text
        .replace("name: tiny", &format!("name: {name}"))
        .replace("revision: \"1\"", &format!("revision: \"{revision}\""));
    std::fs::write(to.join("nearhop.yaml"), text).unwrap();
    to
}

struct Rig {
    registry: Arc<Registry>,
    opener: Arc<FakeOpener>,
    folder: tempfile::TempDir,
}

impl Rig {
    /// A pod that serves `a` of revision 1 as `default`.
    fn start() -> Self {
        let opener = Arc::new(FakeOpener::new(&Metrics::default()));
        let folder = tempfile::tempdir().unwrap();
        let first = copy(folder.path(), "a", "1");
        let models = [OriginModel { folder: first, aliases: vec!["default".into()] }];
        let registry = Registry::start(Arc::clone(&opener) as Arc<dyn Opener>, &models).unwrap();
        Self { registry: Arc::new(registry), opener, folder }
    }

    async fn load(
        &self,
        name: &str,
        revision: &str,
        how: (bool, bool),
    ) -> Result<Arc<Served>, ChangeError> {
        let folder = copy(self.folder.path(), name, revision);
        self.registry.load(&folder, how, &[]).await
    }

    /// What a name means now.
    fn means(&self, asked: Option<&str>) -> Result<String, String> {
        let found = self.registry.table().find(asked);
        found.map(|served| served.model.fingerprint()).map_err(|error| error.to_string())
    }
}

const SWITCH: (bool, bool) = (true, false);

#[tokio::test]
async fn a_new_revision_takes_over_and_can_be_rolled_back() {
    let rig = Rig::start();
    rig.load("a", "2", SWITCH).await.unwrap();
    assert_eq!(rig.means(Some("a")).unwrap(), "a@2");
    assert_eq!(rig.means(Some("default")).unwrap(), "a@2");
    assert!(rig.means(Some("a@1")).is_err(), "the old one is not kept");
    assert_eq!(rig.registry.roll_back("a").await.unwrap(), "1");
    assert_eq!(rig.means(Some("a")).unwrap(), "a@1", "loaded again from its folder");
    assert_eq!(rig.registry.roll_back("a").await.unwrap(), "2", "and back");
}

#[tokio::test]
async fn revisions_side_by_side_are_reached_by_their_own_name() {
    let rig = Rig::start();
    rig.load("a", "2", (false, false)).await.unwrap();
    assert_eq!(rig.means(Some("a")).unwrap(), "a@1");
    assert_eq!(rig.means(Some("a@2")).unwrap(), "a@2");
    assert_eq!(rig.means(Some("default@2")).unwrap(), "a@2");
    rig.registry.activate("a", "2", true).unwrap();
    assert_eq!(rig.means(Some("a")).unwrap(), "a@2");
    assert_eq!(rig.means(Some("a@1")).unwrap(), "a@1", "it was kept");
    assert!(matches!(rig.registry.unload("a", Some("2")), Err(ChangeError::Active { .. })));
    rig.registry.unload("a", Some("1")).unwrap();
    assert!(rig.means(Some("a@1")).is_err());
}

#[tokio::test]
async fn a_bad_revision_leaves_the_old_one_serving() {
    let rig = Rig::start();
    rig.opener.broken.store(true, Ordering::Relaxed);
    let error = rig.load("a", "2", SWITCH).await.err().unwrap().to_string();
    assert!(error.contains("broken on purpose"), "{error}");
    assert_eq!(rig.means(Some("a")).unwrap(), "a@1");
    rig.opener.broken.store(false, Ordering::Relaxed);
    let again = rig.load("a", "1", SWITCH).await.err().unwrap().to_string();
    assert!(again.contains("loaded already"), "{again}");
    let missing = rig.registry.load(Path::new("/nowhere"), SWITCH, &[]).await;
    assert!(missing.err().unwrap().to_string().contains("/nowhere"));
}

#[tokio::test]
async fn a_folder_that_changed_is_not_rolled_back_to() {
    let rig = Rig::start();
    rig.load("a", "2", SWITCH).await.unwrap();
    let first = rig.folder.path().join("a-1");
    let text = std::fs::read_to_string(first.join("nearhop.yaml")).unwrap();
    std::fs::write(first.join("nearhop.yaml"), text.replace("\"1\"", "\"3\"")).unwrap();
    let error = rig.registry.roll_back("a").await.unwrap_err().to_string();
    assert!(error.contains("now holds revision 3, not 1"), "{error}");
    assert_eq!(rig.means(Some("a")).unwrap(), "a@2");
}

#[tokio::test]
async fn names_and_aliases_are_told_apart() {
    let rig = Rig::start();
    assert_eq!(rig.means(None).unwrap(), "a@1", "the only model needs no name");
    rig.load("b", "1", SWITCH).await.unwrap();
    assert_eq!(rig.means(None).unwrap(), "a@1", "`default`");
    rig.registry.alias("default", "b").unwrap();
    assert_eq!(rig.means(None).unwrap(), "b@1");
    let error = rig.means(Some("c")).unwrap_err();
    assert!(error.contains("there is a, b"), "{error}");
    assert!(matches!(rig.registry.alias("a", "b"), Err(ChangeError::Taken { .. })));
    assert!(matches!(rig.registry.alias("x", "c"), Err(ChangeError::Unknown(_))));
    assert!(matches!(rig.load("default", "1", SWITCH).await, Err(ChangeError::Taken { .. })));
    rig.registry.unload("b", None).unwrap();
    assert!(rig.means(Some("default")).is_err());
    assert!(matches!(rig.registry.roll_back("a").await, Err(ChangeError::NothingBefore { .. })));
}

#[tokio::test]
async fn a_request_finishes_on_the_revision_that_it_began_with() {
    let rig = Rig::start();
    let old = rig.registry.table().find(Some("a")).unwrap();
    let Runner::Generate(engine) = &old.runner else { panic!("it generates") };
    let mut events = engine.entrance.submit(job(&[20], 1, 100), clock::now()).unwrap();
    rig.load("a", "2", SWITCH).await.unwrap();
    let (mut tokens, mut finish) = (0, None);
    while let Some(event) = events.recv().await {
        if let crate::queue::Event::Delta(delta) = event {
            tokens += delta.token_ids.len();
            finish = delta.finish;
        }
    }
    assert_eq!((tokens, finish), (100, Some(nearhop_wire::Finish::Length)));
    let weak = Arc::downgrade(&old);
    drop(old);
    assert!(weak.upgrade().is_none(), "nothing holds the old revision any more");
}

#[tokio::test]
async fn what_separates_a_revision_is_in_no_name() {
    let rig = Rig::start();
    for bad in ["a@2", "a b", "", "x\u{7}"] {
        let refused = rig.registry.alias(bad, "a");
        assert!(matches!(refused, Err(ChangeError::BadName(_))), "{bad}");
    }
    let error = rig.load("b", "1@2", SWITCH).await.err().unwrap().to_string();
    assert!(error.contains("revision: `1@2` is no name"), "{error}");
    let folder = copy(rig.folder.path(), "a", "2");
    let inactive = rig.registry.load(&folder, (false, false), &["x".to_owned()]).await;
    assert!(matches!(inactive, Err(ChangeError::AliasesOfInactive)));
}

#[tokio::test]
async fn one_folder_is_loaded_at_a_time_and_other_changes_do_not_wait() {
    let rig = Rig::start();
    rig.load("a", "2", (true, true)).await.unwrap();
    let held = Arc::clone(&rig.registry.loading).try_lock_owned().unwrap();
    assert!(matches!(rig.load("a", "3", SWITCH).await, Err(ChangeError::Loading)));
    assert_eq!(rig.registry.roll_back("a").await.unwrap(), "1", "it is still loaded");
    rig.registry.alias("x", "a").unwrap();
    assert_eq!(rig.means(Some("x")).unwrap(), "a@1");
    drop(held);
    rig.load("a", "3", SWITCH).await.unwrap();
}

#[tokio::test]
async fn a_load_goes_on_where_whoever_asked_has_gone() {
    let rig = Rig::start();
    let folder = copy(rig.folder.path(), "a", "2");
    let mut load = Box::pin(rig.registry.load(&folder, SWITCH, &[]));
    tokio::select! {
        biased;
        _ = &mut load => panic!("nothing loads without a thread"),
        () = std::future::ready(()) => {}
    }
    drop(load);
    let deadline = clock::now() + Duration::from_secs(30);
    while rig.means(Some("a")).unwrap() != "a@2" {
        assert!(clock::now() < deadline, "it was given up");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn there_is_a_limit_of_loaded_models() {
    let rig = Rig::start();
    for revision in 2..=LOADED_MAX {
        rig.load("a", &revision.to_string(), (false, false)).await.unwrap();
    }
    assert!(matches!(rig.load("b", "1", SWITCH).await, Err(ChangeError::Full)));
}

#[tokio::test]
async fn two_folders_of_one_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let models = ["1", "2"].map(|revision| OriginModel {
        folder: copy(folder.path(), "a", revision),
        aliases: Vec::new(),
    });
    let opener = Arc::new(FakeOpener::new(&Metrics::default()));
    let Err(error) = Registry::start(opener, &models) else { panic!("the second took over") };
    let said = error.to_string();
    assert!(said.contains("a-2 holds `a` too"), "{said}");
}
