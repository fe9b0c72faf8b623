//! What becomes of whole requests and answers.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shall fail where it stands"
)]

use std::time::{Duration, Instant};

use guest_redact::{Redact, Settings};
use harness_guest::{
    Content, Decision, Delta, ErrorKind, FinishReason, Opened, Request, Step, ToolCall,
    ToolCallDelta, Transform, outcome, testing,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn settings(config: &Value) -> Settings {
    Redact::configure(&config.to_string()).unwrap()
}

fn open(config: &Value, request: &Value) -> Opened<Redact> {
    let request = testing::request(request);
    Redact::open(&settings(config), testing::context("m"), request).unwrap()
}

fn rewritten(decision: Decision) -> Request {
    match decision {
        Decision::Rewrite(request) => request,
        other => panic!("{other:?}"),
    }
}

fn text(message: &harness_guest::Message) -> &str {
    match &message.content {
        Some(Content::Text(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// The answer's text, if it came in these pieces.
fn answered(opened: Opened<Redact>, pieces: &[&str]) -> String {
    let mut filter = opened.filter.unwrap();
    let mut deltas = Vec::new();
    for piece in pieces {
        match filter.take(vec![Delta::Content((*piece).into())]) {
            Step::Forward(passed) => deltas.extend(passed),
            other => panic!("{other:?}"),
        }
    }
    deltas.extend(filter.finish(outcome(FinishReason::Stop)).unwrap().deltas);
    deltas
        .into_iter()
        .map(|delta| match delta {
            Delta::Content(text) => text,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn values_are_taken_out_everywhere_and_the_same_value_has_the_same_placeholder() {
    let request = json!({"messages": [
        {"role": "system", "content": "The user is ann@example.org."},
        {"role": "user", "name": "ann@example.org", "content": [
            {"type": "text", "text": "Write to bob@example.org and ann@example.org"},
        ]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "send", "arguments": "{\"to\": \"bob\\u0040example.org\"}"}},
            {"id": "d", "type": "function", "function": {"name": "send", "arguments": "to bob@example.org {"}},
        ]},
        {"role": "tool", "tool_call_id": "c", "content": "sent from 10.0.0.1"},
    ], "stop": ["bob@example.org"]});
    let request = rewritten(open(&json!({}), &request).decision);
    assert_eq!(text(&request.messages[0]), "The user is <EMAIL_1>.");
    assert_eq!(request.messages[1].name.as_deref(), Some("<EMAIL_1>"));
    let arguments: Vec<&str> = request.messages[2]
        .tool_calls
        .iter()
        .map(|call| match call {
            ToolCall::Function(call) => call.arguments.as_str(),
            ToolCall::Other(json) => json,
        })
        .collect();
    assert_eq!(arguments, [r#"{"to": "<EMAIL_2>"}"#, "to <EMAIL_2> {"]);
    assert_eq!(text(&request.messages[3]), "sent from <IP_1>");
    assert_eq!(request.stop, ["<EMAIL_2>"]);
}

#[test]
fn a_request_without_anything_to_hide_costs_nothing() {
    let opened = open(
        &json!({}),
        &json!({"messages": [{"role": "user", "content": "hi <b> 42"}]}),
    );
    assert!(matches!(opened.decision, Decision::Pass) && opened.filter.is_none());
}

/// What an attacker found.
#[test]
fn values_do_not_hide_behind_other_text() {
    let hidden = |content: &str| {
        let request = json!({"messages": [{"role": "user", "content": content}]});
        match open(&json!({}), &request).decision {
            Decision::Rewrite(request) => text(&request.messages[0]).to_owned(),
            other => panic!("{content}: {other:?}"),
        }
    };
    let token = "ghp_".to_owned() + &"A1b2".repeat(9);
    let pem = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----";
    assert_eq!(
        hidden(&format!("{token}\n{pem}")),
        "<API_KEY_1>\n<API_KEY_2>"
    );
    assert_eq!(
        hidden("-----BEGIN PRIVATE KEY-----\nMII see <STEP_1>"),
        "<API_KEY_1>"
    );
    let log = json!({"log": format!("x\n{token}\n4111 1111 1111 1111\t10.0.0.1\nann@example.org")});
    let log = hidden(&log.to_string());
    let log: Value = serde_json::from_str(&log).unwrap();
    assert_eq!(
        log["log"],
        "x\n<API_KEY_1>\n<CREDIT_CARD_1>\t<IP_1>\n<EMAIL_1>"
    );
    let numbers: Value = serde_json::from_str(&hidden(r#"{"card": 4111111111111111}"#)).unwrap();
    assert_eq!(numbers, json!({"card": "<CREDIT_CARD_1>"}));
    assert!(!hidden(r#"{"a":"bob@example.org","a":"x"}"#).contains("bob"));
    assert_eq!(
        hidden(
            "inet addr:192.168.1.5  Bcast:192.168.1.255 h:fe80::1 1.2.3.4:80:80 ...10.0.0.1...and"
        ),
        "inet addr:<IP_1>  Bcast:<IP_2> h:<IP_3> <IP_4>:80:80 ...<IP_5>...and"
    );
    // JSON that is not whole, and numbers that no float holds.
    assert_eq!(
        hidden(r#"{"to": "bob\u0040example.org"#),
        r#"{"to": "<EMAIL_1>"#
    );
    assert_eq!(
        hidden(r#"{"id": 12345678901234567890123, "to": "bob@example.org"}"#),
        r#"{"id": 12345678901234567890123, "to": "<EMAIL_1>"}"#
    );
    let call = json!({"messages": [
        {"role": "user", "content": "ann@example.org"},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\":\"\\u003cEMAIL_1\\u003e\"}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "x"},
    ]});
    let request = rewritten(open(&json!({}), &call).decision);
    assert_eq!(text(&request.messages[0]), "<EMAIL_2>");
}

#[test]
fn values_do_not_hide_between_two_parts() {
    let part = |text: &str| json!({"type": "text", "text": text});
    let parts = [
        part("to bob@exam"),
        part("pl"),
        part("e.org and a"),
        part("nn@example.org, <b>"),
    ];
    let request = json!({"messages": [{"role": "user", "content": parts}]});
    let request = rewritten(open(&json!({}), &request).decision);
    let Some(Content::Parts(parts)) = &request.messages[0].content else {
        panic!("{request:?}");
    };
    let texts: Vec<&str> = parts
        .iter()
        .map(|part| match part {
            harness_guest::Part::Text(part) => part.text.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(texts, ["to <EMAIL_1>", "", " and <EMAIL_2>", ", <b>"]);
}

#[test]
fn what_looks_like_a_placeholder_is_left_alone() {
    let request =
        json!({"messages": [{"role": "user", "content": "<EMAIL_1> is not ann@example.org"}]});
    let opened = open(&json!({}), &request);
    let answer = answered(
        open(&json!({}), &request),
        &["<EMAIL_1>, <EMAIL_2>, <EMAIL_3>"],
    );
    assert_eq!(answer, "<EMAIL_1>, ann@example.org, <EMAIL_3>");
    let request = rewritten(opened.decision);
    assert_eq!(text(&request.messages[0]), "<EMAIL_1> is not <EMAIL_2>");
}

#[test]
fn arguments_and_json_stay_json_when_values_are_put_back() {
    let config = json!({"builtin": [], "patterns": [{"name": "quote", "regex": "say .*!"}]});
    let said = "say \"hi\\\"!";
    let request = json!({"messages": [{"role": "user", "content": said}]});
    let mut filter = open(&config, &request).filter.unwrap();
    let piece = |arguments: &str| {
        Delta::ToolCall(ToolCallDelta {
            index: 0,
            id: None,
            name: None,
            arguments: arguments.into(),
        })
    };
    let mut arguments = String::new();
    for part in [
        "{\"a\":\"<QUO",
        "TE_1>\",\"b\":\"\\u003cQUOTE",
        "_1\\u003",
        "e\",\"c\":\"\\\\<QUOTE_1>\"}",
    ] {
        let Step::Forward(deltas) = filter.take(vec![piece(part)]) else {
            panic!("it goes on");
        };
        for delta in deltas {
            let Delta::ToolCall(call) = delta else {
                panic!("{delta:?}")
            };
            arguments += &call.arguments;
        }
    }
    let value: Value = serde_json::from_str(&arguments).unwrap();
    assert_eq!(
        value,
        json!({"a": said, "b": said, "c": format!("\\{said}")})
    );

    let format = json!({"type": "json_object"});
    let request =
        json!({"messages": [{"role": "user", "content": said}], "response_format": format});
    let answer = answered(open(&config, &request), &["{\"a\":\"<QUOTE", "_1>\"}"]);
    assert_eq!(
        serde_json::from_str::<Value>(&answer).unwrap(),
        json!({"a": said})
    );
}

#[test]
fn text_that_is_held_back_comes_before_what_follows_it() {
    let request = json!({"messages": [{"role": "user", "content": "ann@example.org"}]});
    let mut filter = open(&json!({}), &request).filter.unwrap();
    let step = filter.take(vec![
        Delta::Reasoning("a <EM".into()),
        Delta::Content("b <".into()),
    ]);
    let Step::Forward(deltas) = step else {
        panic!("{step:?}")
    };
    let shown = format!("{deltas:?}");
    assert!(
        shown.contains("a ") && shown.contains("<EM") && !shown.contains("b <\""),
        "{shown}"
    );
    let rest = filter.finish(outcome(FinishReason::Stop)).unwrap().deltas;
    assert!(matches!(&rest[..], [Delta::Content(text)] if text == "<"));
}

#[test]
fn what_cannot_be_redacted_is_refused_unless_it_may_pass() {
    let picture = json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "ann@example.org"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]}]});
    let tool = json!({"messages": [{"role": "user", "content": "hi"}], "tools": [
        {"type": "function", "function": {"name": "f", "description": "mails ann@example.org"}},
    ]});
    for (request, at) in [(&picture, "messages[0].content[1]"), (&tool, "tools[0]")] {
        let parsed = testing::request(request);
        let refused = Redact::open(&settings(&json!({})), testing::context("m"), parsed);
        let error = refused.err().unwrap();
        assert_eq!(error.param.as_deref(), Some(at));
        assert!(matches!(error.kind, ErrorKind::Refused));
        assert!(!error.message.contains("example.org"), "{}", error.message);
        let parsed = testing::request(request);
        let passing = settings(&json!({"unreadable": "pass"}));
        assert!(Redact::open(&passing, testing::context("m"), parsed).is_ok());
    }
}

#[test]
fn without_restore_the_placeholders_stay() {
    let request = json!({"messages": [{"role": "user", "content": "ann@example.org"}]});
    assert!(open(&json!({"restore": false}), &request).filter.is_none());
}

#[test]
fn every_mistake_of_a_pattern_is_told_by_its_key() {
    let config = json!({"patterns": [
        {"name": "a b", "regex": "x"},
        {"name": "ok", "regex": "("},
        {"name": "all", "regex": "x*"},
    ]});
    let problems = Redact::configure(&config.to_string()).err().unwrap();
    let keys: Vec<&str> = problems.iter().map(|problem| &*problem.key).collect();
    assert_eq!(
        keys,
        ["patterns[0].name", "patterns[1].regex", "patterns[2].regex"]
    );
    let unknown = Redact::configure(r#"{"builtin":["mail"]}"#).err().unwrap();
    assert_eq!(unknown[0].key, "builtin[0]");
}

/// Texts that are hard for searches that go back. Twice the length may take some more than twice the time, and
/// never four times as much.
#[test]
fn hostile_text_takes_time_that_grows_with_its_length() {
    let config = json!({"patterns": [{"name": "own", "regex": "(a+)+b"}]});
    let settings = settings(&config);
    let units = [
        "a@",
        "@",
        "1 ",
        "1-",
        "+1",
        "12:",
        "1.",
        "a.b@c.",
        "<A_1",
        "aaaa",
        "DE89 ",
        "de 1",
        "0170 7654321 ",
        "\\u0040",
        "eyJ.",
        "sk-",
        "::1 ",
        "-----BEGIN PRIVATE KEY----",
        "-----BEGIN ",
        "ann@example.org ",
        "4111 1111 1111 1111 ",
    ];
    for unit in units {
        let took = |size: usize| {
            let content = unit.repeat(size / unit.len());
            let request = json!({"messages": [{"role": "user", "content": content}]});
            let request = testing::request(&request);
            let began = Instant::now();
            drop(Redact::open(&settings, testing::context("m"), request));
            began.elapsed()
        };
        let (short, long) = (took(50_000), took(400_000));
        let most = short * 8 * 4 + Duration::from_millis(200);
        assert!(
            long < most,
            "{unit:?}: {short:?} for 50 KB, {long:?} for 400 KB"
        );
    }
}

proptest! {
    #[test]
    fn an_answer_is_restored_however_it_is_cut(
        cuts in prop::collection::vec(1_usize..6, 0..40),
        around in "[a-z<>_A-Z0-9 ]{0,12}",
    ) {
        let request = json!({"messages": [{"role": "user", "content": "ann@example.org 10.0.0.1 bob@example.org"}]});
        let whole = format!("{around}<EMAIL_1>{around}<IP_1><EMAIL_2><EMAIL_9>{around}<EMAIL");
        let expected = whole
            .replace("<EMAIL_1>", "ann@example.org")
            .replace("<IP_1>", "10.0.0.1")
            .replace("<EMAIL_2>", "bob@example.org");
        let mut pieces = Vec::new();
        let mut rest = &*whole;
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        prop_assert_eq!(answered(open(&json!({}), &request), &pieces), expected);
    }

    #[test]
    fn any_text_is_taken_and_its_values_come_back(content in "[ -~\u{fc}]{0,80}", seed in "[a-z]{1,8}") {
        let content = format!("{content} {seed}@example.org");
        let request = json!({"messages": [{"role": "user", "content": content}]});
        let opened = open(&json!({}), &request);
        let hidden = match &opened.decision {
            Decision::Rewrite(request) => text(&request.messages[0]).to_owned(),
            _ => return Ok(()),
        };
        let address = format!(" {seed}@example.org");
        prop_assert!(!hidden.contains(&address));
        prop_assert_eq!(answered(opened, &[&hidden]), content);
    }
}
