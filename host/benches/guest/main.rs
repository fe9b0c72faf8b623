//! What the adapter costs as a guest, beside the same adapter compiled natively.
//!
//! `cargo bench --bench guest` prints rows for the benchmark's table. With `lines native 1000`, or
//! `guest` instead of `native`, or `requests` or `instances` instead of `lines`, it only does that: for
//! callgrind, which counts instructions, so that two runs of different length tell what one costs.
//!
//! With `files A.wasm B.wasm` it measures these components.

mod files;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use guest_claude_code::exchange::Exchange;
use guest_claude_code::request::{ChatRequest, Permissions};
use guests::adapter::AdapterSession;
use guests::admit::Judges;
use guests::compile;
use guests::completion::{Context, Delta};
use guests::dialect::{self, Opened};
use guests::http::HttpRequest;
use guests::instance::{Configured, NotOpened};
use guests::loader::Loader;
use guests::request::{Content, Message, Request, Role};
use guests::settings::{GuestLimits, GuestUse, Settings};
use guests::transform;
use harness_guest::testing;

const REQUEST: &str = r#"{"stream":true,"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Say hi"}]}"#;
const LINE: &str = r#"{"type":"stream_event","event":{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word "}},"session_id":"0b5f3d2e-2f7b-4c7e-9f0a-3a1f5f0a2b1c","parent_tool_use_id":null,"uuid":"5f0a2b1c-2f7b-4c7e-9f0a-3a1f0b5f3d2e"}"#;

/// Nothing is judged.
const JUDGES: Judges = Judges {
    read_request: |_| Err(String::new()),
    check_settings: |_, _, _| Ok(Vec::new()),
};

/// The built-in adapter as the service runs it, with room for this many instances.
fn built_in(instances: u32) -> Result<Configured> {
    shipped("claude-code", &serde_json::json!({}), instances)
}

/// A built-in guest with this configuration.
fn shipped(name: &str, config: &serde_json::Value, instances: u32) -> Result<Configured> {
    loaded(Path::new("/nowhere"), name, config, instances)
}

/// A guest from a folder, or else a built-in one, with this configuration.
fn loaded(
    dir: &Path,
    name: &str,
    config: &serde_json::Value,
    instances: u32,
) -> Result<Configured> {
    let settings = Settings {
        dir: dir.into(),
        cache_dir: None,
        state_dir: None,
        limits: GuestLimits::default(),
        named: Vec::new(),
        uses: vec![GuestUse {
            guest: name.into(),
            at: "bench".into(),
            config: config.clone(),
        }],
        instances,
    };
    let (sender, admitted) = std::sync::mpsc::channel();
    let on_admitted = move |done| drop(sender.send(done));
    let mut loader = Loader::start(settings, JUDGES, Arc::new(on_admitted))?;
    loader.visit(true);
    while !loader.compiling().is_empty() {
        loader.admitted(admitted.recv()?);
    }
    let guest = loader.set().serving.get(name);
    let guest = guest.with_context(|| {
        format!(
            "{name} does not serve: {:?}",
            loader.set().rejected.get(name)
        )
    })?;
    Configured::new(guest, config).context("it takes the configuration")
}

fn message(role: Role, text: &str) -> Message {
    Message {
        role,
        name: None,
        content: Some(Content::Text(text.into())),
        tool_calls: Vec::new(),
        tool_call_id: None,
        extra: None,
    }
}

fn context() -> Context {
    Context {
        id: "chatcmpl-1".into(),
        created: 1,
        model: "sonnet".into(),
        backend_model: "sonnet".into(),
        resolved_model: None,
        profile: "claude-code".into(),
        fetch_urls: false,
        choice: 0,
    }
}

fn told(why: NotOpened) -> anyhow::Error {
    match why {
        NotOpened::Refused(error) => anyhow::Error::msg(error.message),
        NotOpened::Broken(error) => error.into(),
    }
}

/// What `REQUEST` says.
fn request() -> Request {
    let messages = [(Role::System, "Be brief."), (Role::User, "Say hi")];
    Request {
        messages: messages.map(|(role, text)| message(role, text)).into(),
        stream: true,
        ..Request::default()
    }
}

