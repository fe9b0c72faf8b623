//! The configuration's sections `[guests]`, and what backends and models use guests for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use basics::text_file;
use guests::loader;
use guests::settings::{GuestConfig, GuestLog, GuestUse};
use serde_json::{Map, Value};

use super::reader::Section;
use super::{OnError, TransformUse};

/// The most transforms of one model.
const TRANSFORMS_MAX: usize = 16;

/// What is configured of guests, before it is known what they are used for.
pub(super) struct Guests {
    /// Where paths begin.
    folder: PathBuf,
    /// Where components are.
    pub(super) dir: PathBuf,
    named: Vec<GuestConfig>,
    /// `[guests.NAME] config`
    configs: BTreeMap<String, Value>,
    /// The files that configurations name.
    pub(super) files: Vec<PathBuf>,
}

/// Reads `[guests]`.
pub(super) fn read(root: &mut Section, folder: &Path, dir: PathBuf) -> Guests {
    let mut guests = Guests {
        folder: folder.to_owned(),
        dir,
        named: Vec::new(),
        configs: BTreeMap::new(),
        files: Vec::new(),
    };
    for (name, mut section) in root.sections("guests").unwrap_or_default() {
        let mut guest = GuestConfig::unset(&name);
        if let Some(config) = section.json("config") {
            let config = guests.with_files(&section, "config", config);
            guests.configs.insert(name, config);
        }
        if section.flag("wasi").is_some() {
            section.warning("wasi", "it has no effect: every guest has an empty WASI");
        }
        let levels = [
            ("debug", GuestLog::Debug),
            ("info", GuestLog::Info),
            ("warn", GuestLog::Warn),
            ("error", GuestLog::Error),
        ];
        guest.allowed_digests = allowed_digests(&mut section);
        let most = section.count("give_way_after", 0, 1_000_000);
        guest.give_way_after = most.unwrap_or(guest.give_way_after);
        guest.log = section.choice("log", &levels).unwrap_or(guest.log);
        guests.named.push(guest);
        section.finish();
    }
    guests
}

/// Reads `allowed_digests`: SHA-256 in hexadecimal, behind `sha256:`.
fn allowed_digests(section: &mut Section) -> Option<Vec<String>> {
    let digests = section.texts("allowed_digests")?.into_iter();
    let digests = digests.enumerate().filter_map(|(i, digest)| {
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        match digest.strip_prefix("sha256:") {
            Some(hex) if hex.len() == 64 && hex.chars().all(is_hex) => Some(hex.to_owned()),
            _ => {
                let what = "this is not \"sha256:\" and 64 lower-case hexadecimal digits, as `sha256sum FILE` prints them";
                section.problem(&format!("allowed_digests[{i}]"), what);
                None
            }
        }
    });
    Some(digests.collect())
}

/// Which dialects serve, and what they are configured with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DialectsConfig {
    /// Those that are turned off.
    off: BTreeSet<String>,
    /// `[guests.NAME] config`
    configs: BTreeMap<String, Value>,
}

impl DialectsConfig {
    /// The names of those that are turned off.
    pub(crate) fn off(&self) -> impl Iterator<Item = &String> {
        self.off.iter()
    }

    /// How the dialect of this name is used. None if it is turned off.
    pub(crate) fn used(&self, name: &str) -> Option<GuestUse> {
        (!self.off.contains(name)).then(|| plain(&self.configs, name))
    }
}

/// A guest with the configuration of its section.
fn plain(configs: &BTreeMap<String, Value>, name: &str) -> GuestUse {
    let config = configs.get(name).cloned();
    GuestUse {
        guest: name.to_owned(),
        at: format!("guests.{name}.config"),
        config: config.unwrap_or_else(|| Value::Object(Map::new())),
    }
}

impl Guests {
    /// Reads `[dialects]`: the names of guests, each with whether it serves.
    pub(super) fn dialects(&self, root: &mut Section) -> DialectsConfig {
        let mut off = BTreeSet::new();
        match root.value("dialects") {
            None => {}
            Some(toml::Value::Table(table)) => {
                for (name, value) in table {
                    match value {
                        toml::Value::Boolean(true) => {}
                        toml::Value::Boolean(false) => drop(off.insert(name)),
                        _ => root.problem(
                            &format!("dialects.{name}"),
                            "this is neither true nor false",
                        ),
                    }
                }
            }
            Some(_) => root.problem(
                "dialects",
                "this is no table: write `[dialects]` and below it `NAME = false`",
            ),
        }
        DialectsConfig {
            off,
            configs: self.configs.clone(),
        }
    }

    /// A guest with the configuration of its section.
    fn plain(&self, name: &str) -> GuestUse {
        plain(&self.configs, name)
    }

