//! Proof: load scenarios against a running service, chaos beside them, and reports of what was measured.
