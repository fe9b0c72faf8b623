//! What operators look at.

mod gauges;
pub(super) mod health;
