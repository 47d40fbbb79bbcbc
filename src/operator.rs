//! The operator's listener of a running role, asked from the command line.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use nearhop_admin::{Question, Trust, fetch};
use serde_json::Value;

use crate::{dev, read_config};

const WITHIN: Duration = Duration::from_secs(10);
const ANSWER_MAX: usize = 4 << 20;

/// Where a role's operator asks, and with which token.
pub(crate) struct Operator {
    address: SocketAddr,
    token: String,
    /// What to do where nobody answers.
    fix: String,
}

impl Operator {
    /// The edge of a file, or that of a running `nearhop dev` on its usual port.
    pub(crate) fn of_edge(config: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = config else { return Ok(Self::of_dev(dev::edge_admin(dev::ADMIN_PORT))) };
        let config = read_config(path)?;
        let none = || format!("{} has no `edge` section", path.display());
        let admin = config.edge.with_context(none)?.admin;
        let token = admin.token.with_context(|| {
            format!(
                "{}: edge.admin.token is missing; without one this part is closed",
                path.display()
            )
        })?;
        if admin.listen.port() == 0 {
            bail!("{}: edge.admin.listen has port 0, which is any port", path.display());
        }
        let fix = format!("is the edge of {} running?", path.display());
        Ok(Self { address: admin.listen, token: token.reveal().to_owned(), fix })
    }

    /// A part of a running `nearhop dev`.
    pub(crate) fn of_dev(address: SocketAddr) -> Self {
        let fix = "start `nearhop dev` on its usual ports, or name a file with -c FILE".to_owned();
        Self { address, token: dev::ADMIN_TOKEN.to_owned(), fix }
    }

    /// What is said below `/admin/v1`, to a POST where there is a body.
    pub(crate) fn ask(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Vec<u8>> {
        let url = format!("http://{}/admin/v1{path}", self.address);
        let question = Question {
            url: &url,
            host: None,
            trust: Trust::System,
            body: body.map(|body| body.to_string().into()),
            bearer: Some(&self.token),
            limit: ANSWER_MAX,
            within: WITHIN,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(fetch(question));
        let said = |error| format!("{}: {error}; {}", self.address, self.fix);
        answer.map(|body| body.to_vec()).map_err(|error| anyhow::anyhow!(said(error)))
    }

    /// The same, which must be JSON.
    pub(crate) fn ask_json(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.ask(path, body)?)?)
    }
}
