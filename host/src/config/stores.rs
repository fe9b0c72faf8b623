//! The sections `[ledger]`, `[cache]` and `[traces]`: what is kept of requests and answers, and what is told of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reader::Section;
use super::{CacheConfig, TracesConfig};

/// The file of the ledger in `state_dir`.
const LEDGER_FILE: &str = "usage.sqlite";

/// How long single requests are kept by default.
const LEDGER_KEEP: Duration = Duration::from_secs(90 * 24 * 3600);

/// The least size of a ledger, in bytes. A smaller one would lose today's requests.
const LEDGER_LEAST: usize = 1 << 20;

/// The largest size of a ledger, in bytes. A larger one is taken for a typing error.
const LEDGER_MOST: usize = 1 << 40;

/// The ledger of a configuration in `folder`. Without a path and without `state_dir`, there is none.
pub(super) fn ledger(
    root: &mut Section,
    folder: &Path,
    state_dir: Option<&Path>,
) -> Option<ledger::Settings> {
    let section = root.section("ledger");
    let mut section = section.unwrap_or_else(|| root.beside("ledger", toml::Table::new()));
    let is_on = section.flag("enabled").unwrap_or(true);
    let path = section.text("path").map(|path| folder.join(at_home(&path)));
    let keep = section.timeout("keep").unwrap_or(LEDGER_KEEP);
    let max_size = section.size("max_size", LEDGER_MOST).unwrap_or(256 << 20);
    if max_size < LEDGER_LEAST {
        section.problem("max_size", "it must be at least \"1MiB\"");
    }
    section.finish();
    let path = path.or_else(|| Some(state_dir?.join(LEDGER_FILE)));
    Some(ledger::Settings {
        path: path.filter(|_| is_on)?,
        keep,
        max_size: max_size as u64,
    })
}

/// The least size of a cache, in bytes. A smaller one would hold next to nothing.
const CACHE_LEAST: usize = 1 << 20;

/// The largest size of a cache, in bytes. A larger one is taken for a typing error.
const CACHE_MOST: usize = 1 << 40;

/// The cache, if there is a section for it.
pub(super) fn cache(root: &mut Section) -> Option<CacheConfig> {
    let mut section = root.section("cache")?;
    let ttl = section.timeout("ttl").unwrap_or(Duration::from_secs(3600));
    let size = section.size("size", CACHE_MOST).unwrap_or(256 << 20);
    if size < CACHE_LEAST {
        section.problem("size", "it must be at least \"1MiB\"");
    }
    let across_keys = section.flag("across_keys").unwrap_or(false);
    section.finish();
    Some(CacheConfig {
        ttl,
        size: size as u64,
        across_keys,
    })
}

/// Where traces are sent, if there is a section for it.
pub(super) fn traces(root: &mut Section) -> Option<TracesConfig> {
    let mut section = root.section("traces")?;
    let endpoint = section.text("endpoint");
    let sample_percent = section.count("sample_percent", 0, 100).unwrap_or(100);
    let wanted = "it must be the whole address of a collector without a query, such as \"http://127.0.0.1:4318/v1/traces\"; \
        a secret goes into the variable OTEL_EXPORTER_OTLP_HEADERS";
    if !endpoint.as_deref().is_some_and(is_web_address) {
        section.problem("endpoint", wanted);
    }
    section.finish();
    Some(TracesConfig {
        endpoint: endpoint?,
        sample_percent,
    })
}

fn is_web_address(text: &str) -> bool {
    let address = text.parse::<axum::http::Uri>();
    address.is_ok_and(|address| {
        let authority = address.authority().map(|authority| authority.as_str());
        // What stands before `@` or in a query would be a secret, and told in the log.
        matches!(address.scheme_str(), Some("http" | "https"))
            && address.query().is_none()
            && authority.is_some_and(|authority| !authority.contains('@'))
    })
}

/// A path with the home folder in the place of `~`.
fn at_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_no_place_for_a_secret() {
        for good in ["http://127.0.0.1:4318/v1/traces", "https://host"] {
            assert!(is_web_address(good), "{good}");
        }
        for bad in [
            "/v1/traces",
            "ftp://host/v1/traces",
            "https://name:secret@host/v1/traces",
            "https://host/v1/traces?token=secret",
        ] {
            assert!(!is_web_address(bad), "{bad}");
        }
    }
}
