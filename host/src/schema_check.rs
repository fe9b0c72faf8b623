//! Compiles JSON Schemas of others and checks answers and settings against them, in a process of its own.
//!
//! A small schema can take gigabytes to compile, or minutes to check: patterns, and references that lead
//! back. No validator can be interrupted; a process can be ended, and the kernel bounds its memory.

mod settings;

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use jsonschema::{PatternOptions, Validator};
use processes::{CommandLine, Processes, SpawnError};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

pub(crate) use settings::check_settings;

/// The hidden subcommand that checks.
pub const SUBCOMMAND: &str = "check-schemas";

/// How long compiling a request's schemas may take, and how long checking an answer may at most. Ordinary
/// ones take some 5 ms, most of it the start of the process.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(5);
const CHECK_MOST: Duration = Duration::from_secs(10);

/// What a check may hold, in bytes: 100 patterns of 256 KiB, their automata, and an answer.
const MEMORY_MAX: u64 = 512 << 20;

/// The stack for a check, in bytes: the levels of a schema that refers to itself, for each of the
/// 128 levels that an answer may have. Only what is used of it takes memory.
const STACK_SIZE: usize = 128 << 20;

/// What each pattern may take: memory, in bytes, and steps of backtracking.
const PATTERN_SIZE_MAX: usize = 256 << 10;
const PATTERN_STEPS_MAX: usize = 100_000;

/// Checks at once. They run beside the places of backends, so they have a bound of their own.
static PLACES: Semaphore = Semaphore::const_new(4);

/// What is to be done: compile all schemas, and check a text against one of them.
#[derive(Deserialize, Serialize)]
struct Check<'a> {
    #[serde(borrow)]
    schemas: Vec<&'a RawValue>,
    /// The text of an answer.
    #[serde(borrow)]
    answer: Option<Cow<'a, str>>,
    /// A guest's settings, in place of an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settings: Option<Value>,
}

/// What came of it.
#[derive(Deserialize, Serialize)]
enum Outcome {
    /// All of them can be compiled, and the text fits the first one.
    Sound,
    /// The schema with this index cannot be compiled.
    Invalid(usize, String),
    /// The text does not fit.
    Unfit,
    /// What is wrong with the settings.
    Problems(Vec<String>),
}

/// Why schemas cannot be relied on.
pub(crate) enum Unsound {
    /// The schema with this index is wrong, for this reason.
    Schema(usize, String),
    /// Together they take more memory or time than they may.
    Costly,
    /// The check could not be made.
    Broken(SpawnError),
}

/// What a check of an answer says.
pub(crate) enum Verdict {
    Fits,
    Unfit,
    /// It took more memory or time than it may.
    Costly,
    /// The check could not be made.
    Broken(SpawnError),
}

/// Whether all of these schemas can be compiled.
pub(crate) async fn compile(processes: &Processes, schemas: &[&str]) -> Result<(), Unsound> {
    match ask(processes, schemas, None, COMPILE_TIMEOUT).await {
        Ok(Some(Outcome::Invalid(at, what))) => Err(Unsound::Schema(at, what)),
        Ok(Some(_)) => Ok(()),
        Ok(None) | Err(SpawnError::Silent { .. }) => Err(Unsound::Costly),
        Err(error) => Err(Unsound::Broken(error)),
    }
}

/// Whether a text is JSON that fits a schema. May take `limit`.
pub(crate) async fn check(
    processes: &Processes,
    schema: &str,
    text: &str,
    limit: Duration,
) -> Verdict {
    match ask(processes, &[schema], Some(text), limit).await {
        Ok(Some(Outcome::Sound)) => Verdict::Fits,
        Ok(Some(_)) => Verdict::Unfit,
        Ok(None) | Err(SpawnError::Silent { .. }) => Verdict::Costly,
        Err(error) => Verdict::Broken(error),
    }
}

/// None if no place became free in time, or if the process ended without an answer, as it does when it takes
/// too much memory or processor time.
async fn ask(
    processes: &Processes,
    schemas: &[&str],
    answer: Option<&str>,
    limit: Duration,
) -> Result<Option<Outcome>, SpawnError> {
    let line = CommandLine {
        program: basics::program::own(),
        args: vec![OsString::from(SUBCOMMAND)],
        env: Vec::new(),
    };
    let begun = Instant::now();
    let Ok(Ok(_place)) = tokio::time::timeout(limit, PLACES.acquire()).await else {
        return Ok(None);
    };
    let limit = limit.saturating_sub(begun.elapsed());
    // They were read as JSON before.
    let schemas = schemas
        .iter()
        .filter_map(|text| serde_json::from_str(text).ok());
    let check = Check {
        schemas: schemas.collect(),
        answer: answer.map(Cow::Borrowed),
        settings: None,
    };
    let input = serde_json::to_vec(&check).unwrap_or_default();
    let (said, _) = processes.ask(&line, input, limit).await?;
    Ok(serde_json::from_slice(&said).ok())
}

