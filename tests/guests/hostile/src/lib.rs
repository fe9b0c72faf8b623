//! A guest that does what its configuration tells it, good or bad: for the tests of the host's
//! bounds. What it does in `describe`, before it has a configuration, stands in `DESCRIBED`.
//!
//! `{"at": "open", "do": "spin"}` spins in `open`. With `{"write": "…"}` it writes that text to
//! the backend. Without either it answers at once.

use std::cell::{Cell, RefCell};

use harness_guest::{
    Adapter, Annotation, ApiError, Context, Delta, Description, Effect, FinishReason, Held,
    HeldTurn, LaunchOption, Problem, Question, Request, Resumption, Wanted,
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

/// The deed that is due here, if one is.
fn due(here: &str) -> String {
    BEHAVIOUR.with_borrow(|behaviour| match behaviour.at == here {
        true => behaviour.r#do.clone(),
        false => String::new(),
    })
}

/// Does the deed that is due here, and returns the effects that it consists of.
fn behave(here: &str) -> Vec<Effect> {
    let deed = due(here);
    hostile_deeds::act(&deed);
    match &*deed {
        "many" => (0..hostile_deeds::count(&deed)).map(|_| emit("")).collect(),
        "two-ends" => vec![finish(), finish()],
        "after-end" => vec![finish(), emit("late")],
        "unfit" => vec![Effect::Unfit("it was told to".into())],
        "bad-annotation" => {
            let (name, value) = ("x".into(), "{".into());
            let annotation = Annotation { name, value };
            vec![Effect::Emit(Delta::Annotation(annotation)), finish()]
        }
        _ => hostile_deeds::text(&deed)
            .map(|text| emit(&text))
            .into_iter()
            .collect(),
    }
}

/// Keys, as many as the deed says that is due here.
fn keys(here: &str) -> Vec<Vec<u8>> {
    let deed = due(here);
    let text = hostile_deeds::text(&deed).map(String::into_bytes);
    let mut keys = vec![Vec::new(); hostile_deeds::count(&deed)];
    keys.extend(text);
    keys
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
        hostile_deeds::act(deed.trim_start_matches("describe does").trim());
        Description {
            config_schema: "{}".into(),
            honours: honours.split_whitespace().map(str::to_owned).collect(),
            ..harness_guest::description("hostile", "0", "does what it is told")
        }
    }

    fn configure(config: &str) -> Result<(), Vec<Problem>> {
        BEHAVIOUR.set(harness_guest::settings(config)?);
        behave("configure");
        match hostile_deeds::text(&due("configure")) {
            Some(message) => Err(vec![Problem {
                key: String::new(),
                message,
            }]),
            None => Ok(()),
        }
    }

    fn open(_settings: &(), _context: Context, _request: Request) -> Result<Self, ApiError> {
        behave("open");
        SESSIONS.set(SESSIONS.get() + 1);
        Ok(Hostile)
    }

    fn probe(_settings: &(), _context: Context, _question: Question) -> Option<Self> {
        behave("probe");
        Some(Hostile)
    }

    fn launch_options(&self) -> Vec<LaunchOption> {
        behave("launch-options");
        let deed = due("launch-options");
        let option = |value: String| LaunchOption {
            name: "effort".into(),
            value,
        };
        let mut options = vec![option("low".into()); hostile_deeds::count(&deed)];
        options.extend(hostile_deeds::text(&deed).map(option));
        if deed == "inject" {
            options.push(option("low --tools Bash".into()));
        }
        options
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

    fn want(&self) -> Option<Wanted> {
        behave("want");
        Some(Wanted {
            opening: Vec::new(),
            turns: keys("want"),
            results: Vec::new(),
        })
    }

    fn resume(&mut self, _resumption: Resumption) -> Vec<Effect> {
        behave("resume")
    }

    fn interrupt(&mut self) -> Vec<Effect> {
        behave("interrupt")
    }

    fn hold(&self) -> Option<Held> {
        behave("hold");
        let deed = due("hold");
        let turns = keys("hold").into_iter();
        let held = Held {
            opening: Vec::new(),
            turns: turns.map(|key| HeldTurn { key, rewind: None }).collect(),
            awaited: Vec::new(),
            memo: hostile_deeds::text(&deed).unwrap_or_default(),
        };
        // A process that is gone on with must have been kept.
        (!deed.is_empty() || !due("resume").is_empty()).then_some(held)
    }
}

harness_guest::export_adapter!(Hostile);
