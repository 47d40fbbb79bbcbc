//! What is logged, and where: lines on standard error, in a form and at levels that the
//! configuration chooses; the levels may change while a role runs.
//!
//! A thread of its own writes them: whoever reads standard error may be slow, and no request waits
//! for it. Lines that it cannot take are dropped.

use nearhop_conf::{Log, LogFormat, source::process_env};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, layer::SubscriberExt as _, reload,
    util::SubscriberInitExt as _,
};

/// Lines that wait to be written: some seconds of a busy edge, some tens of megabytes.
const LINES_MAX: usize = 65_536;

/// Logging, until it is dropped; then what waits is written.
pub(crate) struct Logging {
    levels: reload::Handle<EnvFilter, Registry>,
    _writer: WorkerGuard,
}

impl Logging {
    /// Starts it.
    pub(crate) fn start(log: &Log) -> Self {
        // What the operator says on the command line goes before the file.
        let asked = process_env("RUST_LOG");
        let first = asked.as_deref().unwrap_or(&log.level);
        let filter = EnvFilter::try_new(first).unwrap_or_else(|error| {
            eprintln!("nearhop: the log levels {first:?} cannot be read ({error}); info it is");
            EnvFilter::new("info")
        });
        let (filter, levels) = reload::Layer::<EnvFilter, Registry>::new(filter);
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(LINES_MAX)
            .finish(std::io::stderr());
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
        let lines = match log.format {
            LogFormat::Text => lines.boxed(),
            LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
        };
        tracing_subscriber::registry().with(filter).with(lines).init();
        Self { levels, _writer: guard }
    }

    /// What sets the levels anew; `Err` says why they cannot be.
    pub(crate) fn set_level(&self) -> impl Fn(&str) -> Result<(), String> + Send + Sync + 'static {
        let levels = self.levels.clone();
        move |level| {
            let filter = EnvFilter::try_new(level).map_err(|error| {
                format!(
                    "{level:?} cannot be read: {error}. Write levels as in `info,nearhop_proxy=debug`"
                )
            })?;
            levels.reload(filter).map_err(|error| error.to_string())
        }
    }
}
