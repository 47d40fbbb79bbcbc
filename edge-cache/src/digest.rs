//! Digests of several parts, each written with its length before it, so that no two different
//! lists look alike (`"ab", "c"` is not `"a", "bc"`). SHA-256: the same in every process.

use sha2::{Digest as _, Sha256};

/// 128 bits of SHA-256. Whoever would want two texts with one of them has to be of one tenant,
/// whose name stands in every place that an entry is found at.
pub(crate) type Short = [u8; 16];

pub(crate) struct Digest(Sha256);

impl Digest {
    pub(crate) fn new(purpose: &str) -> Self {
        let mut digest = Self(Sha256::new());
        digest.bytes(purpose.as_bytes());
        digest
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(crate) fn optional(&mut self, number: Option<u64>) {
        self.number(u64::from(number.is_some()));
        self.number(number.unwrap_or(0));
    }

    pub(crate) fn list<'a>(&mut self, items: impl ExactSizeIterator<Item = &'a str>) {
        self.number(items.len() as u64);
        items.for_each(|item| self.text(item));
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }

    /// The first 64 bits.
    pub(crate) fn first_u64(self) -> u64 {
        let digest = self.finish();
        u64::from_le_bytes(*digest.first_chunk().expect("a digest has 32 bytes"))
    }

    pub(crate) fn short(self) -> Short {
        let mut short = Short::default();
        short.copy_from_slice(&self.finish()[..16]);
        short
    }
}

/// The digest of one text that comes in pieces: where they were cut does not matter.
pub(crate) fn of_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Short {
    let mut whole = Sha256::new();
    pieces.into_iter().for_each(|piece| whole.update(piece));
    Digest(whole).short()
}
