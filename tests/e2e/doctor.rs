//! `claude-harness doctor`: what it finds, and what it says mends it.

use std::path::Path;
use std::process::{Command, Output};

use harness_tests::host::{Host, program};
use harness_tests::real_cli;
use serde_json::{Value, json};

use crate::cli::{ONE_AT_A_TIME, Real};
use crate::fake::{ANSWER, Fake};

/// What it prints about the configuration in a folder, whose home it is.
fn doctor(home: &Path, arguments: &[&str]) -> Output {
    Command::new(program())
        .args(["doctor", "--config"])
        .arg(home.join("doctor.toml"))
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin")
        .current_dir(home)
        .output()
        .unwrap()
}

/// Its findings about a configuration, and whether all is well.
fn found(home: &Path, config: &str, arguments: &[&str]) -> (bool, Vec<Value>) {
    // A service whose home this is has a file of its own.
    std::fs::write(home.join("doctor.toml"), config).unwrap();
    let output = doctor(home, &[&["--json"], arguments].concat());
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["ok"].as_bool().unwrap(), output.status.success());
    (
        output.status.success(),
        told["findings"].as_array().unwrap().clone(),
    )
}

/// A home in which the fake command line plays a script.
fn home(script: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("script"), script).unwrap();
    home
}

/// A finding, by what was looked at.
fn about<'f>(findings: &'f [Value], check: &str) -> &'f Value {
    let mut all = findings.iter();
    let found = all.find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("nothing about {check}: {findings:#?}"))
}

/// A port that nobody listens on.
const FREE: &str = "listen = \"127.0.0.1:1\"\n";

#[test]
fn where_all_is_well_it_says_so_and_asks_if_it_is_told_to() {
    let home = home(ANSWER);
    let config = Fake::config(home.path(), "", FREE);
    let (is_ok, findings) = found(home.path(), &config, &["--live"]);
    assert!(is_ok, "{findings:#?}");
    for check in [
        "configuration",
        "guests",
        "login of fake",
        "protocol of fake",
    ] {
        assert_eq!(about(&findings, check)["state"], "ok", "{findings:#?}");
    }
    // The fake is version 0.0.1.
    let version = about(&findings, "backend fake");
    assert_eq!(version["state"], "warning", "{version}");
    let answered = about(&findings, "answer of fake");
    assert!(
        answered["found"]
            .as_str()
            .unwrap()
            .contains("`fake` answered"),
        "{answered}"
    );
    let output = doctor(home.path(), &[]);
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(lines.contains("\nok       login of fake"), "{lines}");
}

#[test]
fn a_login_that_is_missing_is_wrong_and_it_says_what_logs_in() {
    let home = home("#logged-out\n#init\n");
    let config = Fake::config(home.path(), "", FREE);
    let (is_ok, findings) = found(home.path(), &config, &[]);
    let backend = about(&findings, "backend fake");
    assert!(!is_ok && backend["state"] == "wrong", "{findings:#?}");
    let remedy = backend["remedy"][0].as_str().unwrap();
    assert!(remedy.ends_with("auth login"), "{remedy}");
}

#[test]
fn a_program_that_is_missing_is_wrong() {
    let home = tempfile::tempdir().unwrap();
    let config = format!("{FREE}[backends.claude]\ncommand = \"no-such-program\"\n");
    let (is_ok, findings) = found(home.path(), &config, &["--live"]);
    let backend = about(&findings, "backend claude");
    assert!(!is_ok && backend["state"] == "wrong", "{findings:#?}");
    let remedy = backend["remedy"][0].as_str().unwrap();
    assert!(remedy.starts_with("npm install"), "{remedy}");
}

#[test]
fn mistakes_of_the_configuration_and_guests_that_are_refused_are_told() {
    let home = home(ANSWER);
    let (is_ok, findings) = found(home.path(), "lissten = 1\n", &[]);
    let told = about(&findings, "configuration")["found"].as_str().unwrap();
    assert!(!is_ok && told.contains("`lissten`"), "{told}");
    let config = Fake::config(home.path(), "", FREE);
    std::fs::create_dir(home.path().join("guests.d")).unwrap();
    std::fs::write(
        home.path().join("guests.d/claude-code.wasm"),
        "no component",
    )
    .unwrap();
    let (is_ok, findings) = found(home.path(), &config, &[]);
    assert!(!is_ok, "{findings:#?}");
    about(&findings, "guest claude-code");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_who_listens() {
    let home = home(ANSWER);
    let host = Host::start("");
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [
        host.authority().to_owned(),
        other.local_addr().unwrap().to_string(),
    ];
    let rest = format!("listen = {}\n", json!(addresses));
    let config = Fake::config(home.path(), "", &rest);
    let (is_ok, findings) = tokio::task::block_in_place(|| found(home.path(), &config, &[]));
    let [own, others] =
        addresses.map(|address| about(&findings, &format!("address {address}")).clone());
    assert!(
        own["found"]
            .as_str()
            .unwrap()
            .contains("claude-harness 0.1.0 runs here"),
        "{own}"
    );
    assert!(!is_ok && others["state"] == "wrong", "{others}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_command_lines_are_looked_at_and_asked() {
    let _turn = ONE_AT_A_TIME.lock().await;
    for version in real_cli::VERSIONS {
        let Some(program) = real_cli::find(version, "the_real_command_lines_are_looked_at") else {
            continue;
        };
        let real = Real::start(version, &program, "", "").await;
        let config = std::fs::read_to_string(real.host.home().join("harness.toml")).unwrap();
        let config = config.replace("127.0.0.1:0", "127.0.0.1:1");
        let (is_ok, findings) =
            tokio::task::block_in_place(|| found(real.host.home(), &config, &["--live"]));
        assert!(is_ok, "{findings:#?}");
        let told = about(&findings, "backend claude")["found"]
            .as_str()
            .unwrap();
        assert!(told.contains(&format!("version {version}")), "{told}");
        assert_eq!(about(&findings, "answer of claude")["state"], "ok");
        assert_eq!(about(&findings, "protocol of claude")["state"], "ok");
    }
}
