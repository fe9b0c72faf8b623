//! Files that are no guests, and what serves in their place.

use std::path::Path;
use std::time::{Duration, Instant};

use harness_tests::host::assert_refused;
use rustix::process::Signal;
use serde_json::json;

use super::{
    Swapped, claude_code, config, describing, hello, hostile_component, variant, wat_to_wasm,
};
use crate::fake::ANSWER;

#[tokio::test]
async fn what_is_no_guest_is_refused_with_the_reason() {
    let swapped = Swapped::start("claude-code", ANSWER, &[]);
    let arguments = r#"(component (import "wasi:cli/environment@0.2.0" (instance (export "get-arguments" (func (result (list string)))))))"#;
    let socket = r#"(component (import "wasi:sockets/tcp@0.2.9" (instance (export "tcp-socket" (type (sub resource))) (export "f" (func)))))"#;
    let wat = |text: &str| wat_to_wasm(text);
    let log_of =
        |name: &str| format!(r#"(component (import "{name}" (instance (export "f" (func)))))"#);
    let whole = claude_code();
    for (bytes, reason) in [
        (b"rubbish".to_vec(), "not a WebAssembly component"),
        (Vec::new(), "not a WebAssembly component"),
        (b"\0asm\x01\0\0\0".to_vec(), "not a WebAssembly component"),
        (
            whole[..whole.len() / 2].to_vec(),
            "not a WebAssembly component",
        ),
        (wat("(component)"), "exports neither"),
        (
            wat(&log_of("example:host/files@1.0.0")),
            "it imports `example:host/files@1.0.0`",
        ),
        // What a guest imports of WASI is no reason to refuse it.
        (wat(arguments), "exports neither"),
        (wat(socket), "exports neither"),
        (
            wat(&log_of("claude-harness:guest/log@0.1.0")),
            "version 0.1.0 of the contract: build it again",
        ),
        (
            wat(&log_of("harness:guest/log@1.1.0")),
            "version 1.1.0 of the contract, and this program knows version 1.0: update",
        ),
        (
            wat(&log_of("harness:guest/log@2.0.0")),
            "version 2.0.0 of the contract, and this program knows version 1.0: update",
        ),
    ] {
        std::fs::write(swapped.file("claude-code.wasm"), &bytes).unwrap();
        let report = swapped.host.reload().await;
        let told = report["rejected"]["claude-code"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(told.contains(reason), "{reason}: {report}");
        assert_eq!(
            swapped.host.post(&hello()).await.0,
            200,
            "what served goes on"
        );
    }
    assert_eq!(swapped.state("claude-code").await["generation"], 1);
}

#[tokio::test]
async fn what_is_no_plain_file_is_no_guest_and_holds_nothing_up() {
    let swapped = Swapped::start("claude-code", ANSWER, &[]);
    let made = std::process::Command::new("mkfifo")
        .arg(swapped.file("pipe.wasm"))
        .status();
    assert!(made.unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", swapped.file("device.wasm")).unwrap();
    std::os::unix::fs::symlink("nowhere", swapped.file("link.wasm")).unwrap();
    std::fs::create_dir(swapped.file("folder.wasm")).unwrap();
    let large = std::fs::File::create(swapped.file("large.wasm")).unwrap();
    large.set_len(100 << 20).unwrap();
    let asked = Instant::now();
    let report = swapped.host.reload().await;
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    let told = report["rejected"]["large"].as_str().unwrap_or_default();
    assert!(told.contains("larger than 64 MiB"), "{report}");
    let (_, health) = swapped.host.get("/health").await;
    for name in ["pipe", "device", "link", "folder", "large"] {
        assert!(
            health["guests"][name]["version"].is_null(),
            "{name}: {health}"
        );
    }
    assert_eq!(swapped.host.post(&hello()).await.0, 200);
}

#[tokio::test]
async fn a_guest_that_misbehaves_when_it_is_loaded_never_serves() {
    let hostile = hostile_component();
    let swapped = Swapped::start("hostile", "#hang", &[("hostile.wasm", &hostile)]);
    for (at, deed) in [
        ("configure", "spin"),
        ("configure", "allocate"),
        ("configure", "trap"),
    ] {
        let config = config(
            swapped.host.home(),
            "hostile",
            &json!({"at": at, "do": deed}),
        );
        swapped.host.reconfigure(&config);
        let report = swapped.host.reload().await;
        assert!(
            report["rejected"]["hostile"].is_string(),
            "{at} {deed}: {report}"
        );
        assert_eq!(
            swapped.host.post(&hello()).await.0,
            200,
            "the one before goes on"
        );
    }
    // A guest says what it is before it is configured, so here it is another guest.
    for deed in ["spin", "trap"] {
        std::fs::write(swapped.file("hostile.wasm"), describing(deed, "")).unwrap();
        let report = swapped.host.reload().await;
        assert!(
            report["rejected"]["hostile"].is_string(),
            "{deed}: {report}"
        );
        assert_eq!(swapped.host.post(&hello()).await.0, 200);
    }
    std::fs::write(swapped.file("hostile.wasm"), &hostile).unwrap();
    let wrong = config(swapped.host.home(), "hostile", &json!({"colour": "red"}));
    swapped.host.reconfigure(&wrong);
    let report = swapped.host.reload().await;
    let reason = report["rejected"]["hostile"].as_str().unwrap_or_default();
    assert!(
        reason.contains("`guests.hostile.config`") && reason.contains("colour"),
        "{report}"
    );
}

/// A small component that keeps a compiler busy for long: a loop whose branches each set one of many
/// variables, all of which are live everywhere.
fn slow_to_compile() -> Vec<u8> {
    const VARIABLES: usize = 3000;
    let locals = "i32 ".repeat(VARIABLES);
    let branches: String = (0..VARIABLES)
        .map(|n| {
            format!(
                "(if (local.get {n}) (then (local.set {} (i32.const {n}))))",
                (n * 7 + 1) % VARIABLES
            )
        })
        .collect();
    wat_to_wasm(&format!(
        r#"(component (core module (func (export "f") (local {locals}) (loop {branches} (br_if 0 (local.get 0))))))"#
    ))
}

#[tokio::test]
async fn a_component_that_is_never_compiled_holds_up_nothing() {
    let slow = slow_to_compile();
    assert!(slow.len() < 100_000, "{} bytes", slow.len());
    let swapped = Swapped::start("claude-code", ANSWER, &[]);
    swapped.rename_into("slow.wasm", &slow);
    swapped
        .host
        .logged("being compiled and tried guest=slow")
        .await;
    let health = swapped.host.get("/health").await.1;
    assert_eq!(health["guests"]["slow"]["compiling"], true, "{health}");
    // A configuration is taken up meanwhile, and requests are served.
    let bounded = config(swapped.host.home(), "claude-code", &json!({}));
    swapped
        .host
        .reconfigure(&format!("api_keys = [\"k\"]\n{bounded}"));
    swapped
        .host
        .logged("the configuration was read again")
        .await;
    assert_eq!(
        swapped.host.post(&hello()).await.0,
        401,
        "the new key is wanted at once"
    );
    // At the next start it lies there already: the service listens, and ends when it is told to.
    swapped
        .host
        .reconfigure(&format!("guest_compile_timeout = \"1s\"\n{bounded}"));
    let mut again = swapped.restart();
    assert_eq!(again.host.post(&hello()).await.0, 200);
    let refused = again
        .host
        .logged("was not loaded; what served before goes on guest=slow")
        .await;
    assert!(
        refused.contains("compiling it took longer than 1s"),
        "{refused}"
    );
    again.rename_into("another.wasm", &slow);
    again.host.logged("guest=another").await;
    let asked = Instant::now();
    again.host.signal(Signal::TERM);
    again.host.wait();
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "it took {:?}",
        asked.elapsed()
    );
}

#[tokio::test]
async fn after_a_restart_with_a_bad_file_the_last_good_one_serves_and_never_the_built_in_one() {
    let swapped = Swapped::start("claude-code", ANSWER, &[("claude-code.wasm", &variant(1))]);
    let good = swapped.state("claude-code").await["digest"].clone();
    std::fs::write(swapped.file("claude-code.wasm"), "rubbish").unwrap();
    let swapped = swapped.restart();
    let state = swapped
        .becomes_state("claude-code", |state| state["origin"] == "last_good")
        .await;
    assert_eq!(state["digest"], good);
    assert!(state["rejected"].is_string(), "{state}");
    assert_eq!(swapped.host.get("/health").await.1["status"], "degraded");
    assert_eq!(swapped.host.post(&hello()).await.0, 200);

    // Without one that was ever good, requests fail and say why.
    std::fs::remove_dir_all(swapped.host.home().join(".local/state")).unwrap();
    let swapped = swapped.restart();
    let (status, answer) = swapped.host.post(&hello()).await;
    assert_refused(
        &(status, answer),
        (502, "guest_error"),
        "not a WebAssembly component",
    );

    // The operator takes the file away: that is a word.
    std::fs::remove_file(swapped.file("claude-code.wasm")).unwrap();
    swapped
        .becomes_state("claude-code", |state| state["origin"] == "embedded")
        .await;
    assert_eq!(swapped.host.post(&hello()).await.0, 200);
}

#[tokio::test]
async fn files_that_others_can_write_are_no_guests() {
    use std::os::unix::fs::PermissionsExt;
    let swapped = Swapped::start("claude-code", ANSWER, &[]);
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap()
    };
    std::fs::write(swapped.file("claude-code.wasm"), variant(1)).unwrap();
    mode(&swapped.file("claude-code.wasm"), 0o666);
    let report = swapped.host.reload().await;
    let told = report["rejected"]["claude-code"]
        .as_str()
        .unwrap_or_default();
    assert!(told.contains("can be written by other users"), "{report}");
    mode(&swapped.file("claude-code.wasm"), 0o644);
    mode(&swapped.folder, 0o777);
    let report = swapped.host.reload().await;
    let told = report["guests_dir"]["rejected"]
        .as_str()
        .unwrap_or_default();
    assert!(told.contains("can be written by other users"), "{report}");
    mode(&swapped.folder, 0o755);
    assert_eq!(
        swapped.host.reload().await["changed"],
        json!(["claude-code"])
    );
    std::fs::write(swapped.file("x\nINFO forged.wasm"), "x").unwrap();
    assert!(swapped.host.reload().await["guests_dir"]["rejected"].is_string());
    assert!(!swapped.host.log().contains("\nINFO forged"));
}
