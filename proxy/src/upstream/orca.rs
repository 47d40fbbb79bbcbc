//! How busy a pod is, by its own word: the text form of ORCA's `endpoint-load-metrics`.

/// Requests at a pod, whoever sent them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reported {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
}

impl Reported {
    /// Reads a header's value; `None` where it is another form, or says neither.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let pairs = value.strip_prefix("TEXT ")?;
        let number = |name: &str| {
            let mut pairs = pairs.split(',').filter_map(|pair| pair.trim().split_once('='));
            pairs.find(|(key, _)| *key == name)?.1.parse::<usize>().ok()
        };
        let (running, waiting) =
            (number("named_metrics.running"), number("named_metrics.queue_depth"));
        if running.is_none() && waiting.is_none() {
            return None;
        }
        Some(Self { running: running.unwrap_or(0), waiting: waiting.unwrap_or(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pods_say_is_read_and_anything_else_is_nothing() {
        let check = |value: &str, expected: Option<(usize, usize)>| {
            let read = Reported::parse(value).map(|load| (load.running, load.waiting));
            assert_eq!(read, expected, "{value}");
        };
        let said = "TEXT application_utilization=0.500, named_metrics.queue_depth=3, named_metrics.running=2";
        check(said, Some((2, 3)));
        check("TEXT named_metrics.running=2", Some((2, 0)));
        check("TEXT cpu_utilization=0.3", None);
        check("JSON {}", None);
        check("TEXT named_metrics.running=-1,named_metrics.queue_depth=1e9", None);
    }
}
