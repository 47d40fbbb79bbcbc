//! The `access` section, and the file beside it, to [`Access`].

use std::collections::HashSet;

use serde_json::Value;

use super::{Access, Algorithm, ApiKey, Egress, Issuer, Plan, Rates, Scope, Tenant};
use crate::{
    ConfigError, Secret,
    address::is_safe_url,
    defaults,
    reader::{Problems, Section, expand, parse_yaml, read_secret},
    source::{self, Env},
    units::{hex, http_token},
};

impl Access {
    /// Reads the section, and the file that it names.
    ///
    /// # Errors
    /// [`ConfigError`] of the file beside the configuration; mistakes in the section itself go to
    /// the section's problems.
    pub(crate) fn from_section(
        mut section: Section<'_>,
        env: Env<'_>,
    ) -> Result<Option<Self>, ConfigError> {
        let mut access = Self {
            key_secret: read_secret(&mut section, "key_secret", "key_secret_file"),
            usage_file: section.optional("usage_file"),
            file: section.optional("file"),
            ..Self::default()
        };
        let mut whole = access.lists(&mut section);
        if let Some(path) = &access.file.clone() {
            let name = path.display().to_string();
            let text = source::read(path)?;
            let mut tree: Value = parse_yaml(&text, &name)?;
            let problems = Problems::default();
            expand(&mut tree, "", env, &problems);
            let mut root = Section::root(tree, &problems);
            whole &= access.lists(&mut root);
            root.finish();
            let problems = problems.into_list();
            if !problems.is_empty() {
                return Err(ConfigError::Invalid { path: name, problems });
            }
        }
        access.judge(&section);
        section.finish();
        Ok(whole.then_some(access))
    }

    /// Reads the lists that may stand in either file; whether all of them could be read.
    fn lists(&mut self, section: &mut Section<'_>) -> bool {
        let plans = section.sections("plans").into_iter().map(read_plan);
        let plans: Option<Vec<_>> = plans.collect();
        let tenants = section.sections("tenants").into_iter().map(read_tenant);
        let tenants: Option<Vec<_>> = tenants.collect();
        let keys = section.sections("keys").into_iter().map(read_key);
        let keys: Option<Vec<_>> = keys.collect();
        let issuers = section.sections("issuers").into_iter().map(read_issuer);
        let issuers: Option<Vec<_>> = issuers.collect();
        let whole = plans.is_some() && tenants.is_some() && keys.is_some() && issuers.is_some();
        self.plans.extend(plans.unwrap_or_default());
        self.tenants.extend(tenants.unwrap_or_default());
        self.keys.extend(keys.unwrap_or_default());
        self.issuers.extend(issuers.unwrap_or_default());
        whole
    }

    /// What no single entry can know.
    fn judge(&self, section: &Section<'_>) {
        let twice = |what: &'static str, of: &'static str, all: Vec<&str>| {
            let mut seen = HashSet::new();
            for one in all.into_iter().filter(|one| !seen.insert(*one)) {
                section.problem(what, format!("has {one} twice"), format!("Keep one {of}"));
            }
        };
        twice(
            "plans",
            "plan of a name",
            self.plans.iter().map(|plan| plan.name.as_str()).collect(),
        );
        let tenants: Vec<&str> = self.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
        twice("tenants", "tenant of a name", tenants.clone());
        twice("keys", "key of a name", self.keys.iter().map(|key| key.name.as_str()).collect());
        let issuers = self.issuers.iter().map(|issuer| issuer.issuer.as_str()).collect();
        twice("issuers", "entry for an issuer", issuers);
        let mut hashes = HashSet::new();
        for key in self.keys.iter().filter(|key| !hashes.insert(key.hmac_sha256)) {
            let what = format!("{} has another key's hash", key.name);
            section.problem("keys", what, "Make a key for each name");
        }
        for tenant in &self.tenants {
            let Some(plan) = &tenant.plan else { continue };
            if !self.plans.iter().any(|known| known.name == *plan) {
                let what = format!("{} has the plan {plan}, which is not there", tenant.name);
                section.problem("tenants", what, "Add it to `plans`, or name another");
            }
        }
        for key in &self.keys {
            if !tenants.is_empty() && !tenants.contains(&key.tenant.as_str()) {
                let what = format!("{} belongs to {}, which is not there", key.name, key.tenant);
                section.problem("keys", what, "Add the tenant to `tenants`");
            }
        }
        if !self.keys.is_empty() && self.key_secret.is_none() {
            let fix = "Add it, 32 random bytes such as `openssl rand -hex 32` gives, or `key_secret_file`";
            section.problem("key_secret", "is missing, and keys are stored under it", fix);
        }
    }
}

