//! What every part of the host may use: small things that know nothing of requests, processes or guests.

pub mod blocking;
pub mod file_stamp;
pub mod memory;
pub mod ownership;
pub mod plain;
pub mod priority;
pub mod program;
pub mod readiness;
pub mod text_file;
pub mod whole_file;
