//! The file: its tables, what goes into it, and what is taken out of it again.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, params};

use crate::{Entry, LedgerError, Settings};

/// Marks a database as a ledger (`PRAGMA application_id`): "hLdg".
const APPLICATION: i64 = 0x684c_6467;

/// What makes each version of the format of the one before. A step that was released does not change.
const STEPS: [&str; 1] = ["
    CREATE TABLE requests (
        id INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        request TEXT NOT NULL,
        api TEXT NOT NULL,
        key TEXT NOT NULL,
        model TEXT NOT NULL,
        backend TEXT NOT NULL,
        origin TEXT NOT NULL,
        generation INTEGER NOT NULL,
        stream INTEGER NOT NULL,
        status INTEGER NOT NULL,
        code TEXT NOT NULL,
        prompt_tokens INTEGER,
        completion_tokens INTEGER,
        cached_tokens INTEGER,
        reasoning_tokens INTEGER,
        cost_micro_usd INTEGER,
        first_token_ms INTEGER,
        total_ms INTEGER NOT NULL
    );
    CREATE INDEX requests_at ON requests (at);
    CREATE TABLE days (
        day INTEGER NOT NULL,
        api TEXT NOT NULL,
        key TEXT NOT NULL,
        model TEXT NOT NULL,
        requests INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL,
        reasoning_tokens INTEGER NOT NULL,
        cost_micro_usd INTEGER,
        first_tokens INTEGER NOT NULL,
        first_token_ms INTEGER NOT NULL,
        total_ms INTEGER NOT NULL,
        PRIMARY KEY (day, key, model, api)
    ) WITHOUT ROWID;
"];

const INSERT: &str = "INSERT INTO requests (at, request, api, key, model, backend, origin, generation, stream, status, code,
        prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, cost_micro_usd, first_token_ms, total_ms)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";

/// The cost of a day is unknown only if no request of it had one.
const ADD_UP: &str = "INSERT INTO days VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
    ON CONFLICT DO UPDATE SET
        requests = requests + 1,
        failed = failed + excluded.failed,
        prompt_tokens = prompt_tokens + excluded.prompt_tokens,
        completion_tokens = completion_tokens + excluded.completion_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        cost_micro_usd = CASE WHEN cost_micro_usd IS NULL AND excluded.cost_micro_usd IS NULL THEN NULL
            ELSE ifnull(cost_micro_usd, 0) + ifnull(excluded.cost_micro_usd, 0) END,
        first_tokens = first_tokens + excluded.first_tokens,
        first_token_ms = first_token_ms + excluded.first_token_ms,
        total_ms = total_ms + excluded.total_ms";

/// The largest number of tokens, of millionths of a dollar and of milliseconds that one request may count: sums of absurd
/// numbers would overflow.
const COUNT_MAX: u64 = 1 << 40;

/// A day of UTC, in milliseconds.
const DAY: u64 = 24 * 60 * 60 * 1000;

/// How long to wait for another program that has the file in use.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);

/// How large the log of changes (`-wal`) may stay on the disk, in bytes.
const LOG_MAX: u64 = 4 << 20;

/// How many requests are taken out in one step, so that no step takes long.
const TAKE_OUT: u64 = 5000;

/// An open ledger.
pub(crate) struct Store {
    connection: Connection,
    path: PathBuf,
    /// Which file it is.
    inode: Option<u64>,
}

impl Store {
    /// Opens the file, and makes or renews its tables if need be.
    pub(crate) fn open(path: &Path) -> Result<Store, LedgerError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|source| LedgerError::Folder {
                path: path.to_owned(),
                source,
            })?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed(path))?;
        let mut store = Store {
            connection,
            path: path.to_owned(),
            inode: inode(path),
        };
        let found = version(&store.connection, path)?;
        store.prepare(found).map_err(failed(path))?;
        Ok(store)
    }

    fn prepare(&mut self, found: usize) -> rusqlite::Result<()> {
        let connection = &mut self.connection;
        connection.busy_timeout(BUSY_PATIENCE)?;
        if found == 0 {
            // Only while there is no table yet.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A crash of the machine may lose the last entries, and never breaks the file.
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "journal_size_limit", LOG_MAX)?;
        if found < STEPS.len() {
            let change =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            // Another program may have done it meanwhile.
            let found: usize = change.pragma_query_value(None, "user_version", |row| row.get(0))?;
            for step in STEPS.iter().skip(found) {
                change.execute_batch(step)?;
            }
            change.pragma_update(None, "user_version", STEPS.len())?;
            change.pragma_update(None, "application_id", APPLICATION)?;
            change.commit()?;
        }
        Ok(())
    }

    /// Whether its file was moved or deleted, so that what is written would be lost.
    pub(crate) fn is_gone(&self) -> bool {
        inode(&self.path) != self.inode
    }

    /// Writes entries: all of them, or none.
    pub(crate) fn write<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Result<(), LedgerError> {
        let write = || {
            let change = self.connection.transaction()?;
            for entry in entries {
                insert(&change, entry)?;
            }
            change.commit()
        };
        write().map_err(failed(&self.path))
    }

    /// Takes out what is too old, and the oldest while the file is too large. The sums of the days stay.
    pub(crate) fn tidy(&mut self, settings: &Settings, now: u64) -> Result<(), LedgerError> {
        let keep = u64::try_from(settings.keep.as_millis()).unwrap_or(u64::MAX);
        let oldest = now.saturating_sub(keep);
        let tidy = || {
            let old =
                "DELETE FROM requests WHERE id IN (SELECT id FROM requests WHERE at < ?1 LIMIT ?2)";
            while self.connection.execute(old, params![oldest, TAKE_OUT])? > 0 {}
            let first =
                "DELETE FROM requests WHERE id IN (SELECT id FROM requests ORDER BY at LIMIT ?1)";
            while self.size()? > settings.max_size
                && self.connection.execute(first, params![TAKE_OUT])? > 0
            {}
            // Each step gives one page back.
            let mut vacuum = self.connection.prepare("PRAGMA incremental_vacuum")?;
            let mut pages = vacuum.query([])?;
            while pages.next()?.is_some() {}
            Ok(())
        };
        tidy().map_err(failed(&self.path))
    }

    /// How many bytes of the file are in use.
    fn size(&self) -> rusqlite::Result<u64> {
        let number = |name| {
            self.connection
                .pragma_query_value(None, name, |row| row.get::<_, u64>(0))
        };
        let pages = number("page_count")?.saturating_sub(number("freelist_count")?);
        Ok(pages * number("page_size")?)
    }
}

