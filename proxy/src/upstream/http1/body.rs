//! Where the body of an answer ends: by its length, by its last chunk, or with the connection. Pure.

use super::Broken;

/// A body that is being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// So much of it is still to come.
    Length(u64),
    /// RFC 9112, section 7.1.
    Chunked(Chunked),
    /// It ends when the connection does.
    UntilClose,
    Ended,
}

/// Where in a chunked body one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunked {
    at: At,
    /// Bytes of framing since the last of text: extensions and trailers end some time.
    framing: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In a chunk's size, of which so many digits came.
    Size { size: u64, digits: u8 },
    /// In what may follow a size; its chunk has so many bytes.
    Extension { size: u64 },
    /// Before the end of a line that a carriage return has ended.
    SizeEnd { size: u64 },
    /// In a chunk, of which so much is still to come.
    Data { left: u64 },
    /// Behind a chunk, and behind the carriage return there.
    DataEnd { returned: bool },
    /// In a line of the trailer; whether there is anything in it, and whether it was ended.
    Trailer { empty: bool, returned: bool },
}

/// More framing without any text is an attack, or an error.
const FRAMING_BYTES_MAX: usize = 16 << 10;
/// Sixteen digits are more than a body can have.
const DIGITS_MAX: u8 = 15;

impl Body {
    pub(super) const fn of_length(length: u64) -> Self {
        if length == 0 { Self::Ended } else { Self::Length(length) }
    }

    pub(super) const fn chunked() -> Self {
        Self::Chunked(Chunked { at: At::Size { size: 0, digits: 0 }, framing: 0 })
    }

    pub(super) const fn until_close() -> Self {
        Self::UntilClose
    }

    pub(super) const fn ends_by_itself(&self) -> bool {
        !matches!(self, Self::UntilClose)
    }

    pub(super) const fn has_ended(&self) -> bool {
        matches!(self, Self::Ended)
    }

    /// The connection ended.
    pub(super) fn closed(&mut self) -> Result<(), Broken> {
        match self {
            Self::UntilClose | Self::Ended => {
                *self = Self::Ended;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(Broken),
        }
    }

    /// Gives what of `bytes` is text to `take`; how much of them belongs to this body.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> Result<usize, Broken> {
        match self {
            Self::Ended => Ok(0),
            Self::UntilClose => {
                take(bytes);
                Ok(bytes.len())
            }
            Self::Length(left) => {
                let text = up_to(bytes, *left);
                take(text);
                *self = Self::of_length(*left - text.len() as u64);
                Ok(text.len())
            }
            Self::Chunked(chunked) => {
                let (read, ended) = chunked.read(bytes, take)?;
                if ended {
                    *self = Self::Ended;
                }
                Ok(read)
            }
        }
    }
}

fn up_to(bytes: &[u8], limit: u64) -> &[u8] {
    &bytes[..usize::try_from(limit).unwrap_or(usize::MAX).min(bytes.len())]
}

impl Chunked {
    /// How much of `bytes` belongs to the body, and whether it ends there.
    fn read(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8])) -> Result<(usize, bool), Broken> {
        let mut read = 0;
        while let Some(byte) = bytes.get(read) {
            if let At::Data { left } = self.at {
                let text = up_to(&bytes[read..], left);
                take(text);
                read += text.len();
                let left = left - text.len() as u64;
                self.at =
                    if left > 0 { At::Data { left } } else { At::DataEnd { returned: false } };
                self.framing = 0;
                continue;
            }
            read += 1;
            self.framing += 1;
            if self.framing > FRAMING_BYTES_MAX {
                return Err(Broken);
            }
            match self.at.after(*byte)? {
                Some(at) => self.at = at,
                None => return Ok((read, true)),
            }
        }
        Ok((read, false))
    }
}

impl At {
    /// Where one is after a byte of framing; `None` behind the whole body.
    fn after(self, byte: u8) -> Result<Option<Self>, Broken> {
        let at = match (self, byte) {
            (Self::Size { size, digits: 1.. }, b'\r') => Self::SizeEnd { size },
            (Self::Size { size, digits: 1.. }, b';' | b' ' | b'\t') => Self::Extension { size },
            (Self::Size { size, digits }, digit) if digits < DIGITS_MAX => {
                let value = char::from(digit).to_digit(16).ok_or(Broken)?;
                Self::Size { size: size << 4 | u64::from(value), digits: digits + 1 }
            }
            (Self::Extension { size }, b'\r') => Self::SizeEnd { size },
            (Self::Extension { size }, other) if other != b'\n' => Self::Extension { size },
            (Self::SizeEnd { size: 0 }, b'\n') => Self::Trailer { empty: true, returned: false },
            (Self::SizeEnd { size }, b'\n') => Self::Data { left: size },
            (Self::DataEnd { returned: false }, b'\r') => Self::DataEnd { returned: true },
            (Self::DataEnd { returned: true }, b'\n') => Self::Size { size: 0, digits: 0 },
            (Self::Trailer { empty: true, returned: true }, b'\n') => return Ok(None),
            (Self::Trailer { empty: false, returned: true }, b'\n') => {
                Self::Trailer { empty: true, returned: false }
            }
            (Self::Trailer { empty, returned: false }, b'\r') => {
                Self::Trailer { empty, returned: true }
            }
            (Self::Trailer { returned: false, .. }, other) if other != b'\n' => {
                Self::Trailer { empty: false, returned: false }
            }
            _ => return Err(Broken),
        };
        Ok(Some(at))
    }
}
