//! The keys that callers send: `[keys.NAME]`, `api_keys` and `api_keys_file`.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use basics::ownership;
use basics::plain::is_word;
use sha2::{Digest, Sha256};

use super::reader::Section;
use super::{Access, Key, KeyDigest, KeyLimits, Overrides};

/// A key with fewer characters causes a warning. 16 hexadecimal digits are 64 random bits.
const KEY_LEAST: usize = 16;

/// The prefix of a digest that is written in place of a key.
const DIGEST_PREFIX: &str = "sha256:";

/// Who may call.
pub(super) fn access(root: &mut Section, folder: &Path, overrides: &Overrides) -> Access {
    let variable = overrides.api_key.map(Key::unnamed);
    let mut keys: Vec<Key> = variable.into_iter().collect();
    keys.extend(unnamed(root, folder));
    for (name, mut section) in root.sections("keys").unwrap_or_default() {
        if let Some(key) = named(&name, &mut section, folder, &keys) {
            // The same key may also be in `api_keys`. The named one counts, because it may have `admin = true`.
            keys.retain(|other| other.digest != key.digest);
            keys.push(key);
        }
        section.finish();
    }
    let origins = origins(root, !keys.is_empty());
    Access {
        keys,
        origins,
        hosts: root.texts("allowed_hosts").unwrap_or_default(),
        open_addresses: root.texts("open_addresses").unwrap_or_default(),
    }
}

/// Reads `allowed_origins`: each exact, as browsers send it.
fn origins(root: &mut Section, has_keys: bool) -> Vec<String> {
    let origins = root.texts("allowed_origins").unwrap_or_default();
    for (i, origin) in origins.iter().enumerate() {
        let at = format!("allowed_origins[{i}]");
        let host = origin.split_once("://").map(|(_, host)| host);
        if origin == "*" {
            let what = "`*` is not possible: any page in your browser could spend your subscription; name each origin";
            root.problem(&at, what);
        } else if !host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' '])) {
            let what = "this is no origin: write it as browsers send it, such as \"https://chat.example\" or \"app://obsidian.md\"";
            root.problem(&at, what);
        }
    }
    if !origins.is_empty() && !has_keys {
        let what = "pages need a key: set `[keys.NAME]`, `api_keys` or `api_keys_file`, too";
        root.problem("allowed_origins", what);
    }
    origins
}

/// The keys of `api_keys` and `api_keys_file`.
fn unnamed(root: &mut Section, folder: &Path) -> Vec<Key> {
    let mut keys = root.texts("api_keys").unwrap_or_default();
    let mut wanted = !keys.is_empty();
    if let Some(path) = root.text("api_keys_file") {
        match read(root, "api_keys_file", &folder.join(path)) {
            Some(text) => {
                wanted = true;
                keys.extend(text.lines().map(str::to_owned));
            }
            // The file was already reported: do not report as well that there is no key.
            None => wanted = false,
        }
    }
    keys.retain(|key| !key.trim().is_empty());
    if wanted && keys.is_empty() {
        root.problem(
            "api_keys",
            "there is no key among them: write one, or remove the setting",
        );
    }
    let keys = keys.iter();
    let digests = keys.filter_map(|key| digest(root, "api_keys", key.trim()));
    digests.map(Key::unnamed).collect()
}

/// Reads the key of one `[keys.NAME]` section. `known` are the keys read before it, to find duplicates.
fn named(name: &str, section: &mut Section, folder: &Path, known: &[Key]) -> Option<Key> {
    let (text, at) = match (section.text("key"), section.text("key_file")) {
        (Some(key), None) => {
            if !key.starts_with(DIGEST_PREFIX) {
                let what = "the key itself stands here: write `key_file`, or its digest, `\"sha256:…\"` by `printf %s KEY | sha256sum`";
                section.warning("key", what);
            }
            (Some(key), "key")
        }
        (None, Some(path)) => {
            let text = read(section, "key_file", &folder.join(path));
            (text, "key_file")
        }
        (Some(_), Some(_)) => {
            section.problem("key", "there is a `key_file`, too: write one of the two");
            (None, "key")
        }
        (None, None) => {
            section.problem(
                "key",
                "it is missing: write `key = \"sha256:…\"`, or `key_file`",
            );
            (None, "key")
        }
    };
    let admin = section.flag("admin").unwrap_or(false);
    let limits = Arc::new(limits(section));
    if !is_word(name) {
        let what = "the name of a key appears in the log: use letters, digits and `._+-`, at most 32 characters";
        section.problem("key", what);
        return None;
    }
    let text = text?;
    let text = text.trim();
    if text.is_empty() {
        section.problem(at, "there is no key in it");
        return None;
    }
    let digest = digest(section, at, text)?;
    let same = known.iter().find(|other| other.digest == digest);
    if let Some(other) = same.and_then(|other| other.name.as_deref()) {
        let what = format!("it is the same as that of `[keys.{other}]`: make one for each name");
        section.problem(at, what);
    }
    Some(Key {
        name: Some(name.into()),
        digest,
        admin,
        limits,
    })
}

/// What a key may use.
fn limits(section: &mut Section) -> KeyLimits {
    let models = section.texts("models");
    if models.as_ref().is_some_and(Vec::is_empty) {
        let what = "with no model the key is of no use: name some, or leave the line out";
        section.problem("models", what);
    }
    KeyLimits {
        models,
        requests_per_minute: section
            .count("requests_per_minute", 1, u32::MAX)
            .and_then(NonZeroU32::new),
        tokens_per_day: section.whole("tokens_per_day"),
        max_concurrent: section
            .count("max_concurrent", 1, 4096)
            .map(|most| most as usize),
        plan_percent: section.count("plan_percent", 1, 100),
    }
}

