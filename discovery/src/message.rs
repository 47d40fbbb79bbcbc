//! One question to one name server, and what its answer says.
//!
//! Absent on purpose: EDNS. What does not fit 512 bytes is asked for again by TCP, which every name
//! server must answer; servers and firewalls that do odd things with EDNS are not. And the
//! additional section: it may have some of a target's addresses and not the others, so that a
//! target's addresses would depend on how long the list is.

use std::time::Duration;

use hickory_proto::{
    op::{Message, MessageType, Query, ResponseCode},
    rr::{DNSClass, Name, RData, RecordType},
};

/// Links of a chain of aliases that are followed.
pub(crate) const ALIASES_MAX: usize = 8;

/// A question that was or will be sent, with an id that nobody can guess.
#[derive(Debug)]
pub(crate) struct Question {
    message: Message,
    query: Query,
}

/// What a message says to a [`Question`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Ask by TCP.
    Truncated,
    /// The server does not know.
    Refused(String),
    /// It does.
    Reply(Reply),
}

/// What is there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Records of the kind that was asked for, at the name or at what it is an alias of.
    Records { data: Vec<RData>, ttl: Duration },
    /// NXDOMAIN, or no record of this kind.
    Nothing { ttl: Option<Duration> },
    /// The name is an alias of one that the server says nothing about: to be asked for.
    Alias { to: Name, ttl: Duration },
}

impl Question {
    pub(crate) fn new(name: Name, kind: RecordType) -> Self {
        let query = Query::query(name, kind);
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(query.clone());
        Self { message, query }
    }

    /// As it is sent; `None` where it cannot be written, as no name can cause.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        self.message.to_vec().ok()
    }

    /// What `bytes` say to this question; `None` where they are no answer to it, as forged ones are.
    pub(crate) fn hear(&self, bytes: &[u8]) -> Option<Heard> {
        let (id, flags) = (bytes.get(..2)?, *bytes.get(2)?);
        if id != self.message.metadata.id.to_be_bytes() || flags & 0x80 == 0 {
            return None;
        }
        // Before anything is read: such a message may end in the middle of a record. Whoever forges
        // it only has us ask by TCP.
        if flags & 0x02 != 0 {
            return Some(Heard::Truncated);
        }
        let answer = Message::from_vec(bytes).ok()?;
        let ours = match answer.queries.as_slice() {
            [query] => *query == self.query,
            // A server that cannot read the question does not repeat it.
            [] => !matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain),
            _ => false,
        };
        let ours = ours
            && answer.message_type == MessageType::Response
            && answer.op_code == self.message.op_code;
        ours.then(|| self.read(&answer))
    }

    fn read(&self, answer: &Message) -> Heard {
        match answer.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            code => return Heard::Refused(code.to_str().to_owned()),
        }
        let soa = answer.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
            _ => None,
        });
        let nothing = Reply::Nothing { ttl: soa.map(seconds) };
        Heard::Reply(match self.follow(answer) {
            Reply::Nothing { .. } => {
                // A server that does not look for others: it names those who would know.
                let referral = answer.response_code == ResponseCode::NoError
                    && soa.is_none()
                    && answer
                        .authorities
                        .iter()
                        .any(|record| record.record_type() == RecordType::NS);
                if referral {
                    return Heard::Refused("to ask another (it does not recurse)".to_owned());
                }
                nothing
            }
            // The code and the SOA are the last link's (RFC 6604, RFC 2308).
            Reply::Alias { .. }
                if answer.response_code == ResponseCode::NXDomain || soa.is_some() =>
            {
                nothing
            }
            reply => reply,
        })
    }

    /// From the name through its aliases to records, in whatever order they are.
    fn follow(&self, answer: &Message) -> Reply {
        let mut name = self.query.name();
        let mut shortest = u32::MAX;
        for link in 0..=ALIASES_MAX {
            let here = || {
                answer
                    .answers
                    .iter()
                    .filter(move |record| record.name == *name && record.dns_class == DNSClass::IN)
            };
            let records =
                || here().filter(|record| record.record_type() == self.query.query_type());
            if let Some(ttl) = records().map(|record| record.ttl).min() {
                let data = records().map(|record| record.data.clone()).collect();
                return Reply::Records { data, ttl: seconds(ttl.min(shortest)) };
            }
            let alias = here().find_map(|record| match &record.data {
                RData::CNAME(to) => Some((&to.0, record.ttl)),
                _ => None,
            });
            match alias {
                Some((to, ttl)) => (name, shortest) = (to, shortest.min(ttl)),
                None if link == 0 => return Reply::Nothing { ttl: None },
                None => break,
            }
        }
        Reply::Alias { to: name.clone(), ttl: seconds(shortest) }
    }
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into())
}

#[cfg(test)]
mod tests;
