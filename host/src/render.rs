//! What a request becomes on its way to a process, without starting one.

use std::sync::Arc;

use guests::adapter::AdapterSession;
use guests::completion::{Context, Delta, Effect};
use guests::instance::Configured;
use serde_json::{Map, Value};

use crate::backends::Backend;
use crate::chain::End;
use crate::dispatch::Request;
use crate::exchange::guest_failure;
use crate::failure::{Failure, Kind};
use crate::runtime::Snapshot;

/// What a request becomes.
pub(crate) struct Rendered {
    pub(crate) backend: String,
    /// How the process would be started.
    pub(crate) command: String,
    /// What would be written to its standard input before it says anything.
    pub(crate) written: Vec<Vec<u8>>,
    /// The guests that it passes, each with its configuration.
    pub(crate) chain: Vec<Configured>,
    /// The answer of a transform that needs no process.
    pub(crate) answer: Option<String>,
}

/// Leads a request through the chain of its model, in which the guests that `configs` names have these configurations.
///
/// # Errors
///
/// Fails as the request would.
pub(crate) fn render(
    snapshot: &Snapshot,
    request: &Request,
    configs: &Map<String, Value>,
    now: u64,
) -> Result<Rendered, Failure> {
    let route = snapshot.models.route(&request.model);
    let route = route.ok_or_else(|| snapshot.models.unknown(&request.model))?;
    let chain = snapshot.chain(&route)?.with_configs(configs)?;
    let context = Context {
        id: "chatcmpl-rendered".into(),
        created: now,
        model: request.model.clone(),
        backend_model: route.model.clone(),
        resolved_model: None,
        profile: route.backend.config.launch.profile.name.into(),
        fetch_urls: route.backend.config.fetch_urls,
        choice: 0,
    };
    let body = Arc::new(request.body.clone());
    let (end, _) = chain.open(&context, &body, request.size)?;
    let mut rendered = Rendered {
        backend: route.backend.config.name.clone(),
        command: String::new(),
        written: Vec::new(),
        chain: chain.guests().cloned().collect(),
        answer: None,
    };
    match end {
        End::Reply(deltas, _) => rendered.answer = Some(deltas.iter().map(text).collect()),
        End::Adapter(opened) => {
            start(
                opened.session,
                &route.backend,
                &route.model,
                request.size,
                &mut rendered,
            )?;
        }
    }
    Ok(rendered)
}

fn text(delta: &Delta) -> &str {
    match delta {
        Delta::Content(text) => text,
        _ => "",
    }
}

fn start(
    mut session: AdapterSession,
    backend: &Backend,
    model: &str,
    size: usize,
    rendered: &mut Rendered,
) -> Result<(), Failure> {
    let guest = session.guest().clone();
    let failed = |error| guest_failure(&guest, &error);
    let options = session.launch_options().map_err(failed)?;
    let launch = backend.launch(model, &options);
    let refused =
        |what: String| Failure::new(Kind::Guest, format!("the guest `{}`: {what}", guest.name));
    let launch = launch.map_err(|error| refused(error.to_string()))?;
    let words = [launch.line.program.as_os_str()]
        .into_iter()
        .chain(launch.line.args.iter().map(AsRef::as_ref))
        .map(|word| format!("{:?}", word.to_string_lossy()));
    rendered.command = words.collect::<Vec<_>>().join(" ");
    for effect in session.start(size).map_err(failed)? {
        match effect.map_err(failed)? {
            Effect::Write(text) => {
                let sealed = backend.seal(text, &[]);
                let written = sealed.map_err(|refusal| refused(refusal.to_string()))?;
                rendered.written.push(written);
            }
            Effect::Fail(error) => return Err(crate::exchange::api_failure(error)),
            _ => {}
        }
    }
    Ok(())
}
