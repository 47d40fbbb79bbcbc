//! From a key to the node that owns it, through its breaker, and on where the node points elsewhere.

use std::sync::Arc;

use redis::{Cmd, Pipeline, ServerError, Value};
use tokio::time::Instant;

use super::{
    Inner,
    node::Node,
    settings::{Trouble, bounded},
    slot::slot,
    topology::Address,
};
use crate::breaker::Outcome;

/// So often may a call be sent elsewhere; a slot that moved is found with one.
const REDIRECTS: usize = 2;

impl Inner {
    /// Sends commands that all concern `key`, and gives an answer for each. Several are one transaction,
    /// so that none happens without the others.
    pub(crate) async fn call(
        &self,
        key: &[u8],
        commands: &[Cmd],
        deadline: Instant,
    ) -> Result<Vec<Value>, Trouble> {
        let mut node = self.owner(key)?;
        let mut asking = false;
        for _ in 0..=REDIRECTS {
            let (answers, asked) = match node.send(&packed(commands, asking), deadline).await {
                Ok(answered) => answered,
                Err(trouble) => {
                    // While the breaker is open its probes are reason enough to look.
                    if trouble != Trouble::Open {
                        self.nudge.notify_one();
                    }
                    return Err(trouble);
                }
            };
            let Some((target, ask)) = redirect(&answers, &node.address.host) else {
                return self.judge(unpacked(answers, commands.len(), asking), asked);
            };
            asked.tell(Outcome::Answered);
            if !ask {
                self.nudge.notify_one();
            }
            node = self.known(&target)?;
            asking = ask;
        }
        self.nudge.notify_one();
        Err(Trouble::Failed("the nodes disagree about who owns the slot".to_owned()))
    }

    /// One command's answer.
    pub(crate) async fn one(
        &self,
        key: &[u8],
        command: Cmd,
        deadline: Instant,
    ) -> Result<Value, Trouble> {
        let answers = self.call(key, &[command], deadline).await?;
        answers.into_iter().next().ok_or_else(unexpected)
    }

    pub(crate) fn owner(&self, key: &[u8]) -> Result<Arc<Node>, Trouble> {
        let map = self.map.load();
        if let Some(node) = map.owner(slot(key)) {
            return Ok(Arc::clone(node));
        }
        drop(map);
        Err(Trouble::Away(self.problem().unwrap_or_else(|| "no node owns the slot".to_owned())))
    }

    pub(crate) fn known(&self, target: &Address) -> Result<Arc<Node>, Trouble> {
        let found = self.map.load().node(target).cloned();
        found.ok_or_else(|| {
            self.nudge.notify_one();
            Trouble::Away(bounded(format!("the slot moved to {target}, not connected yet")))
        })
    }

    /// Errors among the answers, and what they say of the shard.
    pub(crate) fn judge(
        &self,
        answers: Vec<Value>,
        asked: super::node::Asked,
    ) -> Result<Vec<Value>, Trouble> {
        let error = answers.iter().find_map(|answer| match answer {
            Value::ServerError(error) => Some(error),
            _ => None,
        });
        let Some(error) = error else {
            asked.tell(Outcome::Answered);
            return Ok(answers);
        };
        let serves = !cannot_serve(error);
        asked.tell(if serves { Outcome::Answered } else { Outcome::Failed });
        let code = error.code();
        if !serves || matches!(code, "MOVED" | "ASK") {
            self.nudge.notify_one();
        }
        let fix =
            if code == "NOPERM" { "; grant the user this right in the servers' ACL" } else { "" };
        let reason = format!("{code} {}{fix}", error.details().unwrap_or_default());
        Err(Trouble::Failed(bounded(reason)))
    }
}

/// Says the error that the shard can do nothing for anybody? Others are about the command.
fn cannot_serve(error: &ServerError) -> bool {
    matches!(
        error.code(),
        "CLUSTERDOWN" | "MASTERDOWN" | "LOADING" | "READONLY" | "NOAUTH" | "BUSY" | "MISCONF"
    )
}

/// Several commands make a transaction. While a slot moves, its new owner takes commands only one by one,
/// each announced; a transaction announced once would be refused.
fn packed(commands: &[Cmd], asking: bool) -> Pipeline {
    let mut pipeline = Pipeline::new();
    let together = commands.len() > 1 && !asking;
    if together {
        pipeline.cmd("MULTI");
    }
    for command in commands {
        if asking {
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(command.clone());
    }
    if together {
        pipeline.cmd("EXEC");
    }
    pipeline
}

/// The commands' own answers, out of what [`packed`] brought.
fn unpacked(answers: Vec<Value>, commands: usize, asking: bool) -> Vec<Value> {
    if asking {
        return answers.into_iter().skip(1).step_by(2).collect();
    }
    if commands == 1 {
        return answers;
    }
    let refusal = answers.iter().find(|answer| matches!(answer, Value::ServerError(_))).cloned();
    match (refusal, answers.into_iter().next_back()) {
        (Some(refusal), _) => vec![refusal],
        (None, Some(Value::Array(done))) => done,
        (None, other) => other.into_iter().collect(),
    }
}

/// Where the node points: the first redirect among the answers, and whether it is only for this call.
fn redirect(answers: &[Value], asked: &str) -> Option<(Address, bool)> {
    answers.iter().find_map(|answer| {
        let Value::ServerError(error) = answer else { return None };
        let ask = match error.code() {
            "MOVED" => false,
            "ASK" => true,
            _ => return None,
        };
        let target = error.details()?.split_ascii_whitespace().nth(1)?;
        Some((Address::parse(target, asked)?, ask))
    })
}

/// The answer has another type than the command's answers have.
pub(crate) fn unexpected() -> Trouble {
    Trouble::Failed("an answer of another type than expected".to_owned())
}
