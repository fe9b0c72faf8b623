//! Claude Code, tested with 2.1.197 and 2.1.330.

use processes::Framing;

use super::{Args, LaunchOption, Place, Profile, Program, Stdin, Values, Warm};

/// `--tools ""` and `--strict-mcp-config` leave the model nothing to call, `--setting-sources ""`
/// keeps hooks and plugins of the user's settings out, `--settings` denies what `@path` in a
/// prompt would read, and `--no-session-persistence` writes no transcript. `--allowedTools` names
/// the MCP server whose tools are the client's functions: the CLI then asks for a call, and waits,
/// where it would else tell the model that calls are not allowed, and ask the API again.
pub(super) const ARGS: [&str; 19] = [
    "-p",
    "--input-format",
    "stream-json",
    "--output-format",
    "stream-json",
    "--verbose",
    "--include-partial-messages",
    "--tools",
    "",
    "--setting-sources",
    "",
    "--settings",
    r#"{"permissions":{"deny":["Read"]}}"#,
    "--strict-mcp-config",
    "--allowedTools",
    "mcp__client",
    "--disable-slash-commands",
    "--no-session-persistence",
    "--model",
];

/// No file is attached to a prompt, no memory is read or written, nothing phones home, and a stream
/// that broke off is not asked for again without streaming.
pub(super) const ENV: [(&str, &str); 9] = [
    ("CLAUDE_CODE_DISABLE_ATTACHMENTS", "1"),
    ("CLAUDE_CODE_DISABLE_AUTO_MEMORY", "1"),
    ("CLAUDE_CODE_DISABLE_CLAUDE_MDS", "1"),
    ("CLAUDE_CODE_DISABLE_FILE_MENTIONS", "1"),
    ("CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK", "1"),
    ("CLAUDE_CODE_DISABLE_TERMINAL_TITLE", "1"),
    ("DISABLE_AUTOUPDATER", "1"),
    ("DISABLE_ERROR_REPORTING", "1"),
    ("DISABLE_TELEMETRY", "1"),
];

/// With this variable, both tested versions answer `get_usage` without the plan's windows. Without it, and with those of
/// [`ENV`], a process asks Anthropic's API for three things when it starts: the account's profile, `bootstrap` and
/// `claude_code_penguin_mode`. Telemetry, reports of errors and updates stay off.
const QUIET_ENV: [(&str, &str); 1] = [("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")];

/// They say where the login and the network are. No API key is among them: the command line might use it
/// instead of the subscription's login.
pub(super) const PASS_ENV: [&str; 14] = [
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CONFIG_DIR",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LC_ALL",
    "NODE_EXTRA_CA_CERTS",
    "NO_PROXY",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TZ",
    "USER",
];

pub(super) static OPTIONS: [LaunchOption; 3] = [
    LaunchOption {
        name: "effort",
        values: Values::Words(&["low", "medium", "high", "xhigh", "max"]),
        place: Place::Flag("--effort"),
    },
    LaunchOption {
        name: "thinking",
        values: Values::Words(&["off"]),
        place: Place::Switch("CLAUDE_CODE_DISABLE_THINKING"),
    },
    LaunchOption {
        name: "max-output-tokens",
        // The CLI itself lowers it to what the model can.
        values: Values::UpTo(1_000_000),
        place: Place::Variable("CLAUDE_CODE_MAX_OUTPUT_TOKENS"),
    },
];

pub(super) const RETRIES: &str = "CLAUDE_CODE_MAX_RETRIES";

pub(super) const STDIN_SCHEMA: &str = include_str!("claude-code.stdin.schema.json");

pub(super) static CLAUDE_CODE: Profile = Profile {
    name: "claude-code",
    product: "Claude Code",
    adapter: "claude-code",
    program: Program::Command {
        name: "claude",
        below_home: &[".local/bin", ".claude/local"],
    },
    args: Args::Fixed(&ARGS),
    env: &ENV,
    quiet_env: &QUIET_ENV,
    retries: Some(RETRIES),
    pass_env: &PASS_ENV,
    login_places: &["CLAUDE_CONFIG_DIR", "HOME", "XDG_CONFIG_HOME"],
    options: &OPTIONS,
    // Prints a JSON object with `loggedIn`, and in newer versions `loginExpiresAt`.
    login_check: Some(&["auth", "status"]),
    login: &["auth", "login"],
    install: "npm install -g @anthropic-ai/claude-code",
    tested: Some(("2.1.197", "2.1.330")),
    models: &[
        ("claude-haiku", "haiku"),
        ("claude-opus", "opus"),
        ("claude-sonnet", "sonnet"),
        ("haiku", "haiku"),
        ("opus", "opus"),
        ("sonnet", "sonnet"),
    ],
    retired: &[
        ("claude-3-opus", "opus"),
        ("claude-3-sonnet", "sonnet"),
        ("claude-3-haiku", "haiku"),
        ("claude-3-5-sonnet", "sonnet"),
        ("claude-3.5-sonnet", "sonnet"),
        ("claude-3-5-haiku", "haiku"),
        ("claude-3.5-haiku", "haiku"),
        ("claude-3-7-sonnet", "sonnet"),
        ("claude-3.7-sonnet", "sonnet"),
    ],
    passed_on: Some("claude-"),
    probe_model: "default",
    framing: Framing::Lines,
    warm: Warm::Auto,
    continue_for: 60,
    // An idle one has 130 to 190 MB.
    idle_memory: 160 << 20,
    stdin: Stdin::JsonLines(STDIN_SCHEMA),
    is_demo: false,
};
