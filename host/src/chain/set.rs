//! Which chain answers which model.

use std::collections::BTreeMap;
use std::sync::Arc;

use guests::admit::{Guest, World};
use guests::instance::Configured;
use guests::registry::GuestSet;
use guests::settings::GuestUse;

use super::{Chain, Link};
use crate::config::{BackendConfig, Config, TransformUse};
use crate::models::Route;

/// The chains of all models. They change only with the configuration or the guests.
#[derive(Clone, Default)]
pub(crate) struct Chains {
    /// The chain of each backend.
    backends: BTreeMap<String, State>,
    /// The chain of each model that names transforms of its own.
    models: BTreeMap<String, State>,
}

#[derive(Clone)]
struct State {
    /// The latest complete chain. While a guest does not take its new configuration, this is an earlier one.
    chain: Option<Chain>,
    /// Why the chain that is configured is not complete.
    unready: Option<Unready>,
}

/// Why a chain is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unready {
    /// This guest is still being compiled.
    Pending(String),
    /// There is something wrong with a guest.
    Bad(String),
}

impl Chains {
    /// Makes the chains of a configuration. One that is not complete goes on as it was `before`, if only the
    /// configurations of its guests differ.
    pub(crate) fn new(config: &Config, guests: &GuestSet, before: &Chains) -> Self {
        let backends = config.backends.iter().map(|backend| {
            let before = before.backends.get(&backend.name);
            let state = State::new(&backend.transforms, backend, config, guests, before);
            (backend.name.clone(), state)
        });
        let models = config.models.iter().filter_map(|model| {
            let transforms = model.transforms.as_ref()?;
            let mut backends = config.backends.iter();
            let backend = backends.find(|backend| backend.name == model.backend)?;
            let before = before.models.get(&model.name);
            let state = State::new(transforms, backend, config, guests, before);
            Some((model.name.clone(), state))
        });
        Chains {
            backends: backends.collect(),
            models: models.collect(),
        }
    }

    /// The chain for a route.
    ///
    /// # Errors
    ///
    /// Says why there is none.
    pub(crate) fn of(&self, route: &Route) -> Result<&Chain, Unready> {
        let own = route.configured.as_ref();
        let own = own.and_then(|model| self.models.get(model));
        let state = own.or_else(|| self.backends.get(&route.backend.config.name));
        state.map_or(Err(Unready::Bad("it has no chain".into())), State::chain)
    }

    /// The chain of a backend's models that name no transforms.
    pub(crate) fn of_backend(&self, name: &str) -> Option<&Chain> {
        self.backends.get(name)?.chain.as_ref()
    }

    /// What is wrong with chains, by their models or backends.
    pub(crate) fn problems(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.backends.iter().chain(&self.models);
        all.filter_map(|(name, state)| match &state.unready {
            Some(Unready::Bad(problem)) => Some((&**name, &**problem)),
            _ => None,
        })
    }
}

impl State {
    fn new(
        transforms: &[TransformUse],
        backend: &BackendConfig,
        config: &Config,
        guests: &GuestSet,
        before: Option<&State>,
    ) -> Self {
        match complete(transforms, &backend.adapter, config, guests) {
            Ok(chain) => State {
                chain: Some(chain),
                unready: None,
            },
            Err(unready) => State {
                chain: before
                    .and_then(|state| state.chain.clone())
                    .filter(|chain| chain.has_guests(transforms, &backend.adapter)),
                unready: Some(unready),
            },
        }
    }

    fn chain(&self) -> Result<&Chain, Unready> {
        let unready = || self.unready.clone();
        let none = || Unready::Bad("it has no chain".into());
        self.chain
            .as_ref()
            .ok_or_else(|| unready().unwrap_or_else(none))
    }
}

impl Chain {
    /// Whether it consists of the guests of these names.
    fn has_guests(&self, transforms: &[TransformUse], adapter: &GuestUse) -> bool {
        let wanted = transforms.iter().map(|transform| &transform.used.guest);
        let has = self.transforms.iter().map(|link| &link.of.guest.name);
        self.adapter.guest.name == adapter.guest && has.eq(wanted)
    }
}

/// The chain as it is configured.
fn complete(
    transforms: &[TransformUse],
    adapter: &GuestUse,
    config: &Config,
    guests: &GuestSet,
) -> Result<Chain, Unready> {
    let mut links = Vec::with_capacity(transforms.len());
    for transform in transforms {
        links.push(Link {
            of: found(&transform.used, World::Transform, config, guests)?,
            on_error: transform.on_error,
        });
    }
    let adapter = found(adapter, World::Adapter, config, guests)?;
    Ok(Chain::new(links, adapter))
}

/// The guest that a use names, if it has taken the use's configuration.
fn found(
    used: &GuestUse,
    world: World,
    config: &Config,
    guests: &GuestSet,
) -> Result<Configured, Unready> {
    let (name, kind) = (&used.guest, world.name());
    let guest = guests.serving.get(name);
    let of_world = |guest: &&Arc<Guest>| guest.world() == world;
    if let Some(found) = guest
        .filter(of_world)
        .and_then(|guest| Configured::new(guest, &used.config))
    {
        return Ok(found);
    }
    if guests.is_pending(name) {
        return Err(Unready::Pending(name.clone()));
    }
    Err(Unready::Bad(match (guest, guests.rejected.get(name)) {
        (Some(guest), _) if guest.world() != world => {
            let is = guest.world().name();
            format!("`{name}` is of the kind `{is}`, and a {kind} is needed")
        }
        (_, Some(reason)) => format!("the {kind} `{name}` is not loaded: {reason}"),
        (Some(_), None) => return Err(Unready::Pending(name.clone())),
        (None, None) => {
            let file = config.guests.file(name);
            format!(
                "the {kind} `{name}` is not loaded: put it at {}",
                file.display()
            )
        }
    }))
}
