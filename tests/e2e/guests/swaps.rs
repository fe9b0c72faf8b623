//! Components and settings that are replaced while requests run.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use harness_tests::host::streamed_text;
use harness_tests::poll;
use serde_json::{Value, json};

use super::{Swapped, config, hello, hostile_component, sha256, variant};

#[tokio::test]
async fn twenty_swaps_under_load_lose_no_request() {
    let swapped = Arc::new(Swapped::start(
        "claude-code",
        "#init\n#read\n#deltas 5 20\n#done\n",
        &[],
    ));
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = (0..3)
        .map(|_| {
            let (swapped, stop, answered) = (swapped.clone(), stop.clone(), answered.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let (status, stream) = swapped.host.stream(&hello()).await;
                    assert_eq!(status, 200, "{stream}");
                    assert_eq!(streamed_text(&stream), "word ".repeat(5));
                    assert!(stream.ends_with("data: [DONE]\n\n"));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let first = swapped.state("claude-code").await;
    let mut slowest = Duration::ZERO;
    for number in 0..20 {
        let bytes = variant(number);
        match number % 3 {
            0 => swapped.rename_into("claude-code.wasm", &bytes),
            1 => std::fs::write(swapped.file("claude-code.wasm"), &bytes).unwrap(),
            _ => write_in_two_halves(&swapped.file("claude-code.wasm"), &bytes).await,
        }
        let generation = |state: &Value| state["generation"].as_u64().unwrap();
        let known = generation(&swapped.state("claude-code").await);
        let before = if number == 0 {
            generation(&first)
        } else {
            known
        };
        let new = |state: &Value| state["origin"] == "file" && state["digest"] != first["digest"];
        let digest = sha256(&bytes);
        let took = swapped
            .becomes("claude-code", "the new guest", |state| {
                new(state) && state["digest"] == *digest
            })
            .await;
        assert!(before <= generation(&swapped.state("claude-code").await));
        slowest = slowest.max(took);
        if number == 10 {
            let serving = swapped.state("claude-code").await["digest"].clone();
            std::fs::write(swapped.file("claude-code.wasm"), "rubbish").unwrap();
            swapped
                .becomes("claude-code", "the refusal", |state| {
                    state["rejected"].is_string()
                })
                .await;
            assert_eq!(
                swapped.state("claude-code").await["digest"],
                serving,
                "rubbish changes nothing"
            );
            assert_eq!(swapped.host.get("/health").await.1["status"], "degraded");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    assert!(answered.load(Ordering::Relaxed) > 20);
    println!(
        "{} streams, slowest swap {slowest:?}",
        answered.load(Ordering::Relaxed)
    );
}

async fn write_in_two_halves(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(first).unwrap();
    tokio::time::sleep(Duration::from_millis(120)).await;
    file.write_all(second).unwrap();
}

#[tokio::test]
async fn a_request_ends_on_the_guest_it_began_with() {
    let swapped = Swapped::start(
        "claude-code",
        "#init\n#read\n#text a\n#sleep 1500\n#text b\n#done\n",
        &[],
    );
    let body = hello();
    let old = swapped.host.stream(&body);
    let swap = async {
        swapped.rename_into("claude-code.wasm", &variant(1));
        swapped
            .becomes("claude-code", "the new guest", |state| {
                state["origin"] == "file"
            })
            .await;
    };
    let ((status, stream), ()) = tokio::join!(old, swap);
    assert_eq!((status, streamed_text(&stream).as_str()), (200, "ab"));
    swapped.host.logged("generation=1").await;
    std::fs::remove_file(swapped.file("claude-code.wasm")).unwrap();
    swapped
        .becomes("claude-code", "the embedded guest again", |state| {
            state["origin"] == "embedded"
        })
        .await;
}

#[tokio::test]
async fn a_refused_configuration_is_forgotten_when_it_is_mended() {
    let hostile = hostile_component();
    let swapped = Swapped::start("hostile", "#hang", &[]);
    let with = |behaviour: Value| config(swapped.host.home(), "hostile", &behaviour);
    swapped.host.reconfigure(&with(json!({"colour": "red"})));
    std::fs::write(swapped.file("hostile.wasm"), &hostile).unwrap();
    assert!(swapped.host.reload().await["rejected"]["hostile"].is_string());
    swapped.host.reconfigure(&with(json!({"answer": "mended"})));
    assert_eq!(swapped.host.reload().await["rejected"], json!({}));
    assert_eq!(swapped.host.post(&hello()).await.0, 200);
    swapped.host.reconfigure(&with(json!({"colour": "red"})));
    assert!(swapped.host.reload().await["rejected"]["hostile"].is_string());
    swapped.host.reconfigure(&with(json!({"answer": "mended"})));
    assert_eq!(swapped.host.reload().await["rejected"], json!({}));
}

#[tokio::test]
async fn a_changed_section_of_the_configuration_is_a_reload_by_itself() {
    let hostile = hostile_component();
    let swapped = Swapped::start("hostile", "#hang", &[("hostile.wasm", &hostile)]);
    swapped.host.reconfigure(&config(
        swapped.host.home(),
        "hostile",
        &json!({"answer": "new"}),
    ));
    swapped
        .becomes("hostile", "the new generation", |state| {
            state["generation"].as_u64() > Some(2)
        })
        .await;
    assert_eq!(
        swapped.host.post(&hello()).await.1["choices"][0]["message"]["content"],
        "new1"
    );
    swapped
        .host
        .reconfigure("guests = 5\napi_keys = [5, \"s3cret\"]");
    poll::until("the refusal", Duration::from_secs(5), async || {
        swapped.host.get("/health").await.1["configuration"]["rejected"]
            .is_string()
            .then_some(())
    })
    .await;
    let told = swapped.host.get("/health").await.1["configuration"]["rejected"].to_string();
    assert!(
        told.contains("`api_keys`: this array is not an array of strings")
            && !told.contains("s3cret"),
        "{told}"
    );
    assert_eq!(swapped.host.post(&hello()).await.0, 200);
}
