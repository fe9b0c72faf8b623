//! `claude-harness guest new`: a folder with a guest to begin with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

/// What to make.
#[derive(Args, Debug)]
pub struct New {
    /// The guest's name: lower-case letters, digits and `-`
    name: String,
    /// What it is
    #[arg(long)]
    world: World,
    /// What it is written in
    #[arg(long)]
    lang: Language,
    /// The folder to make [default: ./NAME]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// What a guest is.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum World {
    /// It speaks the protocol of a command line
    Adapter,
    /// It changes requests and answers on their way
    Transform,
    /// It speaks another HTTP API
    Dialect,
}

/// What a guest is written in.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Language {
    Rust,
    /// JavaScript
    Js,
    Python,
}

/// A file of a new guest: its path, and its text with the words that [`New::fill`] replaces.
type Template = (&'static str, &'static str);

macro_rules! template {
    ($path:literal, $source:literal) => {
        ($path, include_str!(concat!("../../../", $source)))
    };
}

/// The contract, and what is in every folder.
const COMMON: [Template; 5] = [
    template!("README.md", "guests/templates/README.md"),
    template!("wit/1.0.0/adapter.wit", "wit/1.0.0/adapter.wit"),
    template!("wit/1.0.0/dialect.wit", "wit/1.0.0/dialect.wit"),
    template!("wit/1.0.0/transform.wit", "wit/1.0.0/transform.wit"),
    template!("wit/1.0.0/types.wit", "wit/1.0.0/types.wit"),
];

/// A guest in Rust, with the kit.
const RUST: [Template; 16] = [
    template!(".gitignore", "guests/templates/rust/gitignore"),
    template!("Cargo.toml", "guests/templates/rust/Cargo.toml"),
    template!("guest.toml", "guests/templates/rust/guest.toml"),
    template!("harness/kit/Cargo.toml", "guests/templates/rust/kit.toml"),
    template!("harness/kit/src/adapter.rs", "guests/kit/src/adapter.rs"),
    template!("harness/kit/src/dialect.rs", "guests/kit/src/dialect.rs"),
    template!("harness/kit/src/http.rs", "guests/kit/src/http.rs"),
    template!("harness/kit/src/lib.rs", "guests/kit/src/lib.rs"),
    template!("harness/kit/src/memory.rs", "guests/kit/src/memory.rs"),
    template!("harness/kit/src/state.rs", "guests/kit/src/state.rs"),
    template!("harness/kit/src/testing.rs", "guests/kit/src/testing.rs"),
    template!(
        "harness/kit/src/transform.rs",
        "guests/kit/src/transform.rs"
    ),
    template!(
        "harness/kit/bindings/Cargo.toml",
        "guests/templates/rust/bindings.toml"
    ),
    template!(
        "harness/kit/bindings/src/lib.rs",
        "guests/kit/bindings/src/lib.rs"
    ),
    template!(
        "harness/kit/dialect-bindings/Cargo.toml",
        "guests/templates/rust/dialect-bindings.toml"
    ),
    template!(
        "harness/kit/dialect-bindings/src/lib.rs",
        "guests/kit/dialect-bindings/src/lib.rs"
    ),
];

/// A guest in JavaScript.
const JS: [Template; 3] = [
    template!(".gitignore", "guests/templates/js/gitignore"),
    template!("guest.toml", "guests/templates/js/guest.toml"),
    template!("package.json", "guests/templates/js/package.json"),
];

/// A guest in Python.
const PYTHON: [Template; 2] = [
    template!(".gitignore", "guests/templates/python/gitignore"),
    template!("guest.toml", "guests/templates/python/guest.toml"),
];

impl World {
    fn name(self) -> &'static str {
        match self {
            World::Adapter => "adapter",
            World::Transform => "transform",
            World::Dialect => "dialect",
        }
    }

    /// How the configuration names a guest of this world.
    fn used(self) -> &'static str {
        match self {
            World::Adapter => {
                "[backends.NAME]\n    profile = \"generic\"\n    command = \"cat\"\n    adapter = \"NAME\""
            }
            World::Dialect => "[guests.NAME]\n    config = { model = \"claude-haiku\" }",
            World::Transform => {
                "[models.NAME]\n    backend = \"claude\"\n    model = \"haiku\"\n    transforms = [{ guest = \"NAME\", config = { signature = \"-- a guest\" } }]"
            }
        }
    }

    /// A dialogue that the new guest repeats.
    fn case(self) -> Template {
        match self {
            World::Dialect => template!(
                "cases/greeting.jsonl",
                "guests/templates/cases/dialect.jsonl"
            ),
            World::Adapter => template!(
                "cases/greeting.jsonl",
                "guests/templates/cases/adapter.jsonl"
            ),
            World::Transform => template!(
                "cases/greeting.jsonl",
                "guests/templates/cases/transform.jsonl"
            ),
        }
    }
}

