//! The glue that makes a WebAssembly component of a behaviour.

use std::cell::{Cell, RefCell};

use crate::Behaviour;
use crate::contract::adapter::{
    Description, Effect, Exchange, Guest, GuestExchange, Holding, Placeholder,
};
use crate::contract::log;
use crate::contract::types::{ApiError, Context, Delta, FinishReason, Outcome};

thread_local! {
    static BEHAVIOUR: RefCell<Behaviour> = RefCell::default();
    /// Counts the exchanges of one instance: there must never be a second one.
    static EXCHANGES: Cell<u32> = const { Cell::new(0) };
}

struct Hostile;

struct Nothing;

fn behave(here: &str) -> Vec<Effect> {
    let behaviour = BEHAVIOUR.with_borrow(Clone::clone);
    if behaviour.at != here {
        return Vec::new();
    }
    match behaviour.r#do.as_str() {
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
        "bad-extra" => vec![Effect::Emit(Delta::Extra("[]".into())), finish()],
        "chatter" => {
            (0..10_000).for_each(|_| log::write(log::Level::Info, &"chatter ".repeat(1000)));
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
    Effect::Finish(Outcome {
        finish_reason: FinishReason::Stop,
        usage: None,
        model: None,
        extra: "{}".into(),
    })
}

impl Guest for Hostile {
    type Exchange = Nothing;

    fn describe() -> Description {
        behave("describe");
        Description {
            name: "hostile".into(),
            version: "0".into(),
            summary: "does what it is told".into(),
            config_schema: "{}".into(),
            extra: BEHAVIOUR
                .with_borrow(|b| serde_json::json!({ "honours": b.honours }).to_string()),
        }
    }

    fn configure(config: String) -> Result<(), String> {
        let behaviour: Behaviour = serde_json::from_str(&config).map_err(|e| e.to_string())?;
        BEHAVIOUR.set(behaviour);
        behave("configure");
        Ok(())
    }
}

impl GuestExchange for Nothing {
    fn open(_context: Context, _request: String) -> Result<Exchange, ApiError> {
        behave("open");
        EXCHANGES.set(EXCHANGES.get() + 1);
        Ok(Exchange::new(Nothing))
    }

    fn probe(_context: Context) -> Option<Exchange> {
        None
    }

    fn placeholders(&self) -> Vec<Placeholder> {
        match BEHAVIOUR.with_borrow(|b| b.at == "placeholders") {
            true => vec![Placeholder {
                name: "effort".into(),
                value: "low --tools Bash".into(),
            }],
            false => Vec::new(),
        }
    }

    fn history(&self) -> Option<Vec<u8>> {
        None
    }

    fn resume(&self, _memo: String) -> Vec<Effect> {
        Vec::new()
    }

    fn holding(&self) -> Option<Holding> {
        behave("holding");
        None
    }

    fn start(&self) -> Vec<Effect> {
        let mut effects = behave("start");
        let write = BEHAVIOUR.with_borrow(|b| b.write.clone());
        let waits =
            !write.is_empty() || BEHAVIOUR.with_borrow(|b| b.at == "output" || b.at == "exit");
        effects.extend(
            write
                .into_iter()
                .map(|text| Effect::Write(text.into_bytes())),
        );
        if effects.is_empty() && !waits {
            let answer = BEHAVIOUR.with_borrow(|b| b.answer.clone());
            effects.extend([emit(&format!("{answer}{}", EXCHANGES.get())), finish()]);
        }
        effects
    }

    fn output(&self, _piece: Vec<u8>) -> Vec<Effect> {
        behave("output")
    }

    fn exit(&self, _status: Option<i32>, _stderr_tail: String) -> Vec<Effect> {
        behave("exit")
    }
}

#[allow(unsafe_code, reason = "the macro exports functions with fixed names")]
mod export {
    use super::Hostile;
    crate::contract::export!(Hostile with_types_in crate::contract);
}
