//! Every kind of bad deed, in every function that the host calls, in each of the three worlds: each has its bound, and
//! costs its own request only.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shall fail where it stands"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use claude_harness_guests::admit::{Guest, Judges};
use claude_harness_guests::cases::Case;
use claude_harness_guests::compile;
use claude_harness_guests::loader::Loader;
use claude_harness_guests::request::{Content, Message, Request, Role};
use claude_harness_guests::settings::{GuestLimits, Settings};
use serde_json::{Value, json};

/// A guest, and how each of its functions is reached: the calls of a case, of which the last one is the function.
struct World {
    guest: &'static str,
    functions: &'static [(&'static str, &'static [&'static str])],
}

const OPEN: &str = r#"{"call":"open","request":{"messages":[{"role":"user","content":"hi"}]}}"#;
const START: &str = r#"{"call":"start"}"#;
const TAKE: &str = r#"{"call":"take","deltas":[{"content":"a"}]}"#;
const FINISH: &str = r#"{"call":"finish","finish_reason":"stop"}"#;
const HTTP: &str = r#"{"call":"http","method":"POST","path":"/hostile"}"#;

const WORLDS: [World; 3] = [
    World {
        guest: "hostile",
        functions: &[
            ("configure", &[]),
            ("open", &[OPEN]),
            ("probe", &[r#"{"call":"probe"}"#]),
            ("launch-options", &[OPEN, r#"{"call":"launch-options"}"#]),
            ("want", &[OPEN, r#"{"call":"want"}"#]),
            ("start", &[OPEN, START]),
            ("resume", &[OPEN, r#"{"call":"resume"}"#]),
            (
                "output",
                &[OPEN, START, r#"{"call":"output","lines":["x"]}"#],
            ),
            ("exit", &[OPEN, START, r#"{"call":"exit","status":1}"#]),
            ("interrupt", &[OPEN, START, r#"{"call":"interrupt"}"#]),
            ("hold", &[OPEN, START, r#"{"call":"hold"}"#]),
        ],
    },
    World {
        guest: "meddler",
        functions: &[
            ("configure", &[]),
            ("open", &[OPEN]),
            ("take", &[OPEN, TAKE]),
            ("finish", &[OPEN, TAKE, FINISH]),
        ],
    },
    World {
        guest: "hostile-dialect",
        functions: &[
            ("configure", &[]),
            ("open", &[HTTP]),
            ("begin", &[HTTP, r#"{"call":"begin"}"#]),
            ("take", &[HTTP, TAKE]),
            (
                "end-choice",
                &[HTTP, r#"{"call":"end-choice","finish_reason":"stop"}"#],
            ),
            ("finish", &[HTTP, FINISH]),
            ("serve", &[r#"{"call":"serve"}"#]),
            ("render-error", &[r#"{"call":"render-error"}"#]),
            ("fail", &[HTTP, r#"{"call":"fail"}"#]),
            ("keep-alive", &[HTTP, r#"{"call":"keep-alive"}"#]),
            ("list-models", &[HTTP, r#"{"call":"list-models"}"#]),
        ],
    },
];

/// The deeds, and what is said of them. Not every function can return a text or a list.
const DEEDS: [(&str, &[&str]); 8] = [
    ("spin", &["it ran for more than"]),
    ("trap", &["it trapped"]),
    ("panic", &["it trapped"]),
    ("overflow", &["it trapped"]),
    ("allocate", &["it wanted more than 64 MiB of memory"]),
    ("huge", &["it wanted more than 64 MiB of memory"]),
    (
        "many",
        &[
            "it returned more than",
            "it ran for more than",
            "it wanted more than 64 MiB of memory",
        ],
    ),
    ("no-text", &["UTF-8", "utf-8"]),
];

/// Deeds that these functions cannot do, because of what they return.
const HARMLESS: [(&str, &str); 15] = [
    ("configure", "many"),
    ("open", "huge"),
    ("open", "many"),
    ("open", "no-text"),
    ("probe", "huge"),
    ("probe", "many"),
    ("probe", "no-text"),
    ("want", "no-text"),
    ("take", "many"),
    ("end-choice", "many"),
    ("finish", "many"),
    ("want", "many"),
    ("hold", "many"),
    ("fail", "many"),
    ("keep-alive", "many"),
];

fn main() {
    if std::env::args().nth(1).as_deref() == Some(compile::SUBCOMMAND) {
        return compile::run().unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/guests/dist");
    for world in &WORLDS {
        let file = format!("{}.wasm", world.guest);
        std::fs::copy(built.join(&file), folder.path().join(&file)).unwrap();
    }
    let loader = load(folder.path());
    let mut wrong = Vec::new();
    let mut tried = 0;
    for world in &WORLDS {
        let guest = loader.set().serving.get(world.guest).unwrap();
        for (function, calls) in world.functions {
            for (deed, said) in &DEEDS {
                let told = told(guest, function, deed, calls);
                let is_told = said.iter().any(|said| told.contains(said));
                let is_harmless = HARMLESS.contains(&(function, deed)) && !told.contains("broken");
                if !is_told && !is_harmless {
                    wrong.push(format!("{} {function} {deed}: {told}", world.guest));
                }
                let calm = self::told(guest, "", "", calls);
                assert!(!calm.contains("broken"), "after {function} {deed}: {calm}");
                tried += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{tried} deeds, each within its bounds");
}

/// The guests in a folder, with narrow bounds.
fn load(folder: &Path) -> Loader {
    let settings = Settings {
        dir: folder.to_owned(),
        cache_dir: None,
        state_dir: None,
        limits: GuestLimits {
            call: Duration::from_millis(20),
            memory: 64 << 20,
            ..GuestLimits::default()
        },
        named: Vec::new(),
        uses: Vec::new(),
        instances: 8,
    };
    let (sender, admitted) = channel();
    let on_admitted = move |done| drop(sender.send(done));
    let judges = Judges {
        read_request,
        check_settings: |_, _, _| Ok(Vec::new()),
    };
    let mut loader = Loader::start(settings, judges, Arc::new(on_admitted)).unwrap();
    while !loader.compiling().is_empty() {
        loader.admitted(admitted.recv().unwrap());
    }
    assert!(
        loader.set().rejected.is_empty(),
        "{:?}",
        loader.set().rejected
    );
    loader
}

/// What a guest does at the last call, if it does a deed in a function.
fn told(guest: &Arc<Guest>, function: &str, deed: &str, calls: &[&str]) -> String {
    let configure: Value = json!({"call": "configure", "config": {"at": function, "do": deed}});
    let text = configure.to_string() + "\n" + &calls.join("\n");
    let case = Case::parse("case", &text).unwrap();
    let began = Instant::now();
    let replayed = case.replay(guest, read_request);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{function} {deed}: {:?}",
        began.elapsed()
    );
    match replayed {
        Ok(replayed) => replayed
            .text
            .lines()
            .last()
            .unwrap_or_default()
            .chars()
            .take(400)
            .collect(),
        Err(error) => error.to_string(),
    }
}

fn read_request(_: &str) -> Result<Request, String> {
    let message = Message {
        role: Role::User,
        name: None,
        content: Some(Content::Text("hi".into())),
        tool_calls: Vec::new(),
        tool_call_id: None,
        extra: None,
    };
    Ok(Request {
        messages: vec![message],
        ..Request::default()
    })
}
