//! What is added to an answer for those who ask for proofs (DO): signatures, and of what is not
//! there an NSEC.

use hickory_proto::{
    op::{Query as Question, ResponseCode},
    rr::{LowerName, Record, RecordType},
};

use super::{Found, Transport};
use crate::dns::dnssec::{Asker, Signer};

/// Who asks for proofs, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proof<'a> {
    pub(super) signer: &'a Signer,
    pub(super) transport: Transport,
    pub(super) asker: Asker,
    /// Whether it takes NXDOMAIN with a compact denial (RFC 9824, section 5.1).
    pub(super) compact_ok: bool,
    pub(super) now: u32,
}

/// "Other", and why (RFC 8914).
const BUSY: (u16, &str) = (0, "too many denials to sign");

impl Proof<'_> {
    /// What was found, with proofs.
    pub(super) fn of(&self, found: Found, question: &Question) -> Found {
        match found.code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            _ => return found,
        }
        self.proven(found, question).unwrap_or_else(|| self.too_many())
    }

    fn proven(&self, mut found: Found, question: &Question) -> Option<Found> {
        let sign = |records: &[Record]| self.signer.signatures(records, self.now, self.asker);
        if !found.answers.is_empty() {
            for record in &mut found.answers {
                record.name.clone_from(question.name());
            }
            let signatures = sign(&found.answers)?;
            found.answers.extend(signatures);
            return Some(found);
        }
        let name = LowerName::new(question.name());
        let asked = question.query_type();
        let (mut nsec, mut signatures) = match found.code {
            ResponseCode::NXDomain => {
                let (nsec, signature) = self.signer.no_name(&name, self.now, self.asker)?;
                (nsec, vec![signature])
            }
            _ => {
                let nsec = self.signer.no_data(&name, asked)?;
                let signatures = sign(std::slice::from_ref(&nsec))?;
                (nsec, signatures)
            }
        };
        for record in signatures.iter_mut().chain([&mut nsec]) {
            record.name.clone_from(question.name());
        }
        match (found.code, asked) {
            (ResponseCode::NXDomain, _) if !self.compact_ok => found.code = ResponseCode::NoError,
            // The name has them. Of all its signatures that one is enough, as one is for ANY.
            (ResponseCode::NoError, RecordType::NSEC | RecordType::RRSIG) => {
                let nsec = (asked == RecordType::NSEC).then_some(nsec);
                let answers = nsec.into_iter().chain(signatures).collect();
                return Some(Found { answers, ..Found::default() });
            }
            _ => {}
        }
        let soa = sign(&found.authorities)?;
        found.authorities.extend(soa);
        found.authorities.push(nsec);
        found.authorities.extend(signatures);
        Some(found)
    }

    /// Who is really there asks again by TCP; who did is told why.
    fn too_many(&self) -> Found {
        match self.transport {
            Transport::Udp => Found { truncated: true, ..Found::default() },
            Transport::Tcp => {
                let code = ResponseCode::ServFail;
                Found { code, extended: Some(BUSY), ..Found::default() }
            }
        }
    }
}