/// What a request takes before its process is there.
fn open(guest: &Configured) -> Result<AdapterSession> {
    let opened = AdapterSession::open(guest.clone(), &context(), &request(), REQUEST.len());
    let mut session = opened.map_err(told)?;
    black_box(session.launch_options()?);
    black_box(session.start(REQUEST.len())?);
    Ok(session)
}

fn native() -> Result<Exchange> {
    let permissions = Permissions {
        fetch_urls: false,
        show_reasoning: true,
    };
    let request = testing::request(&serde_json::from_str(REQUEST)?);
    let request = ChatRequest::from_request(request, "sonnet", permissions);
    let request = request.map_err(|error| anyhow::Error::msg(error.message))?;
    let mut exchange = Exchange::new(request, "chatcmpl-1");
    black_box(exchange.launch_options());
    black_box(exchange.start());
    Ok(exchange)
}

/// The median of so many rounds, in microseconds.
fn median(rounds: usize, mut round: impl FnMut() -> Result<Duration>) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        times.push(round()?);
    }
    times.sort();
    Ok(times[times.len() / 2].as_secs_f64() * 1e6)
}

/// What each shipped transform takes for a request of two messages, and for each delta of its answer.
fn transforms() -> Result<()> {
    const COUNT: u32 = 2_000;
    let redact =
        serde_json::json!({"builtin": ["email", "phone", "credit-card", "iban", "ip", "api-key"]});
    let system =
        serde_json::json!({"prepend": "Today is {{ date }}.", "append": "Answer as {{ model }}."});
    for (name, config) in [("redact", redact), ("system-prompt", system)] {
        let guest = shipped(name, &config, 1000)?;
        let messages = [
            (Role::System, "Be brief."),
            (
                Role::User,
                "Write to a@example.com, or call +49 30 1234567.",
            ),
        ];
        let request = Request {
            messages: messages.map(|(role, text)| message(role, text)).into(),
            stream: true,
            ..Request::default()
        };
        let open = || transform::open(&guest, &context(), &request, REQUEST.len()).map_err(told);
        let opened = median(9, || {
            let started = Instant::now();
            for _ in 0..COUNT {
                black_box(open()?);
            }
            Ok(started.elapsed() / COUNT)
        })?;
        println!("| guest: a request through `{name}` | {opened:.1} µs | 30 µs |");
        let (_, Some(mut filter)) = open()? else {
            continue;
        };
        let delta = [Delta::Content("word ".into())];
        let taken = median(9, || {
            let started = Instant::now();
            for _ in 0..COUNT {
                black_box(filter.take(&delta)?);
            }
            Ok(started.elapsed() / COUNT)
        })?;
        println!("| guest: a delta through `{name}` | {taken:.2} µs | 3 µs |");
    }
    Ok(())
}

/// What each shipped dialect takes to read a call, and to write the beginning of an answer.
fn dialects() -> Result<()> {
    const COUNT: u32 = 1_000;
    let messages = r#"{"model":"sonnet","max_tokens":100,"stream":true,"system":"Be brief.","messages":[{"role":"user","content":"Say hi"}]}"#;
    let responses = r#"{"model":"sonnet","store":false,"stream":true,"instructions":"Be brief.","input":"Say hi"}"#;
    let ollama = r#"{"model":"sonnet","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Say hi"}]}"#;
    for (name, path, body) in [
        ("messages", "/v1/messages", messages),
        ("responses", "/v1/responses", responses),
        ("ollama", "/api/chat", ollama),
    ] {
        let guest = shipped(name, &serde_json::json!({}), 1000)?;
        let http = HttpRequest {
            method: "POST".into(),
            path: path.into(),
            query: None,
            headers: Vec::new(),
            body: body.into(),
        };
        let open = || -> Result<_> {
            match dialect::open(guest.clone(), &context(), &http).map_err(told)? {
                Opened::Completion { call, .. } => Ok(call),
                _ => bail!("it is no completion"),
            }
        };
        let read = median(9, || {
            let started = Instant::now();
            for _ in 0..COUNT {
                black_box(open()?);
            }
            Ok(started.elapsed() / COUNT)
        })?;
        let delta = [Delta::Content("word ".into())];
        let begun = median(9, || {
            let started = Instant::now();
            for _ in 0..COUNT {
                let mut call = open()?;
                black_box(call.begin()?);
                black_box(call.take(0, &delta)?);
            }
            Ok(started.elapsed() / COUNT)
        })?;
        println!(
            "| guest: a call read by `{name}`; its answer begun | {read:.0} µs; {:.0} µs | |",
            begun - read
        );
    }
    Ok(())
}

