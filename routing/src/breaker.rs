//! To come.

/// Why an upstream gets nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its connection was refused or broke.
    Dead,
    /// It failed too often.
    Failures,
    /// Requests timed out on it, in a row.
    Slow,
    /// A check failed, and requests that wait on it heard nothing either.
    Silent,
    /// Checks in a row failed.
    Checks,
    /// It answers much later than it used to, or than its peers.
    Latency,
    /// It refuses our credentials, or does not know what we ask for.
    Misconfigured,
    /// The operator took it out.
    Forced,
}

/// Whether an upstream gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Ready,
    /// It is tried again, with few requests at once, and there is room for one.
    Probing,
    /// It is tried again, and as many requests as may are under way.
    Full,
    /// It does not.
    Out(Reason),
}