/// The check's own life: reads a check, and prints what came of it.
///
/// # Errors
///
/// Fails if it was not started by this program, or may not bound itself.
pub fn run() -> anyhow::Result<()> {
    let limit = |most| Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    setrlimit(Resource::Data, limit(MEMORY_MAX))?;
    // Bounds its processor time, too: the service ends a check that takes too long, but the service may be
    // gone.
    setrlimit(Resource::Cpu, limit(CHECK_MOST.as_secs() + 5))?;
    let mut check = String::new();
    io::stdin().lock().read_to_string(&mut check)?;
    let thread = std::thread::Builder::new().stack_size(STACK_SIZE);
    let outcome = thread.spawn(move || carry_out(&check))?.join();
    let outcome = outcome.map_err(|_| anyhow::anyhow!("the check failed"))??;
    serde_json::to_writer(io::stdout().lock(), &outcome)?;
    Ok(())
}

fn carry_out(check: &str) -> anyhow::Result<Outcome> {
    let check: Check<'_> = serde_json::from_str(check)?;
    let mut first = None;
    for (at, schema) in check.schemas.iter().enumerate() {
        match validator(serde_json::from_str(schema.get())?) {
            Ok(validator) => drop(first.get_or_insert(validator)),
            Err(what) => return Ok(Outcome::Invalid(at, what)),
        }
    }
    if let (Some(schema), Some(settings)) = (&first, &check.settings) {
        return Ok(Outcome::Problems(settings::problems(schema, settings)));
    }
    let Some(answer) = check.answer else {
        return Ok(Outcome::Sound);
    };
    let value = serde_json::from_str::<Value>(&answer);
    let fits =
        value.is_ok_and(|value| first.is_some_and(|schema: Validator| schema.is_valid(&value)));
    Ok(if fits { Outcome::Sound } else { Outcome::Unfit })
}

/// Compiles a schema of bounded size. References go nowhere beyond it.
fn validator(mut schema: Value) -> Result<Validator, String> {
    let patterns = PatternOptions::fancy_regex()
        .backtrack_limit(PATTERN_STEPS_MAX)
        .size_limit(PATTERN_SIZE_MAX)
        .dfa_size_limit(PATTERN_SIZE_MAX);
    // The draft that the API reads, whatever the schema calls itself.
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("$schema");
    }
    let options = jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .with_pattern_options(patterns);
    options
        .build(&schema)
        .map_err(|error| error.to_string().chars().take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(schemas: &str, answer: &str) -> Outcome {
        let answer = Value::from(answer);
        let check = format!(r#"{{"schemas":{schemas},"answer":{answer}}}"#);
        let thread = std::thread::Builder::new().stack_size(STACK_SIZE);
        let thread = thread.spawn(move || carry_out(&check).unwrap()).unwrap();
        thread.join().unwrap()
    }

    #[test]
    fn references_in_a_circle_end_and_deep_ones_fit_the_stack() {
        let bottom = (0..50).fold(r##"{"$ref":"#/$defs/n"}"##.to_owned(), |below, _| {
            format!(r#"{{"allOf":[{below}]}}"#)
        });
        let schema = format!(
            r##"[{{"$ref":"#/$defs/n","$defs":{{"n":{{"properties":{{"next":{bottom}}}}}}}}}]"##
        );
        let deep = "{\"next\":".repeat(120) + "{}" + &"}".repeat(120);
        assert!(matches!(outcome(&schema, &deep), Outcome::Sound));
        for circle in [
            r##"[{"$ref":"#"}]"##,
            r##"[{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}]"##,
            r##"[{"allOf":[{"$ref":"#"}]}]"##,
        ] {
            outcome(circle, r#"{"a":[1]}"#);
        }
    }

    #[test]
    fn an_answer_fits_or_does_not() {
        let schema =
            r#"[{"properties":{"n":{"type":"integer"},"day":{"format":"date"}},"required":["n"]}]"#;
        assert!(matches!(
            outcome(schema, r#"{"n":1,"day":"2026-11-22"}"#),
            Outcome::Sound
        ));
        assert!(matches!(outcome(schema, r#"{"n":"1"}"#), Outcome::Unfit));
        assert!(matches!(
            outcome(schema, r#"{"n":1,"day":"some day"}"#),
            Outcome::Unfit
        ));
        assert!(matches!(outcome(schema, "no JSON"), Outcome::Unfit));
        assert!(matches!(
            outcome(r#"[{"type":"object"}]"#, "null"),
            Outcome::Unfit
        ));
    }

    #[test]
    fn schemas_that_refer_to_themselves_and_look_ahead_are_checked() {
        let schema = r##"[{"$ref":"#/$defs/node","$defs":{"node":{"type":"object","required":["price"],"properties":{
            "price":{"type":"string","pattern":"^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$"},
            "next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}}}}}]"##;
        assert!(matches!(
            outcome(
                schema,
                r#"{"price":"1.5","next":{"price":"2","next":null}}"#
            ),
            Outcome::Sound
        ));
        assert!(matches!(
            outcome(schema, r#"{"price":"1.5","next":{"price":"+"}}"#),
            Outcome::Unfit
        ));
    }

    #[test]
    fn a_pattern_that_is_too_large_is_told_by_its_schema() {
        let schemas = r#"[{},{"properties":{"p":{"pattern":"(\\p{L}{1000}){1000}"}}}]"#;
        assert!(matches!(outcome(schemas, "null"), Outcome::Invalid(1, _)));
    }
}
