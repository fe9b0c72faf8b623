//! The contract of `wit/`. Each version that is served has a module here, with its generated types. Only that
//! module translates them.

pub(super) mod v1_0;