/// The text of a file of keys, which others must not write and had better not read.
fn read(section: &Section, setting: &str, path: &Path) -> Option<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            if let Err(what) = ownership::check(path) {
                section.problem(setting, what);
            } else if ownership::others_read(path) {
                section.warning(setting, "other users can read it: `chmod o-r` it");
            }
            Some(text)
        }
        Err(error) => {
            let path = path.display();
            section.problem(setting, format_args!("cannot read {path}: {error}"));
            None
        }
    }
}

/// The digest of a key, or the digest that is written in its place.
fn digest(section: &Section, setting: &str, key: &str) -> Option<KeyDigest> {
    if let Some(hex) = key.strip_prefix(DIGEST_PREFIX) {
        let digest = parse_digest(hex);
        if digest.is_none() {
            let what = "behind `sha256:` there must be 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints them";
            section.problem(setting, what);
        }
        return digest;
    }
    if !key.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        let what = "a key has a character that no header can carry: take letters, digits and `-_.`";
        section.problem(setting, what);
    } else if key.len() < KEY_LEAST {
        let what = "a key is shorter than 16 characters and could be guessed: `openssl rand -hex 32` makes one";
        section.warning(setting, what);
    }
    Some(Sha256::digest(key.as_bytes()).into())
}

fn parse_digest(hex: &str) -> Option<KeyDigest> {
    let mut digest = KeyDigest::default();
    if hex.len() != 2 * digest.len() || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..hex.len()).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

impl Key {
    /// A key of `api_keys`.
    fn unnamed(digest: KeyDigest) -> Self {
        Key {
            name: None,
            digest,
            admin: false,
            limits: Arc::default(),
        }
    }
}

impl Access {
    /// The configured key that equals `key`, if there is one.
    pub fn accepted(&self, key: &str) -> Option<&Key> {
        let digest: KeyDigest = Sha256::digest(key.as_bytes()).into();
        self.keys.iter().find(|known| known.digest == digest)
    }

    /// Whether some key opens the admin area.
    pub fn has_admin(&self) -> bool {
        self.keys.iter().any(|key| key.admin)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigError};
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, None, &Overrides::default())
    }

    fn problem(text: &str) -> String {
        match parse(text) {
            Err(ConfigError::Keys { problems, .. }) => problems.join("\n"),
            other => panic!("{other:?}"),
        }
    }

    const KEY: &str = "a key of a good length";

    #[test]
    fn pages_are_named_one_by_one_and_need_a_key() {
        let keyed = format!("api_keys = [\"{KEY}\"]\n");
        let fine =
            format!("{keyed}allowed_origins = [\"app://obsidian.md\", \"http://localhost:3000\"]");
        assert_eq!(parse(&fine).unwrap().access.origins.len(), 2);
        for (origin, says) in [
            ("*", "`*` is not possible"),
            ("https://a/b", "this is no origin"),
            ("chat.example", "this is no origin"),
            ("https://*.example", "this is no origin"),
        ] {
            let told = problem(&format!("{keyed}allowed_origins = [\"{origin}\"]"));
            assert!(
                told.contains("allowed_origins[0]") && told.contains(says),
                "{told}"
            );
        }
        assert!(problem("allowed_origins = [\"app://x\"]").contains("pages need a key"));
    }

    #[test]
    fn a_named_key_is_written_as_its_digest_or_as_it_is() {
        let digest: String = Sha256::digest(KEY)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        for (written, warnings) in [(format!("sha256:{digest}"), 0), (KEY.to_owned(), 1)] {
            let config = parse(&format!("[keys.n8n]\nkey = \"{written}\"\nadmin = true")).unwrap();
            let key = config.access.accepted(KEY).unwrap();
            assert_eq!((key.name.as_deref(), key.admin), (Some("n8n"), true));
            assert_eq!(config.warnings.len(), warnings, "{:?}", config.warnings);
        }
    }

    #[test]
    fn a_key_of_api_keys_has_no_name_and_opens_no_admin_route() {
        let config = parse(&format!("api_keys = [\"{KEY}\"]")).unwrap();
        let key = config.access.accepted(KEY).unwrap();
        assert_eq!((key.name.as_deref(), key.admin), (None, false));
        assert!(!config.access.has_admin() && config.access.accepted("other").is_none());
    }

    #[test]
    fn a_key_of_api_keys_may_be_given_a_name() {
        let text = format!("api_keys = [\"{KEY}\"]\n[keys.n8n]\nkey = \"{KEY}\"\nadmin = true");
        let config = parse(&text).unwrap();
        assert_eq!(config.access.keys.len(), 1);
        assert!(config.access.has_admin());
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said_by_its_name() {
        for (section, told) in [
            ("", "`keys.n8n.key`: it is missing"),
            ("key = \"\"", "`keys.n8n.key`: there is no key in it"),
            ("key = \"sha256:12\"", "`keys.n8n.key`: behind `sha256:`"),
            ("key = \"sha256:é\"", "`keys.n8n.key`: behind `sha256:`"),
            ("key = \"é\"", "`keys.n8n.key`: a key has a character"),
            (
                "key = \"k\"\nkey_file = \"f\"",
                "`keys.n8n.key`: there is a `key_file`",
            ),
            (
                "key_file = \"/none\"",
                "`keys.n8n.key_file`: cannot read /none",
            ),
            (
                "key = \"k\"\nadmim = true",
                "`keys.n8n.admim`: unknown key; did you mean `admin`?",
            ),
            (
                "key = \"k\"\n[keys.other]\nkey = \"k\"",
                "`keys.other.key`: it is the same as that of `[keys.n8n]`",
            ),
        ] {
            let problem = problem(&format!("[keys.n8n]\n{section}"));
            assert!(problem.contains(told), "{section}: {problem}");
        }
    }
}
