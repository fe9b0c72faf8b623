//! The client leaves, or the service does: nothing is left behind.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use harness_tests::host::Host;
use harness_tests::poll;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::fake::{ANSWER, Fake};

/// How long processes may take to go, children and all.
const GONE: Duration = Duration::from_millis(1000);

/// An endless answer by a process with a child, neither of which heeds SIGTERM.
const STUBBORN: &str = "#ignore-term\n#child\n#init\n#read\n#deltas 100000 5\n";

fn hello(stream: bool) -> Value {
    json!({"model": "fake", "stream": stream, "messages": [{"role": "user", "content": "Say hi"}]})
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_takes_the_whole_tree_along() {
    let fake = Fake::start(STUBBORN);
    let mut stream = fake.host.send(&hello(true)).await.bytes_stream();
    stream.next().await.unwrap().unwrap();
    assert_eq!(fake.started(2).await.len(), 2);
    drop(stream);
    fake.all_gone(GONE).await;
    fake.host.logged("status=499").await;
}

#[tokio::test]
async fn a_client_that_leaves_a_unary_request_takes_the_whole_tree_along() {
    let fake = Fake::start(STUBBORN);
    let body = hello(false);
    tokio::select! {
        _ = fake.host.post(&body) => panic!("it never ends"),
        _ = fake.started(2) => {}
    }
    fake.all_gone(GONE).await;
    fake.host.logged("status=499").await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_byte_takes_the_whole_tree_along() {
    let fake = Fake::start("#ignore-term\n#child\n#hang");
    let body = hello(true);
    tokio::select! {
        _ = fake.host.send(&body) => panic!("it says nothing"),
        _ = fake.started(2) => {}
    }
    fake.all_gone(GONE).await;
}

#[tokio::test]
async fn bytes_behind_the_request_do_not_hide_that_the_client_left() {
    use tokio::io::AsyncWriteExt;
    for tail in ["\r\n", "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
        let fake = Fake::start(STUBBORN);
        let body = hello(false).to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut socket = tokio::net::TcpStream::connect(fake.host.authority())
            .await
            .unwrap();
        socket
            .write_all(format!("{head}{body}{tail}").as_bytes())
            .await
            .unwrap();
        fake.started(2).await;
        drop(socket);
        fake.all_gone(GONE).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_place() {
    let fake = Fake::start_with(
        "#init\n#read\n#deltas 1000000 0\n",
        "",
        "client_timeout = \"500ms\"",
    );
    let _client = fake.slow_client(&hello(true)).await;
    fake.started(1).await;
    fake.all_gone(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_body_that_does_not_go_on_is_given_up() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let fake = Fake::start_with(ANSWER, "", "client_timeout = \"300ms\"");
    let mut socket = tokio::net::TcpStream::connect(fake.host.authority())
        .await
        .unwrap();
    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
}

#[tokio::test]
async fn a_service_that_is_killed_leaves_nothing() {
    let mut fake = Fake::start(STUBBORN);
    let mut stream = fake.host.send(&hello(true)).await.bytes_stream();
    stream.next().await.unwrap().unwrap();
    assert_eq!(fake.started(2).await.len(), 2);
    fake.host.kill();
    fake.all_gone(GONE).await;
}

#[tokio::test]
async fn a_signal_lets_requests_in_flight_finish() {
    let mut fake = Fake::start("#init\n#read\n#text a\n#sleep 700\n#text b\n#done\n");
    let mut stream = fake.host.send(&hello(true)).await.bytes_stream();
    let mut all = stream.next().await.unwrap().unwrap().to_vec();
    kill_process(Pid::from_raw(fake.host.pid()).unwrap(), Signal::TERM).unwrap();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    assert!(
        String::from_utf8(all)
            .unwrap()
            .ends_with("data: [DONE]\n\n")
    );
    assert_eq!(fake.host.wait(), Some(0));
    fake.all_gone(GONE).await;
}

#[tokio::test]
async fn after_the_grace_or_a_second_signal_requests_are_cut_off() {
    for (config, signals) in [
        ("shutdown_grace = \"300ms\"", 1),
        ("shutdown_grace = \"10m\"", 2),
    ] {
        let mut fake = Fake::start_with(STUBBORN, "", config);
        let mut stream = fake.host.send(&hello(true)).await.bytes_stream();
        stream.next().await.unwrap().unwrap();
        fake.started(2).await;
        for _ in 0..signals {
            kill_process(Pid::from_raw(fake.host.pid()).unwrap(), Signal::TERM).unwrap();
            fake.host.logged("draining").await;
        }
        assert_eq!(fake.host.wait(), Some(0));
        fake.all_gone(GONE).await;
    }
}

#[tokio::test]
async fn twenty_at_once_and_half_of_them_abandoned_leave_nothing_over() {
    let fake = Fake::start_with(ANSWER, "max_concurrent = 8\nqueue = 100", "");
    assert_eq!(fake.host.post(&hello(false)).await.0, 200);
    fake.all_gone(GONE).await;
    // From here on the ledger's file is open.
    assert_eq!(fake.host.get("/admin/usage").await.0, 200);
    let descriptors = || {
        std::fs::read_dir(format!("/proc/{}/fd", fake.host.pid()))
            .unwrap()
            .count()
    };
    let idle = || async { fake.host.get("/health").await.1["backends"]["fake"]["in_flight"] == 0 };
    let before = descriptors();
    fake.play("#child\n#init\n#read\n#deltas 20 10\n#done\n");
    let requests = (0..20).map(|i| {
        let fake = &fake;
        async move {
            let body = hello(i % 2 == 0);
            let whole = async { fake.host.send(&body).await.bytes().await };
            if i % 4 < 2 {
                // Abandoned early, midway or late.
                let _ = tokio::time::timeout(Duration::from_millis(40 * i), whole).await;
            } else {
                assert!(!whole.await.unwrap().is_empty());
            }
        }
    });
    futures_util::future::join_all(requests).await;
    fake.all_gone(Duration::from_secs(5)).await;
    poll::until("a quiet service", Duration::from_secs(5), async || {
        idle().await.then_some(())
    })
    .await;
    poll::until(
        "no descriptor more than before",
        Duration::from_secs(5),
        async || (descriptors() <= before).then_some(()),
    )
    .await;
    let (_, text) = fake.host.text("/metrics").await;
    assert!(
        text.contains("claude_harness_requests_in_flight 0"),
        "{text}"
    );
    assert!(
        text.contains("gen_ai_server_time_to_first_token_seconds_bucket"),
        "{text}"
    );
}

#[tokio::test]
async fn a_child_that_forgot_where_it_came_from_does_not_outlive_the_service() {
    let mut fake = Fake::start("#runaway\n#init\n#read\n#text x\n#done\n");
    assert_eq!(fake.host.post(&hello(false)).await.0, 200);
    let left = fake.started(2).await;
    fake.host.signal(Signal::TERM);
    fake.host.wait();
    poll::until("the end of the child", Duration::from_secs(5), async || {
        left.iter().all(|pid| !poll::is_alive(*pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_command_line_that_closes_its_output_gives_its_place_back() {
    let fake = Fake::start_with(
        "#init\n#read\n#close-output\n#hang\n",
        "max_concurrent = 1",
        "",
    );
    let begun = Instant::now();
    let (status, answer) = fake.host.post(&hello(false)).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (502, &json!("backend_error")),
        "{answer}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    fake.load(0, 0).await;
}

#[tokio::test]
async fn a_clean_end_leaves_no_folder() {
    for _ in 0..10 {
        let home = tempfile::tempdir().unwrap();
        let folders = home.path().join("tmp");
        std::fs::create_dir(&folders).unwrap();
        let config = Fake::config(home.path(), "", "");
        std::fs::write(home.path().join("script"), ANSWER).unwrap();
        let mut host = Host::start_with_variable(home, ("TMPDIR", &folders), &config);
        assert_eq!(host.post(&hello(false)).await.0, 200);
        host.signal(Signal::TERM);
        host.wait();
        poll::until(
            "the end of the folder",
            Duration::from_secs(5),
            async || {
                std::fs::read_dir(&folders)
                    .unwrap()
                    .next()
                    .is_none()
                    .then_some(())
            },
        )
        .await;
    }
}
