//! The contract of `wit/`: a module for each version that is served, each with its generated types and
//! the only place where they are translated.

pub(super) mod v0_1;
