//! The guests that answer a request: the transforms of its model, in their order, and the adapter.
//!
//! ```text
//! request ──► first transform ──► … ──► last transform ──► adapter ⇄ process
//! client  ◄── stop words ◄── calls ◄── first transform ◄── … ◄── last transform ◄── (JSON object) ◄── adapter
//! ```
//!
//! A request pins its chain at its beginning, and each of its choices has instances of its own.

mod calls;
mod choice;
pub(crate) mod estimate;
mod object;
mod set;
mod stop;

use std::collections::HashSet;
use std::sync::Arc;

use basics::plain;
use guests::GuestError;
use guests::admit::{Guest, Standing};
use guests::completion::{Context, Decision, Delta, Outcome};
use guests::instance::{Configured, NotOpened};
use guests::request::{OutputFormat, Request, Tool};
use guests::transform::{self, Filter};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::config::OnError;
use crate::exchange::{Opened, Opening, guest_failure, not_opened};
use crate::failure::Failure;
use crate::schema_check::check_settings;
pub(crate) use choice::{Choice, Source};
pub(crate) use set::{Chains, Unready};

/// The guests that answer requests to a model.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) transforms: Arc<[Link]>,
    pub(crate) adapter: Configured,
    /// Names the chain: it is made of all guests and their configurations.
    pub(crate) digest: Arc<str>,
}

/// A transform of a chain.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) of: Configured,
    pub(crate) on_error: OnError,
}

/// The way of an answer back to the client, for one choice of a request.
pub(crate) struct WayBack {
    /// The filters of the answer, in the order of the request.
    filters: Vec<Watching>,
    /// The functions that the client declares. None if no transform can have changed them.
    declared: Option<HashSet<String>>,
    stop: Vec<String>,
    /// The answer is to be a JSON object.
    is_object: bool,
    /// Bytes of the request that went to the adapter.
    pub(crate) size: usize,
}

/// Where a request ended up.
pub(crate) enum End {
    /// At the adapter.
    Adapter(Box<Opened>),
    /// At a transform, which answers it.
    Reply(Vec<Delta>, Outcome),
}

/// A transform that watches an answer.
struct Watching {
    filter: Filter,
    on_error: OnError,
    calls: calls::Calls,
}

impl Chain {
    fn new(transforms: Vec<Link>, adapter: Configured) -> Self {
        let mut digest = Sha256::new();
        let links = transforms.iter().map(|link| &link.of);
        for of in links.chain([&adapter]) {
            for part in [of.guest.digest.as_bytes(), of.config.as_bytes()] {
                digest.update((part.len() as u64).to_le_bytes());
                digest.update(part);
            }
        }
        let digest = digest.finalize();
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Chain {
            transforms: transforms.into(),
            adapter,
            digest: digest.into(),
        }
    }

    /// The same guests, of which some have another configuration: each guest's, by its name.
    ///
    /// # Errors
    ///
    /// Fails if a guest is not in the chain, if it does not take its configuration, or if it breaks a bound.
    pub(crate) fn with_configs(&self, configs: &Map<String, Value>) -> Result<Chain, Failure> {
        let tried = |of: &Configured| match configs.get(&of.guest.name) {
            None => Ok(of.clone()),
            Some(config) => {
                let tried = Configured::on_trial(&of.guest, config, check_settings);
                let tried = tried.map_err(|error| guest_failure(&of.guest, &error))?;
                tried.map_err(|message| {
                    let field = format!("configs.{}", of.guest.name);
                    Failure::invalid(&field, format!("`{field}`: {message}"))
                })
            }
        };
        let names: Vec<&str> = self.guests().map(|of| &*of.guest.name).collect();
        if let Some(name) = configs.keys().find(|name| !names.contains(&&***name)) {
            let message = format!(
                "no guest `{}` answers this model, only {}",
                plain::line(name, 100),
                names.join(", ")
            );
            return Err(Failure::invalid("configs", message));
        }
        let links = self.transforms.iter().map(|link| {
            Ok(Link {
                of: tried(&link.of)?,
                on_error: link.on_error,
            })
        });
        let links: Result<Vec<Link>, Failure> = links.collect();
        Ok(Chain::new(links?, tried(&self.adapter)?))
    }

