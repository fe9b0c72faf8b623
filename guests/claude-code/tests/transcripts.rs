//! The adapter against recorded dialogues: see `tests/transcripts/README.md`.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shall fail where it stands"
)]

use std::fs;
use std::path::Path;

use guest_claude_code::exchange::Exchange;
use guest_claude_code::request::{ChatRequest, Permissions};
use harness_guest::{ApiError, Delta, Effect, Outcome, Report, testing};
use serde_json::{Value, json};

#[test]
fn recorded_dialogues_have_these_effects() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/transcripts");
    let mut cases = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let case = entry.unwrap().path();
        if case.is_dir() {
            check(&case);
            cases += 1;
        }
    }
    assert!(cases > 5);
}

fn check(case: &Path) {
    let request = fs::read_to_string(case.join("request.json")).unwrap();
    let script = fs::read_to_string(case.join("cli.script")).unwrap();
    let permissions = Permissions {
        fetch_urls: false,
        show_reasoning: true,
    };
    let request = testing::request(&serde_json::from_str(&request).unwrap());
    let request = ChatRequest::from_request(request, "sonnet", permissions).unwrap();
    let mut exchange = Exchange::new(request, "chatcmpl-1");
    let mut effects = exchange.start();
    let mut written = 0;
    for line in script.lines() {
        if line == "#read" {
            written += 1;
            let writes = effects
                .iter()
                .filter(|e| matches!(e, Effect::Write(_)))
                .count();
            assert!(
                writes >= written,
                "{}: the CLI waits for what is never written",
                case.display()
            );
        } else {
            effects.extend(exchange.output(line));
        }
    }
    let lines: String = effects
        .iter()
        .map(|effect| format!("{}\n", shown(effect)))
        .collect();
    let golden = case.join("effects.jsonl");
    if std::env::var_os("UPDATE_TRANSCRIPTS").is_some() {
        fs::write(&golden, &lines).unwrap();
    }
    assert_eq!(
        lines,
        fs::read_to_string(&golden).unwrap(),
        "{}",
        golden.display()
    );
}

fn shown(effect: &Effect) -> Value {
    match effect {
        Effect::Write(text) => json!({"write": serde_json::from_str::<Value>(text).unwrap()}),
        Effect::CloseInput => json!("close-input"),
        Effect::Emit(Delta::Content(text)) => json!({ "content": text }),
        Effect::Emit(Delta::Reasoning(text)) => json!({ "reasoning": text }),
        Effect::Emit(other) => json!({ "emit": format!("{other:?}") }),
        Effect::Report(report) => json!({ "report": reported(report) }),
        Effect::Finish(outcome) => finish(outcome),
        Effect::Fail(error) => fail(error),
        Effect::Unfit(why) => json!({ "unfit": why }),
    }
}

fn finish(outcome: &Outcome) -> Value {
    let usage = outcome.usage.as_ref().unwrap();
    json!({"finish": {
        "reason": format!("{:?}", outcome.finish_reason),
        "model": outcome.model,
        "prompt": usage.prompt_tokens,
        "completion": usage.completion_tokens,
        "cached": usage.cached_tokens,
        "cache_write": usage.cache_write_tokens,
        "reasoning": usage.reasoning_tokens,
        "cost_usd": usage.cost_usd,
    }})
}

fn fail(error: &ApiError) -> Value {
    json!({"fail": {
        "kind": format!("{:?}", error.kind),
        "message": error.message,
        "param": error.param,
        "retry_at": error.retry_at,
    }})
}

fn reported(report: &Report) -> Value {
    match report {
        Report::Version(version) => json!({ "version": version }),
        Report::Models(models) => {
            let model = |m: &harness_guest::Model| json!({"id": m.id, "resolved": m.resolved, "display_name": m.display_name});
            json!({"models": models.iter().map(model).collect::<Vec<_>>()})
        }
        Report::ModelLimits(limits) => json!({"model_limits": {
            "id": limits.id,
            "context_length": limits.context_length,
            "max_output_tokens": limits.max_output_tokens,
        }}),
        Report::RateLimit(limit) => json!({"rate_limit": {
            "status": format!("{:?}", limit.status),
            "name": limit.name,
            "resets_at": limit.resets_at,
            "utilization": limit.utilization,
        }}),
        Report::LoginEndsAt(at) => json!({ "login_ends_at": at }),
        Report::Usage(tokens) => json!({"usage_so_far": tokens.prompt_tokens}),
        // Only a dialogue that asks something makes these; it has tests of its own.
        Report::Plan(_) | Report::Login(_) | Report::Lacks(_) => json!({ "of a question": true }),
        Report::Other(json) => json!({ "other": json }),
    }
}