/// What a prompt of 50 turns takes.
fn templates() -> Result<()> {
    const COUNT: u32 = 100;
    let guest = shipped(
        "prompt-template",
        &serde_json::json!({"template": "chatml"}),
        1000,
    )?;
    let turns = (0..50).map(|i| {
        message(
            if i % 2 == 0 {
                Role::User
            } else {
                Role::Assistant
            },
            "Some words of a turn.",
        )
    });
    let request = Request {
        messages: turns.collect(),
        ..Request::default()
    };
    let rendered = median(9, || {
        let started = Instant::now();
        for _ in 0..COUNT {
            let opened = AdapterSession::open(guest.clone(), &context(), &request, 4096);
            black_box(opened.map_err(told)?.start(4096)?);
        }
        Ok(started.elapsed() / COUNT)
    })?;
    println!(
        "| guest: 50 turns through `prompt-template`, from a fresh instance to the prompt | {rendered:.0} µs | 200 µs |"
    );
    Ok(())
}

/// Does one thing so many times.
fn repeat(what: &str, how: &str, count: u32, pooled: bool) -> Result<Duration> {
    let guest = match how {
        "guest" => Some(built_in(if pooled { 1000 } else { 2 })?),
        "native" => None,
        _ => bail!("guest or native?"),
    };
    let mut session = guest.as_ref().map(open).transpose()?;
    let mut exchange = native()?;
    let started = Instant::now();
    for _ in 0..count {
        match (what, &guest, &mut session) {
            ("requests", Some(guest), _) => drop(black_box(open(guest)?)),
            ("requests", None, _) => drop(black_box(native()?)),
            ("instances", Some(guest), _) => guest.guest.try_instance(&guest.config)?,
            ("instances", None, _) => {}
            ("lines", _, Some(session)) => drop(black_box(session.output(&[LINE], 0)?)),
            ("lines", _, None) => drop(black_box(exchange.output(LINE))),
            _ => bail!("requests, instances or lines?"),
        }
    }
    Ok(started.elapsed() / count)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if arguments
        .first()
        .is_some_and(|it| it == compile::SUBCOMMAND)
    {
        return Ok(compile::run()?);
    }
    if let Some((_, components)) = arguments.split_first().filter(|(it, _)| *it == "files") {
        return components
            .iter()
            .try_for_each(|file| files::measure(Path::new(file)));
    }
    if let [what, how, count] = arguments.as_slice() {
        repeat(
            what,
            how,
            count.parse().context("a number")?,
            std::env::var_os("POOLED").is_some(),
        )?;
        return Ok(());
    }
    for (what, count, name) in [
        ("requests", 2_000, "guest: a request opened and started"),
        ("instances", 2_000, "guest: of that, a fresh instance"),
        ("lines", 50_000, "guest: a delta's line"),
    ] {
        let mut both = ["guest", "native"].map(|how| (how, Vec::new()));
        for _ in 0..9 {
            for (how, times) in &mut both {
                times.push(repeat(what, how, count, true)?);
            }
        }
        let [guest, native] = both.map(|(_, mut times)| {
            times.sort();
            times[times.len() / 2].as_secs_f64() * 1e6
        });
        if what == "instances" {
            println!("| {name} | {guest:.2} µs | 12 µs |");
            continue;
        }
        let ratio = guest / native;
        println!("| {name} | {guest:.2} µs, native {native:.2} µs: {ratio:.1} times | 2.5 times |");
    }
    transforms()?;
    dialects()?;
    templates()
}
