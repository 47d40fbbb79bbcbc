use super::*;
use crate::{
    Purge,
    semantic::{
        Age, How, Judged, Secrets, Sharing, Stage,
        testing::{ANNA, BEN, SECOND, UNDO, cache, pose, put, settings},
    },
};

fn filled() -> Cache {
    let cache = cache(settings(Sharing::User));
    for n in 0..600 {
        let question = format!("How do I undo the last {n} commits in git?");
        put(&cache, if n % 2 == 0 { ANNA } else { BEN }, &question, 0.0, &format!("git reset {n}"));
    }
    let posed = put(&cache, ANNA, UNDO, 0.0, "git reset");
    let id = cache.exact(&posed.site, Age::Fresh, SECOND).unwrap().id;
    for _ in 0..300 * 20 {
        let judged = Judged { right: true, equal: true, of: Some(How::Exact) };
        cache.judged((&posed.site, ("t", "m@1")), (id, 1.0), judged, SECOND);
    }
    cache
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("l3.snapshot");
    (folder, path)
}

#[test]
fn a_new_process_goes_on_where_the_old_one_was() {
    let (old, (_folder, path)) = (filled(), file());
    assert_eq!(old.save(&path, SECOND).unwrap(), 601);
    let new = cache(settings(Sharing::User));
    assert_eq!(
        new.load(&path, SECOND).unwrap(),
        Loaded { answers: 601, whole: true, damaged: false }
    );
    assert_eq!(new.held(), old.held());
    let posed = pose(&new, ANNA, UNDO);
    assert_eq!(new.exact(&posed.site, Age::Fresh, SECOND).unwrap().entry.text(), "git reset");
    assert_eq!(
        new.stage(&posed.site, How::Exact),
        Stage::Proven,
        "what a route has shown counts on"
    );
    assert_eq!(new.routes(), old.routes());
    assert_eq!(
        std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
        1,
        "nothing is left beside"
    );
}

#[test]
fn nothing_in_it_can_be_read_and_another_secret_opens_nothing() {
    let (old, (_folder, path)) = (filled(), file());
    old.save(&path, SECOND).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for word in [&b"reset"[..], b"commits", b"anna", b"m@1"] {
        assert!(!bytes.windows(word.len()).any(|found| found == word));
    }
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let settings = settings(Sharing::User);
    let other = Cache::new(settings, Secrets::of(b"other"), std::sync::Arc::clone(&old.validity));
    let loaded = other.load(&path, SECOND).unwrap();
    assert_eq!(loaded, Loaded { answers: 0, whole: false, damaged: true });
}

#[test]
fn a_damaged_file_is_a_smaller_one() {
    let (old, (_folder, path)) = (filled(), file());
    old.save(&path, SECOND).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let load = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        cache(settings(Sharing::User)).load(&path, SECOND).unwrap()
    };
    for cut in [0, 10, 30, 40, bytes.len() / 2, bytes.len() - 1] {
        let loaded = load(&bytes[..cut]);
        assert!(!loaded.whole && loaded.damaged && loaded.answers < 602, "{cut}: {loaded:?}");
    }
    let mut changed = bytes.clone();
    let at = bytes.len() / 2;
    changed[at] ^= 1;
    let loaded = load(&changed);
    assert!(loaded.damaged && (400..601).contains(&loaded.answers), "one piece: {loaded:?}");
    let mut long = bytes.clone();
    long[36..40].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(load(&long), Loaded { answers: 0, whole: false, damaged: true });
    let missing = cache(settings(Sharing::User)).load(&path.with_extension("none"), SECOND);
    assert_eq!(missing.unwrap(), Loaded { answers: 0, whole: false, damaged: false });
}

#[test]
fn what_was_purged_is_not_written() {
    let (old, (_folder, path)) = (filled(), file());
    old.validity.purge(Purge::All, SECOND);
    assert_eq!(old.save(&path, SECOND).unwrap(), 0, "though nothing has swept it yet");
}

#[test]
fn what_was_purged_meanwhile_stays_away() {
    let (old, (_folder, path)) = (filled(), file());
    old.save(&path, SECOND).unwrap();
    let new = cache(settings(Sharing::User));
    new.validity.purge(Purge::All, SECOND);
    assert_eq!(
        new.load(&path, SECOND).unwrap(),
        Loaded { answers: 0, whole: true, damaged: false }
    );
}
