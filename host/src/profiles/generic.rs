//! Any program that reads a prompt on its standard input and prints an answer.
//!
//! The operator says how it is started. Its standard input takes any text, so nothing here keeps a prompt from having
//! it do things: a program that runs commands or reads files needs a sandbox of its own.

use super::{Args, Profile, Program, Stdin, Warm};
use processes::Framing;

pub(super) static GENERIC: Profile = Profile {
    name: "generic",
    product: "the program",
    adapter: "prompt-template",
    program: Program::Configured,
    args: Args::Configured,
    env: &[],
    quiet_env: &[],
    retries: None,
    pass_env: &["HOME", "LANG", "LC_ALL", "PATH", "TZ", "USER"],
    login_places: &[],
    options: &[],
    login_check: None,
    login: &[],
    install: "",
    tested: None,
    models: &[],
    retired: &[],
    passed_on: None,
    probe_model: "default",
    framing: Framing::Bytes,
    warm: Warm::Fixed(0),
    continue_for: 0,
    idle_memory: 64 << 20,
    stdin: Stdin::Text,
    is_demo: false,
};
