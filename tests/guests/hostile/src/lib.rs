//! A guest that does what its configuration tells it, good or bad: for the tests of the host's
//! bounds. What it does in `describe`, before it has a configuration, stands in `DESCRIBED`.
//!
//! `{"at": "open", "do": "spin"}` spins in `open`. With `{"write": "…"}` it writes that text to
//! the backend. Without either it answers at once.

use std::cell::{Cell, RefCell};

use harness_guest::{
    Adapter, Annotation, ApiError, Context, Delta, Description, Effect, FinishReason, Held,
    LaunchOption, Level, Problem, Request,
};

/// What to do, and when.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// The function in which it happens.
    pub at: String,
    /// What happens.
    pub r#do: String,
    /// What is written to the backend, piece by piece.
    pub write: Vec<String>,
    /// What is answered.
    pub answer: String,
}

/// What `describe` does, and the fields of a request that it says it honours.
static DESCRIBED: &str = "describe does nothing honours                                 ";

thread_local! {
    static BEHAVIOUR: RefCell<Behaviour> = RefCell::default();
    /// Counts the sessions of one instance: there must never be a second one.
    static SESSIONS: Cell<u32> = const { Cell::new(0) };
}

/// A session that does what it is told.
#[derive(Debug)]
pub struct Hostile;

fn behave(here: &str) -> Vec<Effect> {
    let behaviour = BEHAVIOUR.with_borrow(Clone::clone);
    match behaviour.at == here {
        true => behave_so(&behaviour.r#do),
        false => Vec::new(),
    }
}

fn behave_so(deed: &str) -> Vec<Effect> {
    match deed {
        "spin" => loop {
            std::hint::black_box(());
        },
        "trap" => std::process::abort(),
        "panic" => panic!("it was told to"),
        "overflow" => vec![emit(&overflow(0).to_string())],
        "allocate" => {
            let mut all: Vec<Vec<u8>> = Vec::new();
            loop {
                all.push(vec![1; 64 << 20]);
                std::hint::black_box(&all);
            }
        }
        "huge" => vec![emit(&"x".repeat(100 << 20))],
        "many" => (0..200_000).map(|_| emit("")).collect(),
        "two-ends" => vec![finish(), finish()],
        "after-end" => vec![finish(), emit("late")],
        "bad-annotation" => {
            let (name, value) = ("x".into(), "{".into());
            let annotation = Annotation { name, value };
            vec![Effect::Emit(Delta::Annotation(annotation)), finish()]
        }
        "chatter" => {
            (0..10_000).for_each(|_| harness_guest::log(Level::Info, &"chatter ".repeat(1000)));
            Vec::new()
        }
        _ => Vec::new(),
    }
}

#[inline(never)]
fn overflow(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    if depth == u64::MAX {
        0
    } else {
        overflow(depth + 1) + std::hint::black_box(frame)[1]
    }
}

fn emit(text: &str) -> Effect {
    Effect::Emit(Delta::Content(text.into()))
}

fn finish() -> Effect {
    Effect::Finish(harness_guest::outcome(FinishReason::Stop))
}

impl Adapter for Hostile {
    type Settings = ();

    fn describe() -> Description {
        // The tests write other words over these in the component.
        let words = std::hint::black_box(DESCRIBED);
        let (deed, honours) = words.split_once(" honours").unwrap_or_default();
        behave_so(deed.trim_start_matches("describe does").trim());
        Description {
            config_schema: "{}".into(),
            honours: honours.split_whitespace().map(str::to_owned).collect(),
            ..harness_guest::description("hostile", "0", "does what it is told")
        }
    }

    fn configure(config: &str) -> Result<(), Vec<Problem>> {
        BEHAVIOUR.set(harness_guest::settings(config)?);
        behave("configure");
        Ok(())
    }

    fn open(_settings: &(), _context: Context, _request: Request) -> Result<Self, ApiError> {
        behave("open");
        SESSIONS.set(SESSIONS.get() + 1);
        Ok(Hostile)
    }

    fn launch_options(&self) -> Vec<LaunchOption> {
        match BEHAVIOUR.with_borrow(|behaviour| behaviour.at == "launch-options") {
            true => vec![LaunchOption {
                name: "effort".into(),
                value: "low --tools Bash".into(),
            }],
            false => Vec::new(),
        }
    }

    fn start(&mut self) -> Vec<Effect> {
        let mut effects = behave("start");
        let behaviour = BEHAVIOUR.with_borrow(Clone::clone);
        let waits =
            !behaviour.write.is_empty() || behaviour.at == "output" || behaviour.at == "exit";
        effects.extend(behaviour.write.into_iter().map(Effect::Write));
        if effects.is_empty() && !waits {
            let text = format!("{}{}", behaviour.answer, SESSIONS.get());
            effects.extend([emit(&text), finish()]);
        }
        effects
    }

    fn output(&mut self, _lines: Vec<String>) -> Vec<Effect> {
        behave("output")
    }

    fn exit(&mut self, _status: Option<i32>, _stderr_tail: String) -> Vec<Effect> {
        behave("exit")
    }

    fn hold(&self) -> Option<Held> {
        behave("hold");
        None
    }
}

harness_guest::export_adapter!(Hostile);
