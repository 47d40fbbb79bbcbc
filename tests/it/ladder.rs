//! How far service degrades.
