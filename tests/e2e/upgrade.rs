//! Command lines that are replaced while the service runs.

use std::path::Path;
use std::time::Duration;

use harness_tests::fake_api::FakeApi;
use harness_tests::host::{assert_refused, fake_cli};
use harness_tests::{poll, real_cli};
use serde_json::{Value, json};

use crate::cli::{ONE_AT_A_TIME, Real};
use crate::fake::Fake;

const SOON: Duration = Duration::from_secs(10);

/// What a process does that serves two questions of one conversation.
const TWO: &str = "#init\n#read\n#whole One\n#read\n#whole Two\n";

/// Puts a program into place as an installer does: another file takes the place of the one before.
fn install(folder: &Path) {
    let (new, program) = (folder.join("new"), folder.join("claude"));
    std::fs::copy(fake_cli(), &new).unwrap();
    std::fs::rename(new, program).unwrap();
}

/// A service whose command line is a file of its own.
fn start(script: &str, backend: &str) -> Fake {
    let home = tempfile::tempdir().unwrap();
    install(home.path());
    let config = Fake::config(home.path(), backend, "");
    let config = config.replace(
        &fake_cli().display().to_string(),
        &home.path().join("claude").display().to_string(),
    );
    Fake::start_in(home, script, &config)
}

fn chat(messages: &[(&str, &str)]) -> Value {
    let messages = messages.iter();
    let messages = messages.map(|(role, content)| json!({"role": role, "content": content}));
    json!({"model": "fake", "messages": messages.collect::<Vec<_>>()})
}

async fn state(fake: &Fake) -> Value {
    let (_, health) = fake.host.get("/health").await;
    health["backends"]["fake"].clone()
}

/// Waits until the backend has introduced itself.
async fn introduced(fake: &Fake) -> Value {
    poll::until("an introduction", SOON, async || {
        let state = state(fake).await;
        state["introduction"].is_object().then_some(state)
    })
    .await
}

#[tokio::test]
async fn a_new_program_is_tried_before_it_is_used() {
    let fake = start(TWO, "");
    assert_eq!(fake.host.post(&chat(&[("user", "a")])).await.0, 200);
    install(fake.host.home());
    let (status, answer) = fake.host.post(&chat(&[("user", "a")])).await;
    assert_eq!(status, 200, "{answer}");
    let log = fake.host.logged("the new program is in use").await;
    let tried = log.find("it is tried").unwrap();
    assert!(
        tried < log.find("the new program is in use").unwrap(),
        "{log}"
    );
    assert_eq!(log.matches("it is tried").count(), 1, "{log}");
}

