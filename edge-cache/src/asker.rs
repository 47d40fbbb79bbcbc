//! Who asks.

/// Whose question it is.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The tenant. Leads every class.
    pub tenant: &'a str,
    /// The API key's name, or its subject's.
    pub key: &'a str,
    /// Who uses it, where that is known.
    pub user: Option<&'a str>,
}
