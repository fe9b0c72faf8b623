//! A fake command line, driven by a script: for what the real one cannot be made to do.
//!
//! The script is the file that `FAKE_CLI_SCRIPT` names. A line of it is printed as it is, or is
//! a directive:
//!
//! ```text
//! #init           reads `initialize`, and answers it
//! #read           reads a line of standard input
//! #rewind HOW      reads a request to take something back; HOW: yes, no, twice, other, silent
//! #text WORDS     prints a text delta
//! #deltas N MS    prints N text deltas, MS milliseconds apart
//! #whole WORDS    prints an answer as the real one does, from its start to the result
//! #stamp          prints a text delta with the time of day in nanoseconds
//! #stamps N MS    prints N of these, MS milliseconds apart
//! #burst N        prints N text deltas as fast as it can
//! #big N          prints a text delta of N letters
//! #flood N        prints N letters without a newline
//! #bytes HEX      prints bytes
//! #done           prints a result with usage
//! #sleep MS       waits
//! #hang           waits for ever
//! #chatter        prints empty objects for ever
//! #exit N         ends with a status
//! #abort          ends by a signal
//! #child          starts a child in the same group that outlives this process if it can
//! #stray          starts a child in a session of its own that outlives this process if it can
//! #runaway        starts a child in a session of its own that forgets its environment
//! #close-output   closes standard output, and goes on
//! #stderr TEXT    prints to standard error
//! #ignore-term    (first line) ignores SIGTERM
//! #interrupted HOW  reads the request to end the turn, and says that it is over; HOW: first (before it says that it was told), last, never
//! #usage JSON     reads the question for the plan, and answers with these windows
//! #logged-out     (first line) `auth status` says so
//! #login-unused   (first line) `auth status` says that there is a login, and its processes that there is none
//! #no-rewind      (first line) it does not know how to take something back
//! #refused        (first line) it refuses to open a session for a question
//! #slow-login MS  (first line) `auth status` takes so long
//! #login-ends T   (first line) `auth status` says that the login ends at T
//! ```
//!
//! Each process adds its id, and those of its children, to the file that `FAKE_CLI_PIDS` names,
//! and the lines that it reads to the one that `FAKE_CLI_STDIN` names. Asked what it offers, as every backend is at the
//! start, it has nothing, and does not count.

use std::fs::OpenOptions;
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio, exit};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

const VERSION: &str = "0.0.1";

fn main() -> io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--version") {
        println!("{VERSION} (a fake)");
        return Ok(());
    }
    let script = std::env::var("FAKE_CLI_SCRIPT").map_err(io::Error::other)?;
    let script = std::fs::read_to_string(script)?;
    if std::env::args().nth(1).as_deref() == Some("auth") {
        if let Some(time) = first_line(&script, "slow-login") {
            let time = time.parse().map_err(io::Error::other)?;
            std::thread::sleep(Duration::from_millis(time));
        }
        let logged_in = first_line(&script, "logged-out").is_none();
        let ends = first_line(&script, "login-ends");
        println!(
            "{}",
            json!({ "loggedIn": logged_in, "loginExpiresAt": ends })
        );
        exit(i32::from(!logged_in));
    }
    if script.starts_with("#ignore-term") && std::env::var_os("FAKE_CLI_AGAIN").is_none() {
        // An ignored signal stays ignored in the program that takes this one's place.
        let this = std::env::current_exe()?;
        let shell = ["-c", r#"trap "" TERM; exec "$0" "$@""#];
        return Err(Command::new("/bin/sh")
            .args(shell)
            .arg(this)
            .args(std::env::args().skip(1))
            .env("FAKE_CLI_AGAIN", "1")
            .exec());
    }
    if std::env::args().any(|argument| argument == "default") {
        return introduced(&script);
    }
    note(std::process::id())?;
    for line in script.lines() {
        play(line)?;
    }
    Ok(())
}

/// What stands behind this directive in the first line of a script.
fn first_line<'a>(script: &'a str, directive: &str) -> Option<&'a str> {
    let first = script.lines().next()?.strip_prefix('#')?;
    let (name, rest) = first.split_once(' ').unwrap_or((first, ""));
    (name == directive).then_some(rest)
}

