//! What a ledger says.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row};
use serde::Serialize;

use crate::LedgerError;
use crate::store::{failed, version};

/// What sums are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Each day of UTC.
    Day,
    /// Each model.
    Model,
    /// Each key.
    Key,
    /// Each API.
    Api,
}

/// What several requests took together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sum {
    /// The day, as `2026-11-29`, if there is a sum for each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day: Option<String>,
    /// The model by the name that clients use, if there is a sum for each. Empty for requests to a model that there is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The key's name, if there is a sum for each. Empty for callers without a named key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The API, if there is a sum for each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// How many requests.
    pub requests: u64,
    /// How many of them were not answered in full.
    pub failed: u64,
    /// Input tokens.
    pub prompt_tokens: u64,
    /// Output tokens.
    pub completion_tokens: u64,
    /// Input tokens that were read from a cache.
    pub cached_tokens: u64,
    /// Output tokens spent on reasoning.
    pub reasoning_tokens: u64,
    /// What the backends say it cost, in US dollars. None if none of them said anything.
    pub cost_usd: Option<f64>,
    /// The mean time to the first piece of an answer, in milliseconds.
    pub mean_first_token_ms: Option<u64>,
    /// The mean time of a request, in milliseconds.
    pub mean_total_ms: Option<u64>,
}

impl By {
    /// Everything that sums can be made for.
    pub const ALL: [By; 4] = [By::Day, By::Model, By::Key, By::Api];

    /// Its name, for people and in the file.
    pub fn name(self) -> &'static str {
        match self {
            By::Day => "day",
            By::Model => "model",
            By::Key => "key",
            By::Api => "api",
        }
    }
}

/// The sums of a ledger, for each day, model or whatever `by` names, in this order. With `since`, only from this day on.
///
/// # Errors
///
/// Fails if `since` is no day, or if the file is not there or cannot be read.
pub fn sums(path: &Path, by: &[By], since: Option<&str>) -> Result<Vec<Sum>, LedgerError> {
    let connection = open(path)?;
    let since = match since {
        Some(day) => days_to(&connection, path, day)?,
        None => 0,
    };
    let select = |column: By| match (by.contains(&column), column) {
        (true, By::Day) => "date(day * 86400, 'unixepoch')",
        (true, column) => column.name(),
        (false, _) => "NULL",
    };
    let columns = By::ALL.map(select).join(", ");
    let groups: Vec<&str> = by.iter().map(|by| by.name()).collect();
    let group = match groups.join(", ") {
        none if none.is_empty() => String::new(),
        some => format!("GROUP BY {some} ORDER BY {some}"),
    };
    let query = format!(
        "SELECT {columns}, sum(requests), sum(failed), sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens),
            sum(reasoning_tokens), sum(cost_micro_usd), sum(first_token_ms) / nullif(sum(first_tokens), 0),
            sum(total_ms) / nullif(sum(requests), 0)
         FROM days WHERE day >= ?1 {group}"
    );
    let read = || -> rusqlite::Result<Vec<Sum>> {
        let mut query = connection.prepare(&query)?;
        let rows = query.query_map([since], sum)?;
        rows.collect()
    };
    read().map_err(failed(path))
}

fn sum(row: &Row) -> rusqlite::Result<Sum> {
    // Without any request, a sum is NULL.
    let count = |at: usize| Ok::<_, rusqlite::Error>(row.get::<_, Option<u64>>(at)?.unwrap_or(0));
    let cost: Option<u64> = row.get(10)?;
    Ok(Sum {
        day: row.get(0)?,
        model: row.get(1)?,
        key: row.get(2)?,
        api: row.get(3)?,
        requests: count(4)?,
        failed: count(5)?,
        prompt_tokens: count(6)?,
        completion_tokens: count(7)?,
        cached_tokens: count(8)?,
        reasoning_tokens: count(9)?,
        cost_usd: cost.map(|micro| micro as f64 / 1e6),
        mean_first_token_ms: row.get(11)?,
        mean_total_ms: row.get(12)?,
    })
}

fn open(path: &Path) -> Result<Connection, LedgerError> {
    if !path.exists() {
        return Err(LedgerError::Missing(path.to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed(path))?;
    match version(&connection, path)? {
        0 => Err(LedgerError::Missing(path.to_owned())),
        _ => Ok(connection),
    }
}

/// How many days lie between 1 January 1970 and a day. SQLite knows the calendar; a day that it would write
/// otherwise, such as 31 February, is none.
fn days_to(connection: &Connection, path: &Path, day: &str) -> Result<i64, LedgerError> {
    let query = "SELECT unixepoch(?1) / 86400 WHERE date(?1) = ?1";
    let days = connection.query_row(query, [day], |row| row.get(0));
    let days = days.optional().map_err(failed(path))?;
    days.ok_or_else(|| LedgerError::Day(day.to_owned()))
}
