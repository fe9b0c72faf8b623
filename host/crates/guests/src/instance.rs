//! Fresh instances of guests, ready to be called.

use std::sync::Arc;

use basics::plain;
use serde_json::Value;
use wasmtime::Store;

use crate::GuestError;
use crate::admit::{CheckSettings, Guest};
use crate::completion::{ApiError, Context};
use crate::contract::v1_0::{Instance, Problem};
use crate::engine::{Effort, State};
use crate::loader;

/// The longest message of a guest about its configuration, in characters.
const MESSAGE_MAX: usize = 500;

/// A guest with one of the configurations that it took. It holds the guest to its end, whatever is loaded
/// meanwhile.
#[derive(Clone)]
pub struct Configured {
    /// The guest.
    pub guest: Arc<Guest>,
    /// What its instances are configured with, as JSON.
    pub config: Arc<str>,
}

/// Why a guest did not open a request.
#[derive(Debug)]
pub enum NotOpened {
    /// It cannot serve this request, or does not let it pass, and says why.
    Refused(ApiError),
    /// It broke a bound.
    Broken(GuestError),
}

impl From<GuestError> for NotOpened {
    fn from(error: GuestError) -> Self {
        NotOpened::Broken(error)
    }
}

impl Configured {
    /// None if the guest did not take this configuration when it was admitted.
    pub fn new(guest: &Arc<Guest>, config: &Value) -> Option<Self> {
        let config = config.to_string();
        let taken = guest.configs.iter().find(|taken| ***taken == *config)?;
        Some(Configured {
            guest: guest.clone(),
            config: taken.clone(),
        })
    }

    /// The guest with a configuration that it may not have seen yet, for a trial. The inner error is what is wrong with the
    /// configuration, by the guest's schema or as the guest says.
    ///
    /// # Errors
    ///
    /// Fails if the guest breaks a bound.
    pub fn on_trial(
        guest: &Guest,
        config: &Value,
        check: CheckSettings,
    ) -> Result<Result<Self, String>, GuestError> {
        let problems = match check(&guest.schema, config, guest.is_own()) {
            Ok(problems) => problems,
            Err(what) => return Ok(Err(what)),
        };
        if !problems.is_empty() {
            return Ok(Err(problems.join("; ")));
        }
        let guest = Arc::new(guest.on_trial());
        let config: Arc<str> = config.to_string().into();
        let taken = configured(&guest, &config, None)?;
        Ok(taken.map(|_| Configured { guest, config }))
    }

    /// An instance for one request.
    pub(crate) fn ready(&self, context: &Context) -> Result<(Store<State>, Instance), GuestError> {
        configured(&self.guest, &self.config, Some(context))?.map_err(|message| {
            let what = format!("it refused a configuration that it had taken: {message}");
            GuestError::Contract(what)
        })
    }
}

/// A fresh instance that was not configured, for a request or, without one, to try the guest.
pub(crate) fn bare(
    guest: &Guest,
    context: Option<&Context>,
) -> Result<(Store<State>, Instance), GuestError> {
    let engine = &guest.engine;
    let toll = guest.toll.clone();
    let mut store = engine.store(&guest.settings, guest.imports_wasi, toll, context);
    store.data_mut().is_quick = guest.is_own() && loader::is_quick(&guest.name);
    store.data_mut().standing = guest.standing();
    let instantiate = |store: &mut Store<State>| guest.pre.instantiate(store);
    let instance = engine.call(&mut store, "instantiate", Effort::Request(0), instantiate)?;
    Ok((store, instance))
}

/// A fresh instance that took its configuration; the inner error is what the guest says of the configuration.
pub(crate) fn configured(
    guest: &Guest,
    config: &str,
    context: Option<&Context>,
) -> Result<Result<(Store<State>, Instance), String>, GuestError> {
    let (mut store, instance) = bare(guest, context)?;
    let effort = Effort::Request(config.len());
    let taken = guest
        .engine
        .call(&mut store, "configure", effort, |store| {
            instance.configure(store, config)
        })?;
    Ok(match taken {
        Ok(()) => Ok((store, instance)),
        Err(problems) => Err(listed(&problems)),
    })
}

/// All problems of a configuration as one sentence.
fn listed(problems: &[Problem]) -> String {
    let problem = |problem: &Problem| match problem.key.as_str() {
        "" => problem.message.clone(),
        key => format!("`{key}`: {}", problem.message),
    };
    let all: Vec<String> = problems.iter().map(problem).collect();
    plain::line(&all.join("; "), MESSAGE_MAX)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::admit::Judges;
    use crate::loader::Loader;
    use crate::settings::{GuestLimits, GuestUse, Settings};

    fn used(name: &str) -> GuestUse {
        GuestUse {
            guest: name.into(),
            at: "test".into(),
            config: serde_json::json!({}),
        }
    }

    /// Each growth, and the next instance that begins small again, would cost a change of protection.
    #[test]
    fn an_instance_begins_with_the_memory_that_a_short_request_needs() {
        let names = [
            "claude-code",
            "messages",
            "redact",
            "responses",
            "system-prompt",
        ];
        let settings = Settings {
            dir: Path::new("/nowhere").into(),
            cache_dir: None,
            state_dir: None,
            limits: GuestLimits::default(),
            named: Vec::new(),
            uses: names.map(used).into(),
            instances: 4,
        };
        let judges = Judges {
            read_request: |_| Err(String::new()),
            check_settings: |_, _, _| Ok(Vec::new()),
        };
        let (sender, admitted) = channel();
        let on_admitted = move |done| drop(sender.send(done));
        let mut loader = Loader::start(settings, judges, Arc::new(on_admitted)).unwrap();
        loader.visit(true);
        while !loader.compiling().is_empty() {
            loader.admitted(admitted.recv().unwrap());
        }
        let set = loader.set();
        assert!(set.rejected.is_empty(), "{:?}", set.rejected);
        for name in names {
            let guest = &set.serving[name];
            let (mut store, instance) = bare(guest, None).unwrap();
            let before = store.data().memory_used();
            instance.describe(&mut store).unwrap();
            instance.configure(&mut store, "{}").unwrap().ok();
            assert_eq!(store.data().memory_used(), before, "{name}");
        }
    }
}
