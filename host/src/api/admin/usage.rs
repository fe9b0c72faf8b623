//! `GET /admin/usage`: what was used, out of the ledger.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use ledger::LedgerError;

use super::wanted;
use crate::failure::{Failure, Kind};
use crate::service::Service;
use crate::usage;

/// How long a caller waits for the latest requests to be written. What is not written by then is missing.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);

/// What is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Wanted {
    /// `day`, `model`, `key`, `api`, or several of them with commas.
    #[serde(default)]
    by: Option<String>,
    /// The first day, as `2026-11-29`.
    #[serde(default)]
    since: Option<String>,
    /// `json` or `csv`.
    #[serde(default)]
    format: Option<String>,
}

/// The sums since a day, for each day, model, key or API.
pub(in crate::api) async fn sums(
    State(service): State<Arc<Service>>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Failure> {
    let wanted = wanted(query)?;
    let by = usage::by(wanted.by.as_deref().unwrap_or("day"))
        .map_err(|message| Failure::invalid("by", message))?;
    let is_csv = match wanted.format.as_deref() {
        None | Some("json") => false,
        Some("csv") => true,
        Some(_) => return Err(Failure::invalid("format", "`format` is `json` or `csv`")),
    };
    let snapshot = service.snapshot();
    let Some(settings) = &snapshot.config.ledger else {
        let message =
            "there is no ledger: `[ledger] enabled` is false, or the service has no `state_dir`";
        return Err(Failure::new(Kind::InvalidRequest, message));
    };
    let (path, books) = (settings.path.clone(), service.books.clone());
    let (columns, since) = (by.clone(), wanted.since.clone());
    let sums = tokio::task::spawn_blocking(move || {
        books.ledger.flush(FLUSH_PATIENCE);
        usage::sums(&path, &columns, since.as_deref())
    });
    let gone = |_| Failure::new(Kind::Internal, "reading the ledger was broken off").logged();
    let sums = sums.await.map_err(gone)?.map_err(|error| match error {
        LedgerError::Day(_) => Failure::invalid("since", error.to_string()),
        _ => Failure::new(Kind::Internal, error.to_string()).logged(),
    })?;
    if is_csv {
        let headers = [(CONTENT_TYPE, "text/csv; charset=utf-8")];
        return Ok((headers, usage::csv(&by, &sums)).into_response());
    }
    Ok(Json(json!({
        "by": by.iter().map(|by| by.name()).collect::<Vec<_>>(),
        "since": wanted.since,
        "data": sums,
        "problem": service.books.ledger.problem(),
        "lost": service.books.ledger.lost(),
    }))
    .into_response())
}
