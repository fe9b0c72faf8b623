//! What a component imports and exports, read before it is compiled.

use basics::plain;
use wasmparser::{Parser, Payload};

use super::{MESSAGE_MAX, Refused};

/// The contract's package, and that of the contract before the first release.
const PACKAGE: &str = "harness:guest/";
const EARLIER_PACKAGE: &str = "claude-harness:guest/";

/// The contract that this program serves: this major version, and what was added to it up to this minor one.
const CONTRACT: (u64, u64) = (1, 0);

/// The interfaces of the contract that a guest may import. `types` holds no functions.
const ALLOWED_IMPORTS: [&str; 2] = ["log", "types"];

/// The names of all that a component imports and exports.
#[derive(Debug, Default)]
pub struct Interfaces {
    /// What it imports.
    pub imports: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
}

impl Interfaces {
    /// Reads them, which takes no compiling.
    ///
    /// # Errors
    ///
    /// Fails if it is no component.
    pub fn read(component: &[u8]) -> Result<Self, Refused> {
        let invalid = |error: wasmparser::BinaryReaderError| {
            Refused::NoComponent(plain::line(&error.to_string(), MESSAGE_MAX))
        };
        let mut all = Interfaces::default();
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(component) {
            match payload.map_err(invalid)? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(imports) if depth == 0 => {
                    for import in imports {
                        all.imports
                            .push(import.map_err(invalid)?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 0 => {
                    for export in exports {
                        all.exports
                            .push(export.map_err(invalid)?.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(all)
    }
}

/// Whether the name is that of an interface of WASI.
pub(super) fn is_wasi(name: &str) -> bool {
    name.starts_with("wasi:")
}

/// Refuses a component that imports more than it may. A guest cannot misuse what it cannot call: that is safer
/// than any rule about calls.
pub(super) fn check_imports(imports: &[String]) -> Result<(), Refused> {
    let is_of_contract = |name: &str| {
        name.strip_prefix(PACKAGE)
            .and_then(|rest| rest.split('@').next())
            .is_some_and(|interface| ALLOWED_IMPORTS.contains(&interface))
    };
    match imports
        .iter()
        .find(|name| !is_wasi(name) && !is_of_contract(name))
    {
        Some(name) => Err(Refused::Import(plain::line(name, 100))),
        None => Ok(()),
    }
}

/// Refuses a component that was built for a version of the contract that is not served. Of the same major version,
/// an older guest does what it did, because nothing is taken away.
pub(super) fn check_version<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), Refused> {
    for name in names {
        let version = name.rsplit_once('@').map_or("", |(_, version)| version);
        if name.starts_with(EARLIER_PACKAGE) {
            return Err(Refused::Older(plain::line(version, 40)));
        }
        if !name.starts_with(PACKAGE) {
            continue;
        }
        let mut numbers = version
            .split('.')
            .map(|part| part.parse().unwrap_or(u64::MAX));
        let built = (
            numbers.next().unwrap_or(u64::MAX),
            numbers.next().unwrap_or(u64::MAX),
        );
        if built.0 < CONTRACT.0 {
            return Err(Refused::Older(plain::line(version, 40)));
        }
        if built > CONTRACT {
            return Err(Refused::Newer(plain::line(version, 40)));
        }
    }
    Ok(())
}
