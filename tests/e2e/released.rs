//! Guests that were built for each released version of the contract still serve.

use std::path::Path;
use std::time::Duration;

use harness_tests::host::{Host, fake_cli};
use harness_tests::poll;
use serde_json::json;

/// The adapter, the transform and the dialect of each version.
const GUESTS: [&str; 3] = ["claude-code", "meddler", "completions"];

#[tokio::test]
async fn guests_of_released_versions_still_serve() {
    let released = Path::new(env!("CARGO_MANIFEST_DIR")).join("released");
    let versions: Vec<_> = std::fs::read_dir(released)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(!versions.is_empty());
    for version in versions {
        serves(&version).await;
    }
}

/// Starts a service whose guests are those of a folder, and asks it.
async fn serves(version: &Path) {
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("script");
    std::fs::write(
        &script,
        "#init\n#read\n#whole good morning\n#read\n#whole and good night",
    )
    .unwrap();
    let config = format!(
        r#"
        guests_dir = "{}"
        [backends.fake]
        command = "{}"
        env = {{ FAKE_CLI_SCRIPT = "{}" }}
        plan_windows = false
        warm = 0
        [models.plain]
        backend = "fake"
        [models.fake]
        backend = "fake"
        transforms = [{{ guest = "meddler", config = {{ mark = "1" }} }}]
        "#,
        version.display(),
        fake_cli().display(),
        script.display(),
    );
    let host = Host::start_in(home, &config);
    poll::until("the guests", Duration::from_secs(60), async || {
        let (_, health) = host.get("/health").await;
        let is_from_file = |name: &&str| health["guests"][*name]["origin"] == "file";
        GUESTS.iter().all(is_from_file).then_some(())
    })
    .await;
    let mut talk = json!([{"role": "user", "content": "hello"}]);
    for (said, kept) in [("good morning", 1), ("and good night", 0)] {
        let body = json!({"model": "plain", "messages": talk});
        let (status, answer) = host.post(&body).await;
        let message = &answer["choices"][0]["message"];
        assert_eq!((status, &message["content"]), (200, &json!(said)));
        let next = json!({"role": "user", "content": "go on"});
        let talk = talk.as_array_mut().unwrap();
        talk.extend([json!({"role": "assistant", "content": said}), next]);
        poll::until("its process at rest", Duration::from_secs(10), async || {
            let (_, health) = host.get("/health").await;
            (health["backends"]["fake"]["kept"] == kept).then_some(())
        })
        .await;
    }
    let (_, metrics) = host.text("/metrics").await;
    assert!(
        metrics.contains("claude_harness_processes_total{origin=\"kept\"} 1\n"),
        "{metrics}"
    );
    let (status, answer) = host.ask("fake", "hello").await;
    let said = &answer["choices"][0]["message"]["content"];
    assert_eq!((status, said), (200, &json!("[1 good morning]")));
    let url = host.url("/v1/completions");
    let asked = json!({"model": "fake", "prompt": "hello"});
    let response = host.client().post(url).json(&asked).send().await.unwrap();
    let answer: serde_json::Value = response.json().await.unwrap();
    assert_eq!(answer["choices"][0]["text"], "[1 good morning]");
}
