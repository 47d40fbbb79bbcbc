//! What the semantic tier holds, in a file: it outlives the process. Everything in it is sealed with
//! the operator's secret.
//!
//! A file is a head and sealed pieces, each with its length before it; a piece opens at its own
//! place in its own file only. What is cut off, or does not open, is left out: a damaged file is a
//! smaller one.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    cache::{Cache, Route},
    store::Kept,
    vector::Vector,
};
use crate::tags::Generation;

const MAGIC: &[u8; 20] = b"nearhop semantic 01\n";
/// Answers of one piece.
const PIECE: usize = 256;
/// No piece is longer: answers are at most some mebibytes, and few are.
const PIECE_BYTES_MAX: u32 = 64 << 20;

#[derive(Serialize, Deserialize)]
enum Piece {
    /// The first: how far the log of purges had come, and what routes have shown.
    Head { generation: Generation, routes: Vec<((u64, u64), Route)> },
    /// Answers, the oldest first.
    Answers(Vec<(Kept, Vector)>),
    /// The last: so many answers there are.
    End(u64),
}

/// What became of a file that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// Answers that were taken.
    pub answers: usize,
    /// Whether its end was there.
    pub whole: bool,
}

impl Cache {
    /// Writes all that is held to `path`, in one step; how many answers.
    ///
    /// # Errors
    /// Those of the file system; what was there before stays.
    pub fn save(&self, path: &Path) -> io::Result<usize> {
        let beside = beside(path);
        let written = self.write(&beside).and_then(|answers| {
            std::fs::rename(&beside, path)?;
            Ok(answers)
        });
        if written.is_err() {
            // A full disk is no better for it.
            let _ = std::fs::remove_file(&beside);
        }
        written
    }

    fn write(&self, path: &Path) -> io::Result<usize> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let mut file = Sealed { file: BufWriter::new(file), cache: self, salt: salt()?, at: 0 };
        file.file.write_all(MAGIC)?;
        file.file.write_all(&file.salt)?;
        let routes = self.trials().iter().map(|(key, route)| (*key, route.clone())).collect();
        file.put(&Piece::Head { generation: self.validity.generation(), routes })?;
        // Piece by piece: requests must wait neither for a disk nor for a copy of everything.
        let ids = self.store().ids();
        let mut answers = 0;
        for ids in ids.chunks(PIECE) {
            let some = self.store().copies(ids);
            answers += some.len();
            file.put(&Piece::Answers(some))?;
        }
        file.put(&Piece::End(answers as u64))?;
        let file = file.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(answers)
    }

    /// Takes what a file holds; nothing where there is none, or another secret sealed it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn load(&self, path: &Path, now: Duration) -> io::Result<Loaded> {
        let mut loaded = Loaded { answers: 0, whole: false };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(loaded),
            Err(error) => return Err(error),
        };
        let mut file = BufReader::new(file);
        let (mut magic, mut salt) = ([0; MAGIC.len()], [0; SALT]);
        if file.read_exact(&mut magic).is_err() || magic != *MAGIC {
            return Ok(loaded);
        }
        if file.read_exact(&mut salt).is_err() {
            return Ok(loaded);
        }
        for at in 0.. {
            match self.read_piece(&mut file, &salt, at) {
                Some(Piece::Head { generation, routes }) => {
                    self.validity.reached(generation);
                    self.trials().extend(routes);
                }
                Some(Piece::Answers(answers)) => {
                    let mut store = self.store();
                    for (kept, vector) in answers {
                        store.reserve_classes(kept.class);
                        let gone = self.validity.standing(&kept.born, self.settings.ttl, now)
                            == crate::Standing::Gone;
                        if !gone && store.put(kept, &vector).is_ok() {
                            loaded.answers += 1;
                        }
                    }
                }
                Some(Piece::End(_)) => {
                    loaded.whole = true;
                    return Ok(loaded);
                }
                None => return Ok(loaded),
            }
        }
        Ok(loaded)
    }

    fn read_piece(&self, file: &mut impl io::Read, salt: &[u8], at: u64) -> Option<Piece> {
        let mut length = [0; 4];
        file.read_exact(&mut length).ok()?;
        let length = u32::from_le_bytes(length);
        if length > PIECE_BYTES_MAX {
            return None;
        }
        let mut sealed = Vec::new();
        file.take(u64::from(length)).read_to_end(&mut sealed).ok()?;
        let plain = self.secrets.snapshot.open(&sealed, &about(salt, at))?;
        postcard::from_bytes(&plain).ok()
    }
}

const SALT: usize = 16;

fn salt() -> io::Result<[u8; SALT]> {
    let mut salt = [0; SALT];
    getrandom::fill(&mut salt).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(salt)
}

fn about(salt: &[u8], at: u64) -> Vec<u8> {
    [salt, &at.to_le_bytes()].concat()
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

struct Sealed<'a> {
    file: BufWriter<File>,
    cache: &'a Cache,
    salt: [u8; SALT],
    at: u64,
}

impl Sealed<'_> {
    fn put(&mut self, piece: &Piece) -> io::Result<()> {
        let plain = postcard::to_allocvec(piece).map_err(io::Error::other)?;
        let sealed = self.cache.secrets.snapshot.seal(&plain, &about(&self.salt, self.at));
        let sealed = sealed.ok_or_else(|| io::Error::other("a piece cannot be sealed"))?;
        let length = u32::try_from(sealed.len()).map_err(io::Error::other)?;
        self.at += 1;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(&sealed)
    }
}

#[cfg(test)]
mod tests;
