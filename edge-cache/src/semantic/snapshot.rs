//! What the semantic tier holds, in a file: it outlives the process. Everything in it is sealed with
//! the operator's secret.
//!
//! A file is a head and sealed pieces, each with its length before it; a piece opens at its own
//! place in its own file only. A piece that does not open is left out, and so is all behind a cut: a
//! damaged file is a smaller one.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    cache::Cache,
    routes::{Route, RouteId},
    store::Kept,
    vector::Vector,
};
use crate::{tags::Generation, validity::Standing};

const MAGIC: &[u8; 20] = b"nearhop semantic 01\n";
/// Answers that are copied at once, and bytes of a piece that is long enough.
const AT_ONCE: usize = 64;
const PIECE_BYTES: usize = 16 << 10;
/// No piece is longer: an answer has at most four mebibytes, and its piece that one alone.
const PIECE_BYTES_MAX: u32 = 16 << 20;

#[derive(Serialize, Deserialize)]
enum Piece {
    /// The first: how far the log of purges had come, and what routes have shown.
    Head { generation: Generation, routes: Vec<(RouteId, Route)> },
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
    /// Whether all of it was there and opened.
    pub whole: bool,
    /// Whether there was something that did not.
    pub damaged: bool,
}

impl Cache {
    /// Writes all that is held to `path`, in one step; how many answers.
    ///
    /// # Errors
    /// Those of the file system; what was there before stays.
    pub fn save(&self, path: &Path, now: Duration) -> io::Result<usize> {
        let beside = beside(path);
        let written = self.write(&beside, now).and_then(|answers| {
            std::fs::rename(&beside, path)?;
            Ok(answers)
        });
        if written.is_err() {
            // A full disk is no better for it.
            let _ = std::fs::remove_file(&beside);
        }
        written
    }

    fn write(&self, path: &Path, now: Duration) -> io::Result<usize> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let mut file = Sealed { file: BufWriter::new(file), cache: self, salt: salt()?, at: 0 };
        file.file.write_all(MAGIC)?;
        file.file.write_all(&file.salt)?;
        let routes = self.routes.all();
        file.put(&Piece::Head { generation: self.validity.generation(), routes })?;
        // Some at a time: requests must wait neither for a disk nor for a copy of everything.
        let ids = self.store().ids();
        let (mut answers, mut piece, mut bytes) = (0, Vec::new(), 0);
        for ids in ids.chunks(AT_ONCE) {
            let copies = self.store().copies(ids);
            let stays = |(kept, _): &(Kept, Vector)| !self.is_gone(kept, now);
            for (kept, vector) in copies.into_iter().filter(stays) {
                bytes += kept.sealed.len();
                piece.push((kept, vector));
                answers += 1;
                if bytes >= PIECE_BYTES {
                    file.put(&Piece::Answers(std::mem::take(&mut piece)))?;
                    bytes = 0;
                }
            }
        }
        file.put(&Piece::Answers(piece))?;
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
        let mut loaded = Loaded { answers: 0, whole: false, damaged: false };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(loaded),
            Err(error) => return Err(error),
        };
        let mut file = BufReader::new(file);
        let (mut magic, mut salt) = ([0; MAGIC.len()], [0; SALT]);
        let begun = file.read_exact(&mut magic).and_then(|()| file.read_exact(&mut salt));
        if begun.is_err() || magic != *MAGIC {
            loaded.damaged = true;
            return Ok(loaded);
        }
        for at in 0.. {
            match self.read_piece(&mut file, &salt, at) {
                Read::Piece(Piece::Head { generation, routes }) => {
                    self.validity.reached(generation);
                    self.routes.take(routes);
                }
                Read::Piece(Piece::Answers(answers)) => {
                    let mut store = self.store();
                    for (kept, vector) in answers {
                        if !self.is_gone(&kept, now) && store.put(kept, &vector).is_ok() {
                            loaded.answers += 1;
                        }
                    }
                }
                Read::Piece(Piece::End(_)) => {
                    loaded.whole = !loaded.damaged;
                    return Ok(loaded);
                }
                Read::Damaged => loaded.damaged = true,
                Read::Nothing => {
                    loaded.damaged = true;
                    return Ok(loaded);
                }
            }
        }
        Ok(loaded)
    }

    fn is_gone(&self, kept: &Kept, now: Duration) -> bool {
        self.validity.standing(&kept.born, self.settings.ttl, now) == Standing::Gone
    }

    fn read_piece(&self, file: &mut impl io::Read, salt: &[u8], at: u64) -> Read {
        let mut length = [0; 4];
        if file.read_exact(&mut length).is_err() {
            return Read::Nothing;
        }
        let length = u32::from_le_bytes(length);
        let mut sealed = Vec::new();
        let read = file.take(u64::from(length.min(PIECE_BYTES_MAX))).read_to_end(&mut sealed);
        if length > PIECE_BYTES_MAX || read.is_err() || sealed.len() < length as usize {
            return Read::Nothing;
        }
        let plain = self.secrets.snapshot.open(&sealed, &about(salt, at));
        let piece = plain.and_then(|plain| postcard::from_bytes(&plain).ok());
        piece.map_or(Read::Damaged, Read::Piece)
    }
}

/// What came of a file.
enum Read {
    Piece(Piece),
    /// Something that does not open.
    Damaged,
    /// No more pieces.
    Nothing,
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
