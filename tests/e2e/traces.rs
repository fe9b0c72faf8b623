//! Traces of requests, at a collector. It needs a thread of its own, because the tests wait for the end of the service.

use std::time::Duration;

use harness_tests::collector::{Collector, ERROR, attribute, status_code};
use harness_tests::{poll, tls};
use rustix::process::Signal;
use serde_json::json;

use crate::fake::Fake;

const SCRIPT: &str = "#init\n#read\n#sleep 30\n#text secretmark \n#sleep 30\n#text morning\n#done";

/// A client's own span, of which the trace is recorded, or is not.
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-00";

fn traced(endpoint: &str, more: &str) -> Fake {
    let traces = format!("[traces]\nendpoint = \"{endpoint}\"\n{more}");
    Fake::start_with(SCRIPT, "", &traces)
}

/// Sends a request with this `traceparent`, and returns its status.
async fn ask(fake: &Fake, path: &str, parent: &str, body: &serde_json::Value) -> u16 {
    let request = fake.host.client().post(fake.host.url(path));
    let request = request.header("traceparent", parent).json(body);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    response.bytes().await.unwrap();
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_span_of_its_clients_trace_with_its_steps_in_it() {
    let collector = Collector::start().await.unwrap();
    let mut fake = traced(collector.endpoint(), "");
    let body = json!({"model": "fake", "input": "secretmark", "store": false, "stream": true});
    assert_eq!(ask(&fake, "/v1/responses", SAMPLED, &body).await, 200);
    fake.host.logged("api=responses").await;
    let (_, metrics) = fake.host.text("/metrics").await;
    assert!(metrics.contains("claude_harness_added_seconds_count 1\n"));
    // The last spans are sent when the service ends.
    fake.host.signal(Signal::TERM);
    fake.host.wait();
    let spans = collector.spans();
    let root = spans.iter().find(|span| span.name == "chat fake").unwrap();
    let parent = u64::from_str_radix("b7ad6b7169203331", 16).unwrap();
    assert_eq!(root.parent_span_id, parent.to_be_bytes());
    for span in &spans {
        let trace: String = span.trace_id.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(trace, "0af7651916cd43dd8448eb211c80319c");
    }
    let mut steps: Vec<_> = spans
        .iter()
        .filter(|span| span.parent_span_id == root.span_id)
        .collect();
    steps.sort_by_key(|span| span.start_time_unix_nano);
    let names: Vec<&str> = steps.iter().map(|step| &*step.name).collect();
    assert_eq!(names, ["dialect", "queue", "chain", "process", "stream"]);
    for pair in steps.windows(2) {
        assert!(pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano);
    }
    assert!(steps[0].start_time_unix_nano >= root.start_time_unix_nano);
    assert!(steps[4].end_time_unix_nano <= root.end_time_unix_nano);
    let stream = steps[4].end_time_unix_nano - steps[4].start_time_unix_nano;
    assert!(stream >= 25_000_000, "{stream} ns");
    for (name, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", "fake"),
        ("gen_ai.usage.input_tokens", "5"),
        ("gen_ai.usage.output_tokens", "4"),
        ("http.response.status_code", "200"),
        ("claude_harness.api", "responses"),
        ("claude_harness.origin", "new"),
    ] {
        assert_eq!(attribute(root, name).as_deref(), Some(value), "{name}");
    }
    for body in collector.bodies() {
        assert!(!String::from_utf8_lossy(&body).contains("secretmark"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_or_else_the_share_decides_what_is_traced() {
    let collector = Collector::start().await.unwrap();
    let mut fake = traced(collector.endpoint(), "sample_percent = 0");
    let body = json!({"model": "fake", "messages": [{"role": "user", "content": "hi"}]});
    let chat = "/v1/chat/completions";
    assert_eq!(ask(&fake, chat, NOT_SAMPLED, &body).await, 200);
    assert_eq!(ask(&fake, chat, "nonsense", &body).await, 200);
    let unknown = json!({"model": "other", "messages": body["messages"]});
    assert_eq!(ask(&fake, chat, SAMPLED, &unknown).await, 404);
    fake.host.logged("status=404").await;
    fake.host.signal(Signal::TERM);
    fake.host.wait();
    let spans = collector.spans();
    let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["chat"], "a name that nobody knows is not told");
    let code = attribute(&spans[0], "error.type");
    assert_eq!(code.as_deref(), Some("model_not_found"));
    assert_eq!(attribute(&spans[0], "gen_ai.operation.name"), None);
    assert_ne!(status_code(&spans[0]), ERROR, "it was the client's mistake");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fails_is_an_error_although_its_status_is_200() {
    let collector = Collector::start().await.unwrap();
    let mut fake = traced(collector.endpoint(), "");
    fake.play("#init\n#read\n#text one \n#exit 1");
    let body =
        json!({"model": "fake", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(fake.host.stream(&body).await.0, 200);
    fake.host.logged("status=200").await;
    fake.host.signal(Signal::TERM);
    fake.host.wait();
    let spans = collector.spans();
    let root = spans.iter().find(|span| span.name == "chat fake").unwrap();
    assert_eq!(status_code(root), ERROR);
    assert_eq!(
        attribute(root, "error.type").as_deref(),
        Some("backend_error")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_taken_up_at_a_reload() {
    let collector = Collector::start().await.unwrap();
    let fake = Fake::start(SCRIPT);
    let home = fake.host.home().to_owned();
    let traces = format!("[traces]\nendpoint = \"{}\"\n", collector.endpoint());
    fake.host.reconfigure(&Fake::config(&home, "", &traces));
    fake.host.reload().await;
    // Spans are sent every few seconds.
    poll::until("a span", Duration::from_secs(30), async || {
        fake.host.ask("fake", "hi").await;
        (!collector.spans().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_behind_tls_gets_traces_if_its_certificate_is_known() {
    let collector = Collector::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let known = folder.path().join("known.pem");
    let acceptor = tls::acceptor("localhost", &known).unwrap();
    let target = collector.authority().to_owned();
    let port = tls::in_front_of(target, acceptor).await.unwrap();
    let traces = format!("[traces]\nendpoint = \"https://localhost:{port}/v1/traces\"\n");
    let mut fake = Fake::start_with_variable(SCRIPT, ("SSL_CERT_FILE", &known), &traces);
    assert_eq!(fake.host.ask("fake", "hi").await.0, 200);
    fake.host.signal(Signal::TERM);
    fake.host.wait();
    assert!(!collector.spans().is_empty(), "{}", fake.host.log());

    let count = collector.bodies().len();
    let mut fake = Fake::start_with(SCRIPT, "", &traces);
    assert_eq!(fake.host.ask("fake", "hi").await.0, 200);
    fake.host.signal(Signal::TERM);
    fake.host.wait();
    assert_eq!(collector.bodies().len(), count, "nobody vouches for it");
    let log = fake.host.log();
    assert!(log.contains("traces cannot be sent"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_collector_the_service_serves_on_and_says_so() {
    // A port that nobody listens on.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v1/traces", socket.local_addr().unwrap());
    drop(socket);
    let mut fake = traced(&endpoint, "");
    for _ in 0..3 {
        assert_eq!(fake.host.ask("fake", "hi").await.0, 200);
    }
    poll::until("the warning", Duration::from_secs(30), async || {
        fake.host
            .log()
            .contains("traces cannot be sent")
            .then_some(())
    })
    .await;
    let (_, metrics) = fake.host.text("/metrics").await;
    let lost = metrics
        .lines()
        .find_map(|line| line.strip_prefix("claude_harness_spans_lost_total "));
    assert!(lost.unwrap().parse::<u64>().unwrap() >= 12, "{metrics}");
    assert_eq!(fake.host.ask("fake", "hi").await.0, 200);
    fake.host.signal(Signal::TERM);
    assert_eq!(fake.host.wait(), Some(0));
    let log = fake.host.log();
    assert_eq!(log.matches("traces cannot be sent").count(), 1, "{log}");
}