fn insert(change: &Transaction, entry: &Entry) -> rusqlite::Result<()> {
    let key = entry.key.as_deref().unwrap_or_default();
    let tokens = entry.tokens;
    // SQLite has signed numbers only.
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let sane = |number: u64| whole(number.min(COUNT_MAX));
    let count = |of: fn(&crate::Tokens) -> u64| tokens.as_ref().map(|tokens| sane(of(tokens)));
    let counts = [
        count(|tokens| tokens.prompt),
        count(|tokens| tokens.completion),
        count(|tokens| tokens.cached),
        count(|tokens| tokens.reasoning),
    ];
    let cost = entry.cost_micro_usd.map(sane);
    let first = entry.first_token_ms.map(sane);
    let total = sane(entry.total_ms);
    change.prepare_cached(INSERT)?.execute(params![
        whole(entry.at),
        &*entry.request,
        entry.api,
        key,
        entry.model,
        entry.backend,
        entry.origin,
        whole(entry.generation),
        entry.stream,
        entry.status,
        entry.code,
        counts[0],
        counts[1],
        counts[2],
        counts[3],
        cost,
        first,
        total,
    ])?;
    change.prepare_cached(ADD_UP)?.execute(params![
        whole(entry.at / DAY),
        entry.api,
        key,
        entry.model,
        !entry.code.is_empty(),
        counts[0].unwrap_or(0),
        counts[1].unwrap_or(0),
        counts[2].unwrap_or(0),
        counts[3].unwrap_or(0),
        cost,
        first.is_some(),
        first.unwrap_or(0),
        total,
    ])?;
    Ok(())
}

/// The version of a ledger's format, 0 for a new file.
pub(crate) fn version(connection: &Connection, path: &Path) -> Result<usize, LedgerError> {
    let number = |name| {
        let number = connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        number.map_err(failed(path))
    };
    let (application, found) = (number("application_id")?, number("user_version")?);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed(path))?;
    match usize::try_from(found) {
        _ if tables == 0 => Ok(0),
        _ if application != APPLICATION => Err(LedgerError::Foreign(path.to_owned())),
        Ok(found) if found <= STEPS.len() => Ok(found),
        _ => Err(LedgerError::Newer {
            path: path.to_owned(),
            found,
            known: STEPS.len() as i64,
        }),
    }
}

pub(crate) fn failed(path: &Path) -> impl Fn(rusqlite::Error) -> LedgerError {
    let path = path.to_owned();
    move |source| LedgerError::Sqlite {
        path: path.clone(),
        source,
    }
}

/// Whether the file itself is broken, so that trying again cannot help.
pub(crate) fn is_broken(error: &LedgerError) -> bool {
    let LedgerError::Sqlite { source, .. } = error else {
        return false;
    };
    let broken = [ErrorCode::DatabaseCorrupt, ErrorCode::NotADatabase];
    source
        .sqlite_error_code()
        .is_some_and(|code| broken.contains(&code))
}

/// Which file lies at a path.
pub(crate) fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|file| file.ino())
}

/// Puts a broken file aside, with its log of changes. Returns its new name.
pub(crate) fn put_aside(path: &Path, now: u64) -> std::io::Result<PathBuf> {
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let names = (0..).map(|more| match more {
        0 => format!(".broken-{}", now / 1000),
        more => format!(".broken-{}-{more}", now / 1000),
    });
    let mut free = names.skip_while(|name| beside(name).exists());
    let aside = free.next().unwrap_or_default();
    std::fs::rename(path, beside(&aside))?;
    for log in ["-wal", "-shm"] {
        match std::fs::rename(beside(log), beside(&format!("{aside}{log}"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(beside(&aside))
}
