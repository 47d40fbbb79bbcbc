//! The OPT record of a query as it came, for what a decoder forgives or does not say: options cut
//! off, a client network with an address too long, and that there was one at all in what cannot be
//! decoded. Pure.

/// A query's OPT record (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opt<'a> {
    pub(super) version: u8,
    pub(super) dnssec_ok: bool,
    /// `None` where the message ends before they do.
    options: Option<&'a [u8]>,
}

const OPT: u16 = 41;
const SUBNET: u16 = 8;
/// Family, source and scope of a client network.
const SUBNET_HEAD: usize = 4;

impl<'a> Opt<'a> {
    /// The first one among a message's additional records.
    pub(super) fn find(message: &'a [u8]) -> Option<Self> {
        let mut rest = Rest(message);
        rest.take(4)?;
        let [questions, answers, authorities, additional] =
            [rest.number()?, rest.number()?, rest.number()?, rest.number()?];
        for _ in 0..questions {
            rest.name()?;
            rest.take(4)?;
        }
        for _ in 0..u32::from(answers) + u32::from(authorities) {
            rest.name()?;
            rest.take(8)?;
            rest.counted()?;
        }
        for _ in 0..additional {
            rest.name()?;
            let kind = rest.number()?;
            let _class = rest.take(2)?;
            let ttl = rest.take(4)?;
            let data = rest.counted();
            if kind == OPT {
                let (version, dnssec_ok) = (ttl[1], ttl[2] & 0x80 != 0);
                return Some(Self { version, dnssec_ok, options: data });
            }
            data?;
        }
        None
    }

    /// Whether its options are whole and a client network's address is as long as it must be
    /// (RFC 7871, section 6). Of another version nothing is known.
    pub(super) fn is_well_formed(&self) -> bool {
        if self.version != 0 {
            return true;
        }
        let Some(options) = self.options else { return false };
        let mut rest = Rest(options);
        while !rest.0.is_empty() {
            let Some((code, data)) = rest.number().zip(rest.counted()) else { return false };
            if code == SUBNET {
                let source = data.get(2).copied().unwrap_or(0);
                if data.len() != SUBNET_HEAD + usize::from(source).div_ceil(8) {
                    return false;
                }
            }
        }
        true
    }
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        let taken = self.take(2)?;
        Some(u16::from_be_bytes([taken[0], taken[1]]))
    }

    /// What has its length before it.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let count = self.number()?;
        self.take(usize::from(count))
    }

    /// A name is over at its root, or where it goes on elsewhere.
    fn name(&mut self) -> Option<()> {
        loop {
            let length = self.take(1)?[0];
            match length {
                0 => return Some(()),
                0xc0.. => return self.take(1).map(drop),
                _ => self.take(usize::from(length)).map(drop)?,
            }
        }
    }
}