/// Answers questions about itself until nobody asks any more.
fn introduced(script: &str) -> io::Result<()> {
    loop {
        let line = next_line()?;
        if line.is_empty() {
            return Ok(());
        }
        let request: Value = serde_json::from_str(&line)?;
        let kind = request["request"]["subtype"].as_str().unwrap_or_default();
        let refuses = match kind {
            "initialize" => first_line(script, "refused").is_some(),
            "rewind_conversation" => first_line(script, "no-rewind").is_some(),
            _ => false,
        };
        let account = match first_line(script, "login-unused") {
            Some(_) => json!({"tokenSource": "none", "apiProvider": "firstParty"}),
            None => json!({"subscriptionType": "Claude Max", "apiProvider": "firstParty"}),
        };
        let answer = match kind {
            "initialize" => json!({"models": [], "account": account}),
            "get_binary_version" => json!({"version": VERSION}),
            "rewind_conversation" => json!({"rewound": false, "error": "target not found"}),
            _ => json!({"rate_limits": null}),
        };
        let response = match refuses {
            true => {
                json!({"subtype": "error", "request_id": request["request_id"], "error": "not known"})
            }
            false => {
                json!({"subtype": "success", "request_id": request["request_id"], "response": answer})
            }
        };
        print(&json!({"type": "control_response", "response": response}).to_string())?;
    }
}

fn interrupted(request: &str, how: &str) -> io::Result<()> {
    let request: Value = serde_json::from_str(request)?;
    let response = json!({"subtype": "success", "request_id": request["request_id"]});
    let told = json!({"type": "control_response", "response": response}).to_string();
    let over = json!({"type": "result", "subtype": "error_during_execution", "is_error": true});
    let over = over.to_string();
    match how {
        "first" => print(&over).and_then(|()| print(&told)),
        "last" => print(&told).and_then(|()| print(&over)),
        _ => print(&told),
    }
}

fn usage(request: &str, windows: &str) -> io::Result<()> {
    let request: Value = serde_json::from_str(request)?;
    let windows: Value = serde_json::from_str(windows)?;
    let answer = json!({"subscription_type": "max", "rate_limits": windows});
    let response =
        json!({"subtype": "success", "request_id": request["request_id"], "response": answer});
    print(&json!({"type": "control_response", "response": response}).to_string())
}

fn play(line: &str) -> io::Result<()> {
    let Some(directive) = line.strip_prefix('#') else {
        return print(line);
    };
    let (name, rest) = directive.split_once(' ').unwrap_or((directive, ""));
    let number = |text: &str| text.parse::<u64>().map_err(io::Error::other);
    match name {
        "init" => initialized(&read()?),
        "read" => read().map(drop),
        "rewind" => rewind(&read()?, rest),
        "interrupted" => interrupted(&read()?, rest),
        "usage" => usage(&read()?, rest),
        "text" => delta(rest),
        "whole" => whole(rest),
        "deltas" => repeat(rest, || delta("word ")),
        "stamp" => stamp(),
        "stamps" => repeat(rest, stamp),
        "burst" => burst(number(rest)?),
        "big" => delta(&"x".repeat(number(rest)? as usize)),
        "flood" => flood(number(rest)?),
        "bytes" => raw(&(0..rest.len() / 2)
            .filter_map(|i| u8::from_str_radix(&rest[2 * i..2 * i + 2], 16).ok())
            .collect::<Vec<u8>>()),
        "done" => print(&done().to_string()),
        "sleep" => {
            std::thread::sleep(Duration::from_millis(number(rest)?));
            Ok(())
        }
        "chatter" => loop {
            raw(&b"{}\n".repeat(20_000))?;
        },
        "hang" => loop {
            std::thread::park();
        },
        "exit" => exit(number(rest)? as i32),
        "abort" => std::process::abort(),
        "child" => note(
            Command::new("/bin/sleep")
                .arg("1000")
                .stdin(Stdio::null())
                .spawn()?
                .id(),
        ),
        "stray" => note(
            Command::new("/usr/bin/setsid")
                .args(["/bin/sleep", "1000"])
                .stdin(Stdio::null())
                .spawn()?
                .id(),
        ),
        "runaway" => note(
            Command::new("/usr/bin/setsid")
                .args(["/usr/bin/env", "-i", "/bin/sleep", "1000"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?
                .id(),
        ),
        "close-output" => {
            rustix::stdio::dup2_stdout(std::fs::File::open("/dev/null")?).map_err(Into::into)
        }
        "stderr" => writeln!(io::stderr(), "{rest}"),
        "ignore-term" | "logged-out" | "login-ends" | "login-unused" | "no-rewind" | "refused"
        | "slow-login" => Ok(()),
        other => Err(io::Error::other(format!("no directive `{other}`"))),
    }
}

/// Does something so many times, so many milliseconds apart.
fn repeat(numbers: &str, what: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let (count, pause) = numbers.split_once(' ').unwrap_or((numbers, "0"));
    let number = |text: &str| text.parse::<u64>().map_err(io::Error::other);
    let pause = Duration::from_millis(number(pause)?);
    for _ in 0..number(count)? {
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        what()?;
    }
    Ok(())
}

/// A delta with the time of day in nanoseconds.
fn stamp() -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    delta(&now.map_err(io::Error::other)?.as_nanos().to_string())
}

/// Deltas as fast as they can be written, many at once.
fn burst(count: u64) -> io::Result<()> {
    const AT_ONCE: u64 = 200;
    let line = format!("{}\n", text_delta("word "));
    let piece = line.repeat(AT_ONCE as usize);
    for _ in 0..count / AT_ONCE {
        raw(piece.as_bytes())?;
    }
    raw(line.repeat((count % AT_ONCE) as usize).as_bytes())
}

fn read() -> io::Result<String> {
    let line = next_line()?;
    if line.is_empty() {
        exit(0);
    }
    append("FAKE_CLI_STDIN", &line)?;
    Ok(line)
}

fn next_line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line)
}

