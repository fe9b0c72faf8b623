//! Tries a component by itself.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use guests::admit::Guest;
use guests::cases;
use guests::settings::Settings;

use super::{described, load};
use crate::api;
use crate::config::{Config, Overrides};

/// A component that would be loaded.
struct Loaded {
    guest: Arc<Guest>,
    /// What it says of the configurations that it does not take.
    problem: Option<String>,
    took: Duration,
}

/// Tells whether a component would be loaded with these settings, and what it costs.
pub(super) fn check(settings: Settings, file: &Path) -> Result<()> {
    tell(file, &load_alone(settings, file)?)
}

/// Checks a component that was built, and has it repeat the cases in a folder, or records them anew.
pub(super) fn check_built(file: &Path, folder: &Path, update: bool) -> Result<()> {
    let loaded = load_alone(unset()?, file)?;
    tell(file, &loaded)?;
    match folder.is_dir() {
        true => repeat(&loaded.guest, folder, update),
        false => Ok(()),
    }
}

fn tell(file: &Path, loaded: &Loaded) -> Result<()> {
    let guest = &loaded.guest;
    let took = loaded.took;
    let size = fs::metadata(file)?.len();
    println!("{}: {}", guest.name, described(guest));
    println!("  {}", guest.summary);
    println!(
        "  {} KiB, compiled and tried in {took:.1?}",
        size.div_ceil(1024)
    );
    if let Some(config) = guest.configs().first() {
        let began = Instant::now();
        guest.try_instance(config)?;
        println!("  an instance for a request takes {:.1?}", began.elapsed());
    }
    match &loaded.problem {
        Some(problem) => bail!("{}: {problem}", guest.name),
        None => Ok(()),
    }
}

/// Has a component repeat the cases in a folder, or records them anew.
pub(super) fn test(file: &Path, folder: &Path, update: bool) -> Result<()> {
    ensure!(folder.is_dir(), "there is no folder {}", folder.display());
    repeat(&load_alone(unset()?, file)?.guest, folder, update)
}

fn repeat(guest: &Arc<Guest>, folder: &Path, update: bool) -> Result<()> {
    let cases = cases::read_folder(folder)?;
    ensure!(
        !cases.is_empty(),
        "{} has no cases: NAME.jsonl",
        folder.display()
    );
    let mut differ = 0;
    for case in &cases {
        let replayed = case.replay(guest, api::case_request)?;
        match replayed.difference {
            None => println!("ok       {}", case.name),
            Some(_) if update => {
                let path = folder.join(format!("{}.jsonl", case.name));
                fs::write(&path, replayed.text)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                println!("recorded {}", case.name);
            }
            Some(difference) => {
                differ += 1;
                println!("differs  {}, line {}", case.name, difference.line);
                let line = |line: Option<String>| line.unwrap_or_else(|| "nothing".into());
                println!("  recorded {}", line(difference.recorded));
                println!("  now      {}", line(difference.now));
            }
        }
    }
    ensure!(
        differ == 0,
        "{differ} of {} cases differ: mend the guest, or record them anew with --update",
        cases.len()
    );
    Ok(())
}

/// The settings without any configuration file.
fn unset() -> Result<Settings> {
    let nothing = tempfile::NamedTempFile::new()?;
    let config = Config::load(&Overrides {
        file: Some(nothing.path().to_owned()),
        ..Overrides::default()
    })?;
    Ok(config.guests)
}

/// Loads one component, with the configurations that it is to have. The compiled code is kept, so that a service of
/// the same user need not compile it again.
fn load_alone(settings: Settings, file: &Path) -> Result<Loaded> {
    let name = file.file_stem().and_then(|stem| stem.to_str());
    let name = name.context("the file's name is not UTF-8")?.to_owned();
    let folder = tempfile::tempdir()?;
    fs::copy(file, folder.path().join(format!("{name}.wasm")))
        .with_context(|| format!("cannot read {}", file.display()))?;
    if let Ok(cases) = fs::canonicalize(file.with_extension("cases")) {
        std::os::unix::fs::symlink(cases, folder.path().join(format!("{name}.cases")))?;
    }
    let used = settings.uses.iter().filter(|used| used.guest == name);
    let settings = Settings {
        dir: folder.path().to_owned(),
        uses: used.cloned().collect(),
        ..settings
    };
    let began = Instant::now();
    let set = load(settings)?;
    let took = began.elapsed();
    let problem = set.rejected.get(&name).cloned();
    match set.serving.get(&name) {
        Some(guest) => Ok(Loaded {
            guest: guest.clone(),
            problem,
            took,
        }),
        None => bail!("{name}: {}", problem.unwrap_or("it was not loaded".into())),
    }
}
