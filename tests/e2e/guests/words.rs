//! What guests say of fields and of backends.

use serde_json::json;

use super::{Swapped, config, describing, hello};

#[tokio::test]
async fn what_becomes_of_a_field_is_for_the_adapter_to_say() {
    let swapped = Swapped::start("hostile", "#hang", &[]);
    let behaviour = json!({"answer": "x"});
    let config = config(swapped.host.home(), "hostile", &behaviour);
    swapped.host.reconfigure(&config);
    let honouring = describing("nothing", "temperature top_k");
    std::fs::write(swapped.file("hostile.wasm"), honouring).unwrap();
    swapped.host.reload().await;
    let mut body = hello();
    for (field, value) in [
        ("temperature", json!(1)),
        ("top_k", json!(1)),
        ("stop", json!("x")),
        ("max_tokens", json!(5)),
        ("seed", json!(1)),
        ("tools", json!([])),
    ] {
        body[field] = value;
    }
    let response = swapped.host.send(&body).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-ignored-params"], "max_tokens, seed");
    body["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
    let (status, answer) = swapped.host.post(&body).await;
    assert_eq!(
        (status, &answer["error"]["param"], &answer["error"]["code"]),
        (400, &json!("tools"), &json!("unsupported_parameter"))
    );
}

#[tokio::test]
async fn a_request_waits_for_its_adapter_before_its_fields_are_judged() {
    let behaviour = json!({"answer": "x"});
    let hostile = describing("nothing", "temperature");
    let files = [("hostile.wasm", &*hostile)];
    let swapped = Swapped::begin("hostile", "#hang", &files, &behaviour);
    let mut body = hello();
    body["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
    let (status, answer) = swapped.host.post(&body).await;
    assert_eq!(
        (status, &answer["error"]["param"]),
        (400, &json!("tools")),
        "{answer}"
    );
}

#[tokio::test]
async fn what_a_guest_reports_cannot_carry_words_to_other_clients() {
    let swapped = Swapped::start(
        "claude-code",
        "#read\n{\"type\":\"system\",\"subtype\":\"init\",\"claude_code_version\":\"s3cret words of a prompt\"}\n{\"type\":\"control_response\",\"response\":{\"subtype\":\"success\",\"request_id\":\"initialize\",\"response\":{\"models\":[{\"value\":\"s3cret words\"},{\"value\":\"x\",\"resolvedModel\":\"--settings\"}]}}}\n#done\n",
        &[],
    );
    assert_eq!(swapped.host.post(&hello()).await.0, 200);
    let shown = format!(
        "{}{}",
        swapped.host.get("/health").await.1,
        swapped.host.get("/v1/models").await.1
    );
    assert!(
        !shown.contains("s3cret") && !shown.contains("--settings"),
        "{shown}"
    );
    assert_eq!(swapped.host.ask("--settings", "x").await.0, 404);
}