    /// The sections. The configuration of one that nothing uses is tried all the same.
    pub(super) fn sections(&self, used: &[GuestUse]) -> Vec<GuestConfig> {
        let sections = self.named.iter().cloned().map(|mut guest| {
            if used.iter().all(|used| used.guest != guest.name) {
                guest.uses.push(self.plain(&guest.name));
            }
            guest
        });
        sections.collect()
    }

    /// Reads `adapter`: the name of a guest, or a table with its name and a configuration.
    pub(super) fn adapter(&mut self, section: &mut Section, default: &str) -> GuestUse {
        match section.value("adapter") {
            None => self.plain(default),
            Some(value) => match self.one(section, "adapter", value) {
                Some((used, _)) => used,
                None => self.plain(default),
            },
        }
    }

    /// Reads `transforms`: each the name of a guest, or a table with its name.
    pub(super) fn transforms(&mut self, section: &mut Section) -> Option<Vec<TransformUse>> {
        let list = match section.value("transforms")? {
            toml::Value::Array(list) if list.len() <= TRANSFORMS_MAX => list,
            toml::Value::Array(_) => {
                let what = format!("a model may have at most {TRANSFORMS_MAX} transforms");
                section.problem("transforms", what);
                return None;
            }
            single @ toml::Value::String(_) => vec![single],
            _ => {
                section.problem("transforms", "this is not an array of guests");
                return None;
            }
        };
        let mut transforms: Vec<TransformUse> = Vec::new();
        for (i, value) in list.into_iter().enumerate() {
            let at = format!("transforms[{i}]");
            let Some((used, on_error)) = self.one(section, &at, value) else {
                continue;
            };
            let name = &used.guest;
            if transforms.iter().any(|known| known.used.guest == *name) {
                section.problem(&at, format_args!("`{name}` is in the chain already"));
            } else if !self.is_there(name) {
                let file = self.dir.join(format!("{name}.wasm"));
                let built_in = loader::built_in().collect::<Vec<_>>().join(", ");
                let what = format!(
                    "there is no guest `{name}`: put it at {}, or name a built-in one of {built_in}",
                    file.display()
                );
                section.problem(&at, what);
            }
            transforms.push(TransformUse { used, on_error });
        }
        Some(transforms)
    }

    fn is_there(&self, name: &str) -> bool {
        loader::built_in().any(|known| known == name)
            || self.dir.join(format!("{name}.wasm")).exists()
    }

    /// One use of a guest. A table's `config` is laid over the configuration of the guest's section.
    fn one(
        &mut self,
        section: &Section,
        at: &str,
        value: toml::Value,
    ) -> Option<(GuestUse, OnError)> {
        let table = match value {
            toml::Value::String(name) => return Some((self.plain(&name), OnError::Refuse)),
            toml::Value::Table(table) => table,
            _ => {
                section.problem(at, "this is neither a guest's name nor a table");
                return None;
            }
        };
        let mut table = section.beside(section.name(at), table);
        let words = [("refuse", OnError::Refuse), ("skip", OnError::Skip)];
        let on_error = table.choice("on_error", &words);
        let config = table.json("config");
        let Some(name) = table.text("guest") else {
            table.problem("guest", "the guest's name is missing");
            return None;
        };
        let mut used = self.plain(&name);
        if let Some(config) = config {
            used.at = table.name("config");
            let own = self.with_files(&table, "config", config);
            match (&mut used.config, own) {
                (Value::Object(all), Value::Object(own)) => all.extend(own),
                _ => table.problem("config", "a file cannot take the place of the whole table"),
            }
        }
        table.finish();
        Some((used, on_error.unwrap_or(OnError::Refuse)))
    }

    /// Puts the text of a file in the place of each `{ file = PATH }`.
    fn with_files(&mut self, section: &Section, at: &str, value: Value) -> Value {
        match value {
            Value::Object(table) => match named_file(&table) {
                Some(path) => {
                    let path = self.folder.join(path);
                    let text = text_file::read(&path);
                    self.files.push(path);
                    text.unwrap_or_else(|what| {
                        section.problem(at, what);
                        String::new()
                    })
                    .into()
                }
                None => {
                    let fields = table.into_iter().map(|(key, value)| {
                        let value = self.with_files(section, &format!("{at}.{key}"), value);
                        (key, value)
                    });
                    Value::Object(fields.collect())
                }
            },
            Value::Array(list) => {
                let items = list.into_iter().enumerate();
                let items =
                    items.map(|(i, item)| self.with_files(section, &format!("{at}[{i}]"), item));
                Value::Array(items.collect())
            }
            other => other,
        }
    }
}

/// The path, if a table is `{ file = PATH }`.
fn named_file(table: &Map<String, Value>) -> Option<&str> {
    match table.len() {
        1 => table.get("file")?.as_str(),
        _ => None,
    }
}
