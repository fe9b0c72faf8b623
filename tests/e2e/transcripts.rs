//! The whole way against recorded dialogues: see `tests/transcripts/README.md`.

use std::fs;
use std::path::Path;

use harness_tests::host::fake_cli;
use serde_json::Value;

use crate::fake::Fake;

#[tokio::test]
async fn recorded_dialogues_are_answered_like_this() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts");
    for entry in fs::read_dir(folder).unwrap() {
        let case = entry.unwrap().path();
        if case.is_dir() {
            check(&case).await;
        }
    }
}

async fn check(case: &Path) {
    let request: Value =
        serde_json::from_str(&fs::read_to_string(case.join("request.json")).unwrap()).unwrap();
    let fake = Fake::start(&fs::read_to_string(case.join("cli.script")).unwrap());
    let (_, mut completion) = fake.host.post(&request).await;
    compare(
        &case.join("stdin.jsonl"),
        &without_uuids(&fs::read_to_string(fake.stdin()).unwrap()),
    );
    for key in ["id", "created", "system_fingerprint"] {
        if let Some(value) = completion.get_mut(key) {
            *value = 0.into();
        }
    }
    // What mends a login is said with the path of the command line.
    let path = fake_cli().display().to_string();
    let completion = format!("{completion:#}\n").replace(&path, "claude");
    compare(&case.join("completion.json"), &completion);
    let (_, stream) = fake.host.stream(&request).await;
    let stream = stream.replace(&path, "claude");
    compare(&case.join("stream.sse"), &without_ids(&stream));
}

/// Zeroes the ids of messages, which differ from one request to the next.
fn without_uuids(lines: &str) -> String {
    const KEY: &str = "\"uuid\":\"";
    let mut pieces = lines.split(KEY);
    let mut cut = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        cut += KEY;
        cut += piece.split_once('"').map_or(piece, |(_, rest)| rest);
    }
    cut
}

/// Zeroes what differs from one request, or one adapter, to the next: `id`, `created` and
/// `system_fingerprint`.
fn without_ids(stream: &str) -> String {
    let mut lines = Vec::new();
    for line in stream.split('\n') {
        let cut = |line: &str| {
            let (head, rest) = line.split_once("{\"id\":\"chatcmpl-")?;
            let (_, rest) = rest.split_once("\"model\":")?;
            let (model, rest) = rest.split_once(",\"system_fingerprint\":\"")?;
            let (_, rest) = rest.split_once('"')?;
            Some(format!(
                "{head}{{\"id\":0,\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":{model},\"system_fingerprint\":0{rest}"
            ))
        };
        lines.push(cut(line).unwrap_or_else(|| line.to_owned()));
    }
    lines.join("\n")
}

fn compare(golden: &Path, found: &str) {
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
        fs::write(golden, found).unwrap();
    }
    assert_eq!(
        found,
        fs::read_to_string(golden).unwrap_or_default(),
        "{}",
        golden.display()
    );
}
