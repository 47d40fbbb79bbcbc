//! The zone: what is in it beside the regions.

use std::collections::HashSet;

use hickory_proto::rr::{
    LowerName, Name, RData, Record,
    rdata::{NS, SOA},
};
use nearhop_conf::Dns;

/// Why a configuration makes no zone.
#[derive(Debug, thiserror::Error)]
#[error("{field}: `{name}` cannot be used: {reason}")]
pub struct ZoneError {
    field: &'static str,
    name: String,
    reason: String,
}

impl ZoneError {
    pub(super) fn new(field: &'static str, name: &str, reason: &impl ToString) -> Self {
        Self { field, name: name.to_owned(), reason: reason.to_string() }
    }
}

/// The zone, ready to answer with.
#[derive(Debug, Clone)]
pub struct Zone {
    pub(super) origin: LowerName,
    pub(super) soa: Record,
    pub(super) name_servers: Vec<Record>,
    /// Names that are answered with regions.
    services: HashSet<LowerName>,
    /// The first of them.
    first: LowerName,
    /// Names that only stand between those and the origin, and have nothing (RFC 8020).
    between: HashSet<LowerName>,
    pub(super) ttl: u32,
}

/// How long what is not a region may be kept: it changes with the configuration.
pub(super) const APEX_TTL: u32 = 300;

impl Zone {
    /// # Errors
    /// [`ZoneError`].
    pub fn new(dns: &Dns, serial: u32) -> Result<Self, ZoneError> {
        let origin = parse("dns.zone", &dns.zone)?;
        let seconds = |time: std::time::Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let negative = seconds(dns.negative_ttl);
        let servers = dns.name_servers.iter().map(|name| parse("dns.name_servers", name));
        let servers: Vec<Name> = servers.collect::<Result<_, _>>()?;
        let primary = servers.first().cloned().unwrap_or_else(|| origin.clone());
        let contact = parse("dns.contact", &dns.contact)?;
        let soa = SOA::new(primary, contact, serial, 3600, 600, 604_800, negative);
        // RFC 2308, section 5: a negative answer is kept no longer than either says.
        let soa = Record::from_rdata(origin.clone(), APEX_TTL.min(negative), RData::SOA(soa));
        let record = |name| Record::from_rdata(origin.clone(), APEX_TTL, RData::NS(NS(name)));
        let name_servers = servers.into_iter().map(record).collect();
        let mut first = None;
        let mut services = HashSet::new();
        let mut between = HashSet::new();
        for name in &dns.services {
            let full = match name.as_str() {
                "@" => origin.clone(),
                name => {
                    let relative = parse("dns.services", name.trim_end_matches('.'))?;
                    if name.ends_with('.') && !origin.zone_of(&relative) {
                        let reason =
                            format!("it is not in {origin}; write it without the last dot");
                        let name = name.to_owned();
                        return Err(ZoneError { field: "dns.services", name, reason });
                    }
                    match origin.zone_of(&relative) {
                        true => relative,
                        false => append(&relative, &origin, name)?,
                    }
                }
            };
            let mut above = full.base_name();
            while origin.zone_of(&above) && above != origin {
                between.insert(LowerName::new(&above));
                above = above.base_name();
            }
            first.get_or_insert_with(|| LowerName::new(&full));
            services.insert(LowerName::new(&full));
        }
        let origin = LowerName::new(&origin);
        let first = first.unwrap_or_else(|| origin.clone());
        let ttl = seconds(dns.ttl);
        Ok(Self { origin, soa, name_servers, services, first, between, ttl })
    }

    /// A service's name as decisions have it: the one asked for, whole or as it stands before the
    /// zone, else the first.
    ///
    /// # Errors
    /// A [`ZoneError`] where there is no such service.
    pub fn service(&self, asked: Option<&str>) -> Result<String, ZoneError> {
        let Some(asked) = asked else { return Ok(self.first.to_string()) };
        let name = parse("name", asked)?;
        let below = append(&name, &Name::from(&self.origin), asked).ok();
        let found = [Some(name), below].into_iter().flatten().map(|name| LowerName::new(&name));
        let found = found.into_iter().find(|name| self.is_service(name));
        found.map(|name| name.to_string()).ok_or_else(|| {
            let mut known: Vec<String> = self.services().collect();
            known.sort();
            let reason = format!("it is none of the services, {}", known.join(", "));
            ZoneError { field: "name", name: asked.to_owned(), reason }
        })
    }

    /// Names that are answered with a region, as decisions have them.
    pub(super) fn services(&self) -> impl Iterator<Item = String> {
        self.services.iter().map(ToString::to_string)
    }

    /// Whether a name is answered with a region.
    pub(super) fn is_service(&self, name: &LowerName) -> bool {
        self.services.contains(name)
    }

    /// All names that there are; one may come twice.
    pub(super) fn names(&self) -> impl Iterator<Item = &LowerName> {
        std::iter::once(&self.origin).chain(&self.services).chain(&self.between)
    }

    /// Whether there is such a name, with or without anything.
    pub(super) fn exists(&self, name: &LowerName) -> bool {
        *name == self.origin || self.is_service(name) || self.between.contains(name)
    }
}

pub(super) fn parse(field: &'static str, text: &str) -> Result<Name, ZoneError> {
    let mut name = Name::from_ascii(text).map_err(|error| ZoneError::new(field, text, &error))?;
    name.set_fqdn(true);
    Ok(name)
}

fn append(relative: &Name, origin: &Name, text: &str) -> Result<Name, ZoneError> {
    let mut relative = relative.clone();
    relative.set_fqdn(false);
    relative.append_domain(origin).map_err(|error| ZoneError::new("dns.services", text, &error))
}
