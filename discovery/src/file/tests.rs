use std::fs;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::testing::soon;

const A: &str = "- {name: a, address: '192.0.2.1:8091'}\n";
const B: &str = "- {name: b, address: '192.0.2.2:8091'}\n";

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("pods.yaml")
    }

    fn replace(&self, text: &str) {
        let next = self.0.path().join("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, self.path()).unwrap();
    }
}

fn look(file: &mut File) -> Option<Vec<String>> {
    file.look().map(|pods| pods.into_iter().map(|pod| pod.name).collect())
}

fn names(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|&name| name.to_owned()).collect())
}

#[test]
fn a_file_is_told_when_its_pods_are_others() {
    let folder = Folder::new();
    folder.replace(A);
    let mut file = File::new(folder.path());
    assert_eq!(look(&mut file), names(&["a"]));
    assert_eq!(look(&mut file), None);
    folder.replace(&format!("# the same\n{A}"));
    assert_eq!(look(&mut file), None);
    folder.replace(&format!("{B}{A}"));
    assert_eq!(look(&mut file), names(&["b", "a"]), "in the file's order");
    folder.replace("[]");
    assert_eq!(look(&mut file), names(&[]));
}

#[test]
fn a_broken_file_leaves_the_pods_and_its_mistakes_are_told_once() {
    let folder = Folder::new();
    folder.replace(A);
    let mut file = File::new(folder.path());
    look(&mut file).unwrap();
    for broken in ["", "- {name: a}", "- {name: [", "pods: []", &"#".repeat(1 << 21)] {
        folder.replace(broken);
        assert_eq!(look(&mut file), None);
        let trouble = file.trouble.clone().unwrap();
        assert_eq!(look(&mut file), None);
        assert_eq!(file.trouble, Some(trouble));
    }
    fs::remove_file(folder.path()).unwrap();
    assert_eq!(look(&mut file), None);
    folder.replace(A);
    assert_eq!(look(&mut file), None, "they are the same");
    assert_eq!(file.trouble, None);
    folder.replace(B);
    assert_eq!(look(&mut file), names(&["b"]));
}

#[test]
fn every_mistake_is_in_what_is_logged() {
    let folder = Folder::new();
    folder.replace("- {name: a, address: here}\n- {name: a, address: '192.0.2.1:1', port: 1}\n");
    let mut file = File::new(folder.path());
    assert_eq!(look(&mut file), None);
    let trouble = file.trouble.unwrap();
    assert!(trouble.contains("3 mistakes"), "{trouble}");
}

#[test]
fn a_file_behind_links_is_watched_where_they_end() {
    let folder = Folder::new();
    let at = |name: &str| folder.0.path().join(name);
    for (version, text) in [("one", A), ("two", B)] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("pods.yaml"), text).unwrap();
    }
    std::os::unix::fs::symlink("one", at("now")).unwrap();
    std::os::unix::fs::symlink("now/pods.yaml", folder.path()).unwrap();
    let mut file = File::new(folder.path());
    assert_eq!(look(&mut file), names(&["a"]));
    std::os::unix::fs::symlink("two", at("later")).unwrap();
    fs::rename(at("later"), at("now")).unwrap();
    assert_eq!(look(&mut file), names(&["b"]));
}

#[tokio::test]
async fn a_file_that_is_not_there_yet_is_waited_for() {
    let folder = Folder::new();
    let mut file = File::new(folder.path());
    assert!(timeout(LOOK, file.next()).await.is_err());
    folder.replace(A);
    assert_eq!(soon(file.next()).await.len(), 1);
    assert!(timeout(LOOK, file.next()).await.is_err());
}
