//! The demonstration that is built into this program. It speaks Claude Code's protocol, so that what works
//! with it works with the other but for the login.

use processes::Framing;

use super::{Args, Profile, Program, Stdin, Warm, claude_code};

pub(super) static DEMO: Profile = Profile {
    name: "demo",
    product: "the demonstration",
    adapter: "claude-code",
    program: Program::This(crate::demo::SUBCOMMAND),
    args: Args::Fixed(&claude_code::ARGS),
    env: &claude_code::ENV,
    quiet_env: &[],
    retries: Some(claude_code::RETRIES),
    pass_env: &claude_code::PASS_ENV,
    login_places: &[],
    options: &claude_code::OPTIONS,
    login_check: None,
    login: &[],
    install: "",
    tested: None,
    models: &[("demo", "demo")],
    retired: &[],
    passed_on: None,
    probe_model: "demo",
    framing: Framing::Lines,
    // It starts in a moment.
    warm: Warm::Fixed(0),
    continue_for: 0,
    idle_memory: 16 << 20,
    stdin: Stdin::JsonLines(claude_code::STDIN_SCHEMA),
    is_demo: true,
};
