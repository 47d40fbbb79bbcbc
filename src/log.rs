//! What is logged, and where: lines on standard error, in a form and at levels that the
//! configuration chooses; the levels may change while a role runs.

use nearhop_conf::{Log, LogFormat, source::process_env};
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, layer::SubscriberExt as _, reload,
    util::SubscriberInitExt as _,
};

/// Starts logging. What comes back sets the levels anew.
pub(crate) fn start(log: &Log) -> impl Fn(&str) -> Result<(), String> + Send + Sync + 'static {
    // What the operator says on the command line goes before the file.
    let asked = process_env("RUST_LOG");
    let first = asked.as_deref().unwrap_or(&log.level);
    let filter = EnvFilter::try_new(first).unwrap_or_else(|error| {
        eprintln!("nearhop: the log levels {first:?} cannot be read ({error}); info it is");
        EnvFilter::new("info")
    });
    let (filter, handle) = reload::Layer::<EnvFilter, Registry>::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    move |level| {
        let filter = EnvFilter::try_new(level).map_err(|error| {
            format!(
                "{level:?} cannot be read: {error}. Write levels as in `info,nearhop_proxy=debug`"
            )
        })?;
        handle.reload(filter).map_err(|error| error.to_string())
    }
}
