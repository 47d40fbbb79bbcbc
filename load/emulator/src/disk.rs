//! A small disk of its own for a site's files, so that "no space left" is the real thing: a tmpfs, by
//! the programs `mount` and `umount`. Whatever runs in a site that was started after it sees it.

use std::{
    fs::File,
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{error::Error, process};

/// What fills it.
const FILLER: &str = "filler";
/// The device's name in the list of mounts, with the process's id behind it.
const SOURCE: &str = "nearhop-disk-";

/// A file system of a few megabytes. It goes with this value; open files of processes that still run keep
/// theirs.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Makes one at `path`, a folder that is made too. What killed processes left mounted is removed first.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] where this user may not mount, else what went wrong.
    pub fn mount(path: &Path, bytes: u64) -> Result<Self, Error> {
        sweep();
        std::fs::create_dir_all(path).map_err(|source| Error::System {
            what: "no folder for a disk could be made",
            source,
        })?;
        let source = format!("{SOURCE}{}", std::process::id());
        let options = format!("size={bytes},mode=0700");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, &source]).arg(path);
        let output = mount
            .output()
            .map_err(|error| Error::Missing(format!("the program `mount` ({error})")))?;
        if output.status.success() {
            return Ok(Self(path.to_owned()));
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::Missing(format!("the right to mount: {said}")))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes until there is no space left.
    ///
    /// # Errors
    ///
    /// Anything but that there is none.
    pub fn fill(&self) -> io::Result<()> {
        let mut filler = File::options().append(true).create(true).open(self.filler())?;
        loop {
            match filler.write_all(&[0; 64 << 10]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes what filled it.
    ///
    /// # Errors
    ///
    /// The system's. That it was never filled is none.
    pub fn clear(&self) -> io::Result<()> {
        // Emptied first: a process that is just being started may hold it open, as all that this one
        // has, and what is removed takes its space until then.
        let emptied = File::options().write(true).truncate(true).open(self.filler());
        match emptied.and_then(|_empty| std::fs::remove_file(self.filler())) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.join(FILLER)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Somebody may have done so; the next start tries again in any case.
        let _ = unmount(&self.0);
    }
}

/// Now, for who looks; later, for who still has files open there.
fn unmount(path: &Path) -> io::Result<()> {
    Command::new("umount").arg("--lazy").arg(path).output().map(drop)
}

/// Removes disks of processes that are no more.
fn sweep() {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for (owner, path) in mounts.lines().filter_map(disk_of) {
        if !process::exists(owner) {
            // Two starts may see the same one.
            let _ = unmount(Path::new(path));
        }
    }
}

/// Of a line in the list of mounts: whose disk it is, and where; nothing if it is none.
fn disk_of(line: &str) -> Option<(u32, &str)> {
    let mut words = line.split(' ');
    let owner = words.next()?.strip_prefix(SOURCE)?.parse().ok()?;
    Some((owner, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_says_whose_it_is() {
        for (line, expected) in [
            ("nearhop-disk-17 /tmp/a tmpfs rw 0 0", Some((17, "/tmp/a"))),
            ("tmpfs /tmp tmpfs rw 0 0", None),
            ("nearhop-disk- /tmp/a tmpfs rw 0 0", None),
            ("nearhop-disk-17", None),
        ] {
            assert_eq!(disk_of(line), expected, "{line}");
        }
    }
}