impl Language {
    fn files(self) -> &'static [Template] {
        match self {
            Language::Rust => &RUST,
            Language::Js => &JS,
            Language::Python => &PYTHON,
        }
    }

    /// The guest's own sources.
    fn sources(self, world: World) -> &'static [Template] {
        match (self, world) {
            (Language::Rust, World::Adapter) => &[template!(
                "src/lib.rs",
                "guests/templates/rust/adapter/lib.rs"
            )],
            (Language::Rust, World::Transform) => &[template!(
                "src/lib.rs",
                "guests/templates/rust/transform/lib.rs"
            )],
            (Language::Rust, World::Dialect) => &[template!(
                "src/lib.rs",
                "guests/templates/rust/dialect/lib.rs"
            )],
            (Language::Js, World::Dialect) => &[template!(
                "guest.js",
                "guests/templates/js/dialect/guest.js"
            )],
            (Language::Python, World::Dialect) => &[template!(
                "app.py",
                "guests/templates/python/dialect/app.py"
            )],
            (Language::Js, World::Adapter) => &[template!(
                "guest.js",
                "guests/templates/js/adapter/guest.js"
            )],
            (Language::Js, World::Transform) => &[template!(
                "guest.js",
                "guests/templates/js/transform/guest.js"
            )],
            (Language::Python, World::Adapter) => &[
                template!("adapter.py", "guests/templates/python/adapter/adapter.py"),
                template!("app.py", "guests/templates/python/adapter/app.py"),
            ],
            (Language::Python, World::Transform) => &[template!(
                "app.py",
                "guests/templates/python/transform/app.py"
            )],
        }
    }
}

impl New {
    /// A template with this guest's words in place of `NAME`, `NAME_`, `WORLD` and `USE`.
    fn fill(&self, text: &str) -> String {
        text.replace("USE\n", &format!("{}\n", self.world.used()))
            .replace("WORLD", self.world.name())
            .replace("NAME_", &self.name.replace('-', "_"))
            .replace("NAME", &self.name)
    }

    /// Whether a file is the same in all guests.
    fn is_fixed(path: &str) -> bool {
        path.starts_with("wit/") || path.starts_with("harness/")
    }
}

/// Makes the folder. One that is there already is left alone.
pub(super) fn make(new: &New) -> Result<()> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ensure!(
        new.name.starts_with(|c: char| c.is_ascii_lowercase()) && new.name.chars().all(is_plain),
        "`{}` is not a name for a guest: use lower-case letters, digits and `-`, and begin with a letter",
        new.name
    );
    let dir = new.dir.clone().unwrap_or_else(|| PathBuf::from(&new.name));
    ensure!(!dir.exists(), "{} is there already", dir.display());
    let (shared, own) = (new.lang.files(), new.lang.sources(new.world));
    let files = COMMON.iter().chain(shared).chain(own);
    for (path, text) in files.chain([&new.world.case()]) {
        let text = match New::is_fixed(path) {
            true => (*text).to_owned(),
            false => new.fill(text),
        };
        write(&dir.join(path), &text)?;
    }
    println!("made {}", dir.display());
    println!("next: cd {} && claude-harness guest build", dir.display());
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, text))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of a folder of this repository, as a guest has them in `as_folder`.
    fn files(folder: &str, as_folder: &str) -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(folder);
        let files = fs::read_dir(folder).unwrap();
        let name = |file: fs::DirEntry| file.file_name().into_string().unwrap();
        files
            .map(|file| format!("{as_folder}/{}", name(file.unwrap())))
            .collect()
    }

    #[test]
    fn a_new_guest_has_the_whole_kit_and_the_whole_contract() {
        let given: Vec<&str> = COMMON.iter().chain(&RUST).map(|(path, _)| *path).collect();
        for (folder, as_folder) in [
            ("wit/1.0.0", "wit/1.0.0"),
            ("guests/kit/src", "harness/kit/src"),
            ("guests/kit/bindings/src", "harness/kit/bindings/src"),
            (
                "guests/kit/dialect-bindings/src",
                "harness/kit/dialect-bindings/src",
            ),
        ] {
            for file in files(folder, as_folder) {
                assert!(
                    given.contains(&&*file),
                    "`guest new` leaves out {file} of {folder}"
                );
            }
        }
    }
}
