//! What shells complete, and the manual.

use std::process::{Command, Output};

use harness_tests::host::program;

fn run(arguments: &[&str]) -> Output {
    Command::new(program())
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

#[test]
fn bash_completes_commands_and_none_of_the_programs_own() {
    let output = run(&["completions", "bash"]);
    assert!(output.status.success(), "{output:?}");
    let script = String::from_utf8(output.stdout).unwrap();
    let complete = format!(
        "{script}\nCOMP_WORDS=(claude-harness '') COMP_CWORD=1\n_claude__harness claude-harness '' claude-harness\necho \"${{COMPREPLY[@]}}\""
    );
    let output = Command::new("bash")
        .args(["-c", &complete])
        .output()
        .unwrap();
    let words = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = words.split_whitespace().collect();
    for command in ["serve", "doctor", "usage", "guest", "key", "completions"] {
        assert!(words.contains(&command), "{words:?}");
    }
    for own in ["demo-backend", "warden", "compile-guest", "check-schemas"] {
        assert!(!words.contains(&own), "{words:?}");
    }
    for shell in ["zsh", "fish"] {
        assert!(run(&["completions", shell]).stdout.len() > 1000, "{shell}");
    }
    assert_eq!(run(&["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn each_command_has_a_page_in_the_manual() {
    let folder = tempfile::tempdir().unwrap();
    assert!(
        run(&["manual", folder.path().to_str().unwrap()])
            .status
            .success()
    );
    for page in [
        "claude-harness.1",
        "claude-harness-guest-check.1",
        "claude-harness-usage.1",
    ] {
        let text = std::fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
    assert!(!folder.path().join("claude-harness-warden.1").exists());
}
