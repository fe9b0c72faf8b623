//! A ledger, seen from outside: what is noted is told, and what is wrong with its file costs nobody anything.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on shall fail where it stands"
)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use claude_harness_ledger::{By, Entry, Ledger, LedgerError, Settings, Sum, Tokens, sums};
use rusqlite::Connection;

const PATIENCE: Duration = Duration::from_secs(20);
const DAY: u64 = 24 * 60 * 60 * 1000;
/// 2026-11-29, at noon.
const NOON: u64 = 1_795_953_600_000;

fn settings(folder: &Path) -> Settings {
    Settings {
        path: folder.join("state/usage.sqlite"),
        keep: Duration::from_secs(90 * 24 * 3600),
        max_size: 64 << 20,
    }
}

fn entry(at: u64) -> Entry {
    Entry {
        at,
        request: "req_1".into(),
        api: "chat".into(),
        key: Some("laptop".into()),
        model: "claude-sonnet".into(),
        backend: "claude".into(),
        origin: "warm",
        status: 200,
        tokens: Some(Tokens {
            prompt: 100,
            completion: 20,
            cached: 80,
            reasoning: 5,
        }),
        cost_micro_usd: Some(1500),
        first_token_ms: Some(300),
        total_ms: 900,
        ..Entry::default()
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "it took too long");
        std::thread::yield_now();
    }
}

/// Ends a ledger, and waits until its thread has left the file.
fn close(ledger: Ledger, settings: &Settings) {
    assert!(ledger.flush(PATIENCE));
    drop(ledger);
    let log = settings.path.with_extension("sqlite-wal");
    until(|| (!log.exists()).then_some(()));
}

fn requests(path: &Path) -> u64 {
    sums(path, &[], None).map_or(0, |sums| sums[0].requests)
}

#[test]
fn what_was_noted_is_added_up_by_day_model_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let ledger = Ledger::start(Some(settings.clone())).unwrap();
    ledger.record(&entry(NOON).into());
    ledger.record(
        &Entry {
            cost_micro_usd: None,
            first_token_ms: Some(500),
            ..entry(NOON + 1000)
        }
        .into(),
    );
    ledger.record(
        &Entry {
            model: "codex".into(),
            key: None,
            status: 503,
            code: "queue_full".into(),
            tokens: None,
            cost_micro_usd: None,
            first_token_ms: None,
            ..entry(NOON + DAY)
        }
        .into(),
    );
    assert!(ledger.flush(PATIENCE));
    let days = sums(&settings.path, &[By::Day], None).unwrap();
    let first = Sum {
        day: Some("2026-11-29".into()),
        model: None,
        key: None,
        api: None,
        requests: 2,
        failed: 0,
        prompt_tokens: 200,
        completion_tokens: 40,
        cached_tokens: 160,
        reasoning_tokens: 10,
        cost_usd: Some(0.0015),
        mean_first_token_ms: Some(400),
        mean_total_ms: Some(900),
    };
    assert_eq!(days[0], first);
    assert_eq!((days[1].failed, days[1].cost_usd), (1, None));
    let models = sums(&settings.path, &[By::Model], Some("2026-11-30")).unwrap();
    assert_eq!(models.len(), 1);
    assert_eq!(models[0].model.as_deref(), Some("codex"));
    let both = sums(&settings.path, &[By::Key, By::Day], None).unwrap();
    let keys: Vec<_> = both.iter().map(|sum| sum.key.as_deref().unwrap()).collect();
    assert_eq!(keys, ["", "laptop"]);
    for bad in ["2026-02-31", "yesterday", "now", ""] {
        let refused = sums(&settings.path, &[], Some(bad));
        assert!(matches!(refused, Err(LedgerError::Day(_))), "{bad}");
    }
}

#[test]
fn two_services_share_a_ledger_and_a_restart_goes_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let services = [(); 2].map(|()| Ledger::start(Some(settings.clone())).unwrap());
    for turn in 0..200 {
        services[turn % 2].record(&entry(NOON).into());
    }
    for service in &services {
        assert!(service.flush(PATIENCE));
        assert_eq!((service.problem(), service.lost()), (None, 0));
    }
    drop(services);
    let again = Ledger::start(Some(settings.clone())).unwrap();
    again.record(&entry(NOON).into());
    assert!(again.flush(PATIENCE));
    assert_eq!(requests(&settings.path), 201);
}

#[test]
fn old_requests_go_and_the_sums_of_their_days_stay() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let ledger = Ledger::start(Some(settings.clone())).unwrap();
    ledger.record(&entry(now() - 91 * DAY).into());
    ledger.record(&entry(now()).into());
    close(ledger, &settings);
    let _again = Ledger::start(Some(settings.clone())).unwrap();
    let rows = || -> u64 {
        let file = Connection::open(&settings.path).unwrap();
        let count = file.query_row("SELECT count(*) FROM requests", [], |row| row.get(0));
        count.unwrap()
    };
    until(|| (rows() == 1).then_some(()));
    assert_eq!(requests(&settings.path), 2);
}

#[test]
fn a_ledger_that_grows_too_large_loses_its_oldest_requests() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        max_size: 1 << 20,
        ..settings(folder.path())
    };
    let ledger = Ledger::start(Some(settings.clone())).unwrap();
    for turn in 0..20_000 {
        ledger.record(&entry(now() + turn).into());
        if turn % 4000 == 0 {
            assert!(ledger.flush(PATIENCE));
        }
    }
    close(ledger, &settings);
    close(Ledger::start(Some(settings.clone())).unwrap(), &settings);
    let size = std::fs::metadata(&settings.path).unwrap().len();
    assert!(size <= 1 << 20, "{size} bytes");
    assert_eq!(requests(&settings.path), 20_000);
}

