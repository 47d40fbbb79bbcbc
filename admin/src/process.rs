//! What a process itself uses, in the names that Prometheus' client libraries have for it.
//!
//! Source: "Writing client libraries", process metrics. Where a system does not say, a line is
//! left out.

use std::fmt::Write as _;

use nix::sys::resource::{UsageWho, getrusage};

/// The lines, in Prometheus text format 0.0.4.
pub(crate) fn render() -> String {
    let mut out = String::new();
    let mut line = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
    };
    line("process_cpu_seconds_total", "counter", "Processor time used.", cpu_seconds());
    line("process_resident_memory_bytes", "gauge", "Memory that is resident.", resident());
    line("process_open_fds", "gauge", "Open file descriptors.", entries("/proc/self/fd"));
    line("process_threads", "gauge", "Threads.", entries("/proc/self/task"));
    let cores = std::thread::available_parallelism().ok().map(|cores| real(cores.get()));
    line("nearhop_cpu_cores", "gauge", "Processors that this process may use.", cores);
    out
}

fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let seconds = |time: nix::sys::time::TimeVal| {
        #[expect(clippy::cast_precision_loss, reason = "no process lives 2^52 s")]
        let seconds = time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        seconds
    };
    Some(seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024.0)
}

fn entries(folder: &str) -> Option<f64> {
    Some(real(std::fs::read_dir(folder).ok()?.count()))
}

fn real(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn everything_that_linux_says_is_told() {
        let text = super::render();
        let values: Vec<(&str, f64)> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_once(' ').unwrap())
            .map(|(name, value)| (name, value.parse().unwrap()))
            .collect();
        assert_eq!(values.len(), 5, "{text}");
        assert!(
            values.iter().all(|(name, value)| *value > 0.0 || name.contains("cpu_seconds")),
            "{text}"
        );
    }
}
