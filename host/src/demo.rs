//! The demonstration backend: a command line that speaks the Claude Code protocol and answers
//! with what it was asked.
//!
//! It takes the same way as the real one, through a guest and a process of its own, so that
//! what works with it works with the other but for the login.

use std::io::{self, BufRead, Write};

use serde_json::{Value, json};

/// The hidden subcommand that runs it.
pub const SUBCOMMAND: &str = "demo-backend";

/// Answers on standard output until standard input ends.
///
/// # Errors
///
/// Fails if standard output is closed, or if a line of standard input is no JSON.
pub fn run() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let message: Value = serde_json::from_str(&line?)?;
        match message["type"].as_str() {
            Some("control_request") => initialized(&mut out, &message)?,
            Some("user") if message["shouldQuery"] == false => appended(&mut out)?,
            Some("user") => answer(&mut out, &text_of(&message))?,
            _ => {}
        }
    }
    Ok(())
}

fn initialized(out: &mut impl Write, message: &Value) -> io::Result<()> {
    let response = json!({"subtype": "success", "request_id": message["request_id"], "response": {"models": []}});
    print(
        out,
        &json!({"type": "control_response", "response": response}),
    )
}

fn appended(out: &mut impl Write) -> io::Result<()> {
    print(
        out,
        &json!({"type": "result", "subtype": "success", "is_error": false, "num_turns": 0, "result": ""}),
    )
}

/// One word at a time, as a model would.
fn answer(out: &mut impl Write, asked: &str) -> io::Result<()> {
    let answer = format!("You said: {}", asked.trim());
    print(
        out,
        &json!({"type": "system", "subtype": "init", "claude_code_version": "demo"}),
    )?;
    let message =
        json!({"id": "msg_demo", "model": "demo", "usage": {"input_tokens": words(asked)}});
    event(out, &json!({"type": "message_start", "message": message}))?;
    for word in answer.split_inclusive(' ') {
        let delta = json!({"type": "text_delta", "text": word});
        event(
            out,
            &json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        )?;
    }
    let usage = json!({"input_tokens": words(asked), "output_tokens": words(&answer)});
    print(
        out,
        &json!({
            "type": "result", "subtype": "success", "is_error": false,
            "result": answer, "stop_reason": "end_turn", "usage": usage,
        }),
    )
}

fn event(out: &mut impl Write, event: &Value) -> io::Result<()> {
    print(out, &json!({"type": "stream_event", "event": event}))
}

fn print(out: &mut impl Write, message: &Value) -> io::Result<()> {
    writeln!(out, "{message}")?;
    out.flush()
}

fn text_of(message: &Value) -> String {
    let blocks = message["message"]["content"].as_array();
    blocks
        .into_iter()
        .flatten()
        .filter_map(|block| block["text"].as_str())
        .collect()
}

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}