#[tokio::test]
async fn the_pool_moves_over_to_a_new_program() {
    let fake = start(TWO, "warm = 1\ncontinue_for = \"60s\"");
    assert_eq!(fake.host.post(&chat(&[("user", "a")])).await.0, 200);
    let full = async || {
        let state = state(&fake).await;
        (state["warm"] == 1 && state["kept"] == 1).then_some(())
    };
    poll::until("a warm and a kept process", SOON, full).await;
    let old = fake.pids();
    install(fake.host.home());
    // Somebody looks, so nobody must wait later.
    fake.host.get("/health").await;
    fake.host.logged("the new program is in use").await;
    poll::until("the end of the old processes", SOON, async || {
        let state = state(&fake).await;
        let is_gone = |pid: &i32| !Path::new(&format!("/proc/{pid}")).exists();
        (state["warm"] == 1 && state["kept"] == 0 && old.iter().all(is_gone)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_program_that_does_not_use_the_login_is_not_used() {
    let fake = start(TWO, "continue_for = \"60s\"");
    assert_eq!(fake.host.post(&chat(&[("user", "a")])).await.0, 200);
    poll::until("a kept process", SOON, async || {
        (state(&fake).await["kept"] == 1).then_some(())
    })
    .await;
    fake.play(&format!("#login-unused\n{TWO}"));
    install(fake.host.home());
    let refused = fake
        .host
        .post(&chat(&[("system", "other"), ("user", "a")]))
        .await;
    assert_refused(&refused, (502, "backend_error"), "does not use that login");
    let told = state(&fake).await;
    let update = &told["update_refused"];
    assert!(
        update["message"]
            .as_str()
            .unwrap()
            .contains("does not use that login"),
        "{told}"
    );
    let remedy = "npm install -g @anthropic-ai/claude-code@2.1.330";
    assert_eq!(update["remedy"], json!([remedy]));
    assert_eq!(told["introduction"]["login"]["is_logged_in"], false);
    // The old process serves on.
    let (status, answer) = fake
        .host
        .post(&chat(&[("user", "a"), ("assistant", "One"), ("user", "b")]))
        .await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["choices"][0]["message"]["content"], "Two");
    // The way out: another version.
    fake.play(TWO);
    install(fake.host.home());
    let (status, answer) = fake
        .host
        .post(&chat(&[("system", "other"), ("user", "a")]))
        .await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(state(&fake).await["update_refused"], Value::Null);
}

#[tokio::test]
async fn a_program_that_refuses_to_open_a_session_is_not_used() {
    let fake = start(TWO, "");
    assert_eq!(fake.host.post(&chat(&[("user", "a")])).await.0, 200);
    fake.play(&format!("#refused\n{TWO}"));
    install(fake.host.home());
    let refused = fake.host.post(&chat(&[("user", "a")])).await;
    assert_refused(
        &refused,
        (502, "backend_error"),
        "refused to open a session",
    );
}

#[tokio::test]
async fn a_login_that_is_not_used_is_told_from_none() {
    let fake = start(&format!("#login-unused\n{TWO}"), "");
    let told = introduced(&fake).await;
    assert_eq!(told["status"], "login_unused", "{told}");
    let message = told["message"].as_str().unwrap();
    assert!(
        message.contains("is logged in, but this version does not use that login"),
        "{message}"
    );
}

#[tokio::test]
async fn a_program_that_cannot_rewind_is_not_asked_to() {
    let fake = start(&format!("#no-rewind\n{TWO}"), "continue_for = \"60s\"");
    let told = introduced(&fake).await;
    assert_eq!(told["introduction"]["lacks"], json!(["rewind"]), "{told}");
    for text in ["a", "b"] {
        let (status, answer) = fake.host.post(&chat(&[("user", text)])).await;
        assert_eq!(status, 200, "{answer}");
        poll::until("a kept process", SOON, async || {
            (state(&fake).await["kept"] != 0).then_some(())
        })
        .await;
    }
    let read = std::fs::read_to_string(fake.stdin()).unwrap();
    assert!(!read.contains("rewind_conversation"), "{read}");
    assert_eq!(fake.pids().len(), 2);
}

/// Both versions of the real command line, if they are there.
fn both_versions(test: &str) -> Option<[std::path::PathBuf; 2]> {
    let [old, new] = real_cli::VERSIONS.map(|version| real_cli::find(version, test));
    Some([old?, new?])
}

/// A service in front of a real command line behind a link or a script, `bin/claude` in its home.
async fn behind(home: tempfile::TempDir) -> Real {
    let api = FakeApi::start().await.unwrap();
    let program = home.path().join("bin/claude");
    Real::start_in(home, "behind", &program, &api, "continue_for = \"60s\"", "")
}

async fn claude(real: &Real) -> Value {
    let (_, health) = real.host.get("/health").await;
    health["backends"]["claude"].clone()
}

#[tokio::test]
async fn an_update_of_the_real_command_line_is_taken_up() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Some([old, new]) = both_versions("an_update_of_the_real_command_line") else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(old, bin.join("claude")).unwrap();
    let real = behind(home).await;
    assert_eq!(real.host.ask("claude-sonnet", "one").await.0, 200);
    poll::until("the old version", SOON, async || {
        (claude(&real).await["introduction"]["version"] == "2.1.197").then_some(())
    })
    .await;
    // As its installer does it: another link takes the place of the one before.
    std::os::unix::fs::symlink(new, bin.join("new")).unwrap();
    std::fs::rename(bin.join("new"), bin.join("claude")).unwrap();
    let (status, answer) = real.host.ask("claude-sonnet", "two").await;
    assert_eq!(status, 200, "{answer}");
    let state = claude(&real).await;
    assert_eq!(
        (&state["version"], &state["introduction"]["version"]),
        (&json!("2.1.330"), &json!("2.1.330"))
    );
    assert_eq!(state["introduction"]["lacks"], json!([]));
}

#[tokio::test]
async fn a_real_command_line_that_does_not_use_its_login_is_told_from_one_without() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let Some(versions) = both_versions("a_real_command_line_that_does_not_use_its_login") else {
        return;
    };
    for program in versions {
        let home = tempfile::tempdir().unwrap();
        let bin = home.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        // What Anthropic has announced: `-p` implies `--bare`.
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in *\" -p \"*) exec '{0}' --bare \"$@\";; *) exec '{0}' \"$@\";; esac\n",
            program.display()
        );
        std::fs::write(bin.join("claude"), script).unwrap();
        std::fs::set_permissions(
            bin.join("claude"),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let real = behind(home).await;
        let state = poll::until(
            "what it says of its login",
            Duration::from_secs(20),
            async || {
                let state = claude(&real).await;
                state["introduction"].is_object().then_some(state)
            },
        )
        .await;
        assert_eq!(state["status"], "login_unused", "{state}");
        assert_eq!(
            state["introduction"]["login"],
            json!({"is_logged_in": false, "source": null})
        );
        let (status, answer) = real.host.ask("claude-sonnet", "one").await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert_ne!(status, 200, "{answer}");
        assert!(
            message.contains("this version does not use that login"),
            "{answer}"
        );
        assert!(
            message.contains("npm install -g @anthropic-ai/claude-code@"),
            "{answer}"
        );
    }
}
