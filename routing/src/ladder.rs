//! To come.

/// How far service is degraded; more is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Level {
    /// All is well.
    #[default]
    L0,
    /// First tokens come late.
    L1,
    /// No pod of this region serves the primary model.
    L2,
    /// Two or more of pods, regions and providers are out, and the last cannot carry the load.
    L3,
    /// Nothing can generate.
    L4,
}
