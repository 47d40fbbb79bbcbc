//! What happened, for people: kept by the edge, and sent on where somebody listens.

use std::path::PathBuf;

use crate::{
    Secret,
    address::is_safe_url,
    reader::{Section, read_bearer},
    routing::count,
};

/// Where an edge's events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// The URL that each is posted to: `https`, or `http` on loopback. A secret, because many such
    /// URLs are all that it takes to use them.
    pub webhook: Option<Secret>,
    /// The bearer token it asks for.
    pub bearer: Option<Secret>,
    /// Who signs its certificate (PEM); the system's authorities where not given.
    pub ca: Option<PathBuf>,
    /// Events kept for operators, the latest.
    pub keep: usize,
}

impl Events {
    pub(crate) fn from_section(mut section: Section<'_>) -> Self {
        let default = Self::default();
        for name in ["bearer", "bearer_file", "ca"] {
            if section.has(name) && !section.has("webhook") {
                section.problem(name, "is for nobody", "Add `webhook`, or leave it out");
            }
        }
        let webhook: Option<Secret> = section.optional("webhook");
        if webhook.as_ref().is_some_and(|url| !is_safe_url(url.reveal())) {
            let fix =
                "Write an https URL, or an http one on loopback, without a name and a password";
            section.problem("webhook", "is not reached safely", fix);
        }
        let bearer = read_bearer(&mut section, "bearer", "bearer_file");
        let ca = section.optional("ca");
        let keep = count(&mut section, "keep", default.keep, 65_536);
        section.finish();
        Self { webhook, bearer, ca, keep }
    }
}