fn rewind(request: &str, how: &str) -> io::Result<()> {
    let request: Value = serde_json::from_str(request)?;
    let id = match how {
        "other" => json!("rewind-of-somebody-else"),
        _ => request["request_id"].clone(),
    };
    let answer = match how {
        "no" => json!({"rewound": false, "error": "no preceding assistant"}),
        _ => json!({"rewound": true}),
    };
    let response = json!({"subtype": "success", "request_id": id, "response": answer});
    let line = json!({"type": "control_response", "response": response}).to_string();
    match how {
        "silent" => Ok(()),
        "twice" => print(&line).and_then(|()| print(&line)),
        _ => print(&line),
    }
}

fn initialized(request: &str) -> io::Result<()> {
    let request: Value = serde_json::from_str(request)?;
    let response = json!({"subtype": "success", "request_id": request["request_id"], "response": {"models": []}});
    print(&json!({"type": "control_response", "response": response}).to_string())
}

fn delta(text: &str) -> io::Result<()> {
    print(&text_delta(text).to_string())
}

fn text_delta(text: &str) -> Value {
    let delta = json!({"type": "text_delta", "text": text});
    let event = json!({"type": "content_block_delta", "index": 0, "delta": delta});
    json!({"type": "stream_event", "event": event})
}

/// An answer of one text block, with all that belongs to it.
fn whole(text: &str) -> io::Result<()> {
    let event = |event: Value| print(&json!({"type": "stream_event", "event": event}).to_string());
    event(json!({"type": "message_start", "message": {"id": "msg_1", "model": "fake"}}))?;
    event(json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text"}}))?;
    delta(text)?;
    event(json!({"type": "content_block_stop", "index": 0}))?;
    event(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}))?;
    print(&done().to_string())
}

fn done() -> Value {
    json!({
        "type": "result", "subtype": "success", "is_error": false, "result": "", "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 4, "cache_read_input_tokens": 2},
    })
}

fn print(line: &str) -> io::Result<()> {
    raw(format!("{line}\n").as_bytes())
}

fn raw(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

fn flood(count: u64) -> io::Result<()> {
    let piece = [b'x'; 1 << 16];
    let mut left = count as usize;
    while left > 0 {
        let size = left.min(piece.len());
        raw(&piece[..size])?;
        left -= size;
    }
    Ok(())
}

fn note(pid: u32) -> io::Result<()> {
    append("FAKE_CLI_PIDS", &format!("{pid}\n"))
}

/// Appends to the file that a variable names, if it does.
fn append(variable: &str, text: &str) -> io::Result<()> {
    let Some(path) = std::env::var_os(variable) else {
        return Ok(());
    };
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?
        .write_all(text.as_bytes())
}
