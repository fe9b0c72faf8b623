//! The program's own behaviour: its command line, and bad configurations.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shall fail where it stands"
)]

use std::process::{Command, Output};

fn run(config: Option<&str>, args: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_claude-harness"));
    command
        .args(args)
        .env_clear()
        .env("HOME", home.path())
        .current_dir(home.path());
    if let Some(config) = config {
        std::fs::write(home.path().join("harness.toml"), config).unwrap();
    }
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the program says when it refuses its configuration.
fn refused(config: Option<&str>, args: &[&str]) -> String {
    let output = run(config, args);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn a_bad_configuration_exits_with_2_and_names_every_key() {
    let text = refused(
        Some("listn = []\n[backends.claude]\nmax_concurrent = 0\n"),
        &["serve"],
    );
    assert!(
        text.contains("`listn`: unknown key; did you mean `listen`?"),
        "{text}"
    );
    assert!(
        text.contains("`backends.claude.max_concurrent`: `0` is not a whole number from 1 to 1024"),
        "{text}"
    );
}

#[test]
fn a_configuration_that_is_no_toml_is_told_its_line() {
    let text = refused(Some("listen = [\n"), &[]);
    assert!(text.contains("harness.toml is not valid TOML"), "{text}");
}

#[test]
fn a_named_file_must_be_there() {
    let text = refused(None, &["serve", "--config", "nowhere.toml"]);
    assert!(text.contains("cannot read nowhere.toml"), "{text}");
}

#[test]
fn an_address_for_all_the_world_needs_a_key() {
    let text = refused(None, &["serve", "--listen", "0.0.0.0:0"]);
    assert!(text.contains("set `api_keys`"), "{text}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(None, &["serve", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains(&format!("cannot listen on {address}")),
        "{}",
        stderr(&output)
    );
}

#[test]
fn settings_are_taken_without_a_command_too() {
    let text = refused(
        None,
        &["--config", "nowhere.toml", "--listen", "127.0.0.1:0"],
    );
    assert!(text.contains("cannot read nowhere.toml"), "{text}");
}

#[test]
fn it_says_its_version() {
    let output = run(None, &["--version"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        concat!("claude-harness ", env!("CARGO_PKG_VERSION"))
    );
}