    /// Its guests, in the order of a request.
    pub(crate) fn guests(&self) -> impl Iterator<Item = &Configured> {
        let transforms = self.transforms.iter().map(|link| &link.of);
        transforms.chain([&self.adapter])
    }

    /// The standing of the guest that is trusted least.
    pub(crate) fn standing(&self) -> Standing {
        let standings = self.guests().map(|of| of.guest.standing());
        standings.max().unwrap_or(Standing::BuiltIn)
    }

    /// The generation of its newest guest.
    pub(crate) fn generation(&self) -> u64 {
        let transforms = self.transforms.iter().map(|link| link.of.guest.generation);
        transforms.fold(self.adapter.guest.generation, u64::max)
    }

    /// Shows the request of `size` bytes to each guest in turn.
    ///
    /// # Errors
    ///
    /// Fails if a guest refuses it or breaks a bound.
    pub(crate) fn open(
        &self,
        context: &Context,
        request: &Arc<Request>,
        size: usize,
    ) -> Result<(End, WayBack), Failure> {
        let mut back = WayBack {
            filters: Vec::new(),
            declared: (!self.transforms.is_empty()).then(|| declared(request)),
            stop: match request.output_format {
                OutputFormat::Text => request.stop.clone(),
                // JSON that was cut off would be of no use.
                OutputFormat::JsonObject | OutputFormat::JsonSchema(_) => Vec::new(),
            },
            is_object: !matches!(request.output_format, OutputFormat::Text),
            size,
        };
        let mut now = request.clone();
        for link in &*self.transforms {
            let seen = transform::open(&link.of, context, &now, back.size);
            let seen = seen.and_then(|(decision, filter)| checked(decision).map(|d| (d, filter)));
            let (decision, filter) = match seen {
                Ok(seen) => seen,
                Err(NotOpened::Broken(error)) if link.on_error == OnError::Skip => {
                    skipped(&link.of.guest, &error);
                    continue;
                }
                Err(reason) => return Err(not_opened(&link.of.guest, reason)),
            };
            if filter.is_none() {
                link.of.guest.served();
            }
            match decision {
                Decision::Answer(deltas, outcome) => {
                    return Ok((End::Reply(deltas, outcome), back));
                }
                Decision::Pass => {}
                Decision::Rewrite(rewritten) => {
                    now = Arc::new(Request {
                        stream: request.stream,
                        ..*rewritten
                    });
                    back.size = size.max(now.size());
                }
            }
            back.filters.extend(filter.map(|filter| Watching {
                filter,
                on_error: link.on_error,
                calls: calls::Calls::default(),
            }));
        }
        let opening = Opening::new(self.adapter.clone(), context.clone(), now, back.size);
        Ok((End::Adapter(Box::new(opening.opened()?)), back))
    }
}

/// A decision, if what was rewritten is still a request.
fn checked(decision: Decision) -> Result<Decision, NotOpened> {
    if let Decision::Rewrite(request) = &decision {
        request.check().map_err(|what| {
            NotOpened::Broken(GuestError::Contract(format!("its request: {what}")))
        })?;
    }
    Ok(decision)
}

/// The names of the functions that a request declares.
fn declared(request: &Request) -> HashSet<String> {
    let names = request.tools.iter().filter_map(|tool| match tool {
        Tool::Function(function) => Some(function.name.clone()),
        Tool::Other(_) => None,
    });
    names.collect()
}

/// A transform that only observes broke a bound. The request goes on without it.
fn skipped(guest: &Guest, error: &GuestError) {
    let failure = guest_failure(guest, error);
    tracing::warn!(guest = %guest.name, detail = ?failure.detail, "a transform failed and was skipped: {error}");
}