#[test]
fn a_broken_file_is_put_aside_and_a_new_one_begins() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    std::fs::create_dir_all(settings.path.parent().unwrap()).unwrap();
    std::fs::write(
        &settings.path,
        "this is no database, and it is long enough to be looked at".repeat(100),
    )
    .unwrap();
    let ledger = Ledger::start(Some(settings.clone())).unwrap();
    ledger.record(&entry(NOON).into());
    until(|| (requests(&settings.path) == 1).then_some(()));
    assert_eq!(ledger.problem(), None);
    let files = std::fs::read_dir(settings.path.parent().unwrap()).unwrap();
    let aside = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert!(
        aside
            .into_iter()
            .any(|name| name.starts_with("usage.sqlite.broken-"))
    );
}

#[test]
fn pages_that_break_later_are_put_aside_too() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let ledger = Ledger::start(Some(settings.clone())).unwrap();
    for _ in 0..2000 {
        ledger.record(&entry(NOON).into());
    }
    close(ledger, &settings);
    let mut broken = std::fs::read(&settings.path).unwrap();
    assert!(broken.len() > 100_000);
    broken[8192..90_000].fill(0xaa);
    std::fs::write(&settings.path, broken).unwrap();
    let ledger = Ledger::start(Some(settings.clone())).unwrap();
    until(|| {
        ledger.record(&entry(NOON).into());
        ledger.flush(PATIENCE);
        let files = std::fs::read_dir(settings.path.parent().unwrap()).unwrap();
        let mut names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.any(|name| name.contains("broken")).then_some(())
    });
    until(|| ledger.problem().is_none().then_some(()));
}

#[test]
fn a_ledger_of_a_later_version_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    close(Ledger::start(Some(settings.clone())).unwrap(), &settings);
    let file = Connection::open(&settings.path).unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    drop(file);
    let before = std::fs::read(&settings.path).unwrap();
    let ledger = Ledger::start(Some(settings.clone())).unwrap();
    let problem = until(|| ledger.problem());
    assert!(
        problem.contains("a later version of this program"),
        "{problem}"
    );
    ledger.record(&entry(NOON).into());
    assert!(!ledger.flush(PATIENCE));
    assert_eq!(std::fs::read(&settings.path).unwrap(), before);
    assert!(matches!(
        sums(&settings.path, &[], None),
        Err(LedgerError::Newer { .. })
    ));
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    std::fs::create_dir_all(settings.path.parent().unwrap()).unwrap();
    let file = Connection::open(&settings.path).unwrap();
    file.execute_batch("CREATE TABLE photos (name TEXT)")
        .unwrap();
    let ledger = Ledger::start(Some(settings.clone())).unwrap();
    let problem = until(|| ledger.problem());
    assert!(problem.contains("belongs to another program"), "{problem}");
}

#[test]
fn what_cannot_be_written_now_is_written_when_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    // A file where the folder should be.
    let in_the_way: PathBuf = folder.path().join("state");
    std::fs::write(&in_the_way, "").unwrap();
    let ledger = Ledger::start(Some(settings.clone())).unwrap();
    ledger.record(&entry(NOON).into());
    assert!(!ledger.flush(PATIENCE));
    assert!(ledger.problem().unwrap().contains("cannot make the folder"));
    std::fs::remove_file(&in_the_way).unwrap();
    assert!(ledger.flush(PATIENCE));
    assert_eq!((ledger.problem(), ledger.lost()), (None, 0));
    assert_eq!(requests(&settings.path), 1);
}

#[test]
fn a_file_that_stays_locked_loses_only_the_oldest_entries() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let ledger = Ledger::start(Some(settings.clone())).unwrap();
    assert!(ledger.flush(PATIENCE));
    let other = Connection::open(&settings.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    ledger.record(&entry(NOON).into());
    assert!(!ledger.flush(PATIENCE));
    assert!(ledger.problem().unwrap().contains("locked"));
    other.execute_batch("COMMIT").unwrap();
    assert!(ledger.flush(PATIENCE));
    assert_eq!((ledger.problem(), requests(&settings.path)), (None, 1));
}

#[test]
fn without_settings_nothing_is_kept_and_they_may_come_later() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let ledger = Ledger::start(None).unwrap();
    ledger.record(&entry(NOON).into());
    assert!(ledger.flush(PATIENCE));
    assert!(!settings.path.exists());
    ledger.change(Some(settings.clone()));
    ledger.record(&entry(NOON).into());
    assert!(ledger.flush(PATIENCE));
    assert_eq!(requests(&settings.path), 1);
}

#[test]
fn a_file_that_is_taken_away_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let ledger = Ledger::start(Some(settings.clone())).unwrap();
    ledger.record(&entry(NOON).into());
    assert!(ledger.flush(PATIENCE));
    std::fs::remove_dir_all(settings.path.parent().unwrap()).unwrap();
    ledger.record(&entry(NOON).into());
    assert!(ledger.flush(PATIENCE));
    assert_eq!(requests(&settings.path), 1);
}

#[test]
fn absurd_numbers_break_no_sums() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let ledger = Ledger::start(Some(settings.clone())).unwrap();
    let absurd = Entry {
        tokens: Some(Tokens {
            prompt: u64::MAX,
            ..Tokens::default()
        }),
        cost_micro_usd: Some(u64::MAX),
        total_ms: u64::MAX,
        ..entry(NOON)
    };
    let absurd = absurd.into();
    for _ in 0..3 {
        ledger.record(&absurd);
    }
    assert!(ledger.flush(PATIENCE));
    assert_eq!(requests(&settings.path), 3);
}