/// A name that may stand in a header.
fn name(section: &mut Section<'_>, field: &'static str) -> Option<String> {
    let name: Option<String> = section.required(field);
    if name.as_deref().is_some_and(|name| http_token(name).is_none()) {
        section.problem(field, "is sent in a header", "Use letters, digits, `-`, `_` and `.`");
        return None;
    }
    name
}

fn read_plan(mut section: Section<'_>) -> Option<Plan> {
    let name = name(&mut section, "name");
    let tokens_per_month = section.optional("tokens_per_month");
    let (tenant, key) = (read_rates(section.section("tenant")), read_rates(section.section("key")));
    section.finish();
    Some(Plan { name: name?, tenant, key, tokens_per_month })
}

fn read_rates(mut section: Section<'_>) -> Rates {
    let concurrent: Option<std::num::NonZeroUsize> = section.optional("concurrent");
    let rates = Rates {
        requests_per_minute: section.optional("requests_per_minute"),
        tokens_per_minute: section.optional("tokens_per_minute"),
        concurrent: concurrent.map(std::num::NonZeroUsize::get),
    };
    section.finish();
    rates
}

fn read_tenant(mut section: Section<'_>) -> Option<Tenant> {
    let name = name(&mut section, "name");
    let plan = section.optional("plan");
    let mut egress = section.section("egress");
    let policy = Egress {
        regions: egress.optional("regions"),
        providers: egress.or("providers", Vec::new()),
    };
    egress.finish();
    section.finish();
    Some(Tenant { name: name?, plan, egress: policy })
}

fn read_key(mut section: Section<'_>) -> Option<ApiKey> {
    let key_name: Option<String> = section.required("name");
    let tenant = name(&mut section, "tenant");
    let user = section.optional("user");
    let scopes = section.or("scopes", Scope::ALL.to_vec());
    let expires: Option<String> = section.optional("expires");
    let expires = expires.map(|text| {
        let parsed = chrono::DateTime::parse_from_rfc3339(&text).ok();
        let seconds = parsed.and_then(|time| u64::try_from(time.timestamp()).ok());
        if seconds.is_none() {
            let what = format!("{text} is no moment");
            section.problem("expires", what, "Write one such as 2027-01-31T00:00:00Z");
        }
        seconds
    });
    let hash: Option<String> = section.required("hmac_sha256");
    let hmac_sha256 = hash.and_then(|hash| {
        let parsed = hex(&hash);
        if parsed.is_none() {
            let fix = "Take the line that `nearhop key` prints";
            section.problem("hmac_sha256", "is not 64 hexadecimal digits", fix);
        }
        parsed
    });
    section.finish();
    Some(ApiKey {
        name: key_name?,
        tenant: tenant?,
        user,
        scopes,
        // Named and unreadable is not the same as never.
        expires: match expires {
            Some(seconds) => Some(seconds?),
            None => None,
        },
        hmac_sha256: hmac_sha256?,
    })
}

fn read_issuer(mut section: Section<'_>) -> Option<Issuer> {
    let issuer = section.required("issuer");
    let audience = section.required("audience");
    let jwks_url: Option<String> = section.required("jwks_url");
    if jwks_url.as_deref().is_some_and(|url| !is_safe_url(url)) {
        let fix = "Use an https URL: who can change the keys can sign for anybody";
        section.problem("jwks_url", "is not fetched safely", fix);
    }
    let algorithms = section.or("algorithms", vec![Algorithm::Rs256, Algorithm::Es256]);
    if algorithms.is_empty() {
        section.problem("algorithms", "is empty", "Name those that the issuer signs with");
    }
    let read = Some(Issuer {
        issuer: issuer.unwrap_or_default(),
        audience: audience.unwrap_or_default(),
        jwks_url: jwks_url.unwrap_or_default(),
        algorithms,
        tenant_claim: section.or("tenant_claim", "tenant".to_owned()),
        user_claim: section.or("user_claim", "sub".to_owned()),
        refresh: section.or("refresh", defaults::JWKS_REFRESH),
        stale: section.or("stale", defaults::JWKS_STALE),
        ca: section.optional("ca"),
    });
    section.finish();
    read.filter(|issuer| !issuer.issuer.is_empty() && !issuer.jwks_url.is_empty())
}

impl Secret {
    /// A secret that did not come from a file: of development, and of tests.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}
