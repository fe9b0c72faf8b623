//! What operators look at.

mod gauges;
pub(super) mod guests;
pub(super) mod health;
pub(super) mod metrics;
pub(super) mod now;
pub(super) mod plan;
pub(super) mod record;
pub(super) mod reload;
pub(super) mod render;
pub(super) mod trial;
pub(super) mod usage;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde_json::{Value, json};

use crate::failure::{Failure, Kind};
use crate::runtime::Snapshot;

/// What a query asks for, or what is wrong with it.
fn wanted<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Failure> {
    query.map(|Query(wanted)| wanted).map_err(|error| {
        let message = format!("the query is not understood: {}", error.body_text());
        Failure::new(Kind::InvalidRequest, message)
    })
}

/// If the current `harness.toml`, guests' folder or a chain of guests is not in use, adds the reason to a state.
fn add_problems(state: &mut Value, snapshot: &Snapshot) {
    for (name, problem) in [
        ("configuration", &snapshot.config_problem),
        ("guests_dir", &snapshot.guests.folder_problem),
    ] {
        if let Some(problem) = problem {
            state[name] = json!({"rejected": problem});
        }
    }
    for (name, problem) in snapshot.chains.problems() {
        state["chains"][name] = json!({"rejected": problem});
    }
    for (name, problem) in snapshot.dialects.problems() {
        state["dialects"][name] = json!({"rejected": problem});
    }
}
