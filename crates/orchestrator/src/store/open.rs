//! Opening: what stands in the data folder is looked at before anything is written.
//!
//! A new database is made under another name and renamed when it is whole, so that an empty or half-made file is
//! never ours and never taken for one. A database that is there is first read without a right to write.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use groundcrew_durable::lock::HomeLock;
use groundcrew_protocol::ids::Generation;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool,
    SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};

use super::{DATABASE_FILE, OpenError};
use crate::owner;

/// Every step of the schema, embedded. Each step sets `schema` in `meta`.
pub(super) static MIGRATOR: Migrator = sqlx::migrate!("./migrations");
/// The schema that this version writes; one step each.
pub(super) const SCHEMA: u64 = 8;
/// The first schema that has packages.
pub(super) const SCHEMA_WITH_PACKAGES: u64 = 4;
/// `GCrd` in the header of the database: tells ours from any other.
pub(super) const APPLICATION_ID: u32 = 0x4743_7264;
/// Readers at a time: two cores' worth of queries and as many that wait for the disk.
const READERS: u32 = 4;
/// Longest wait for another process that holds the database, as a backup's checkpoint does.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// A database up to this size is checked whole at every start; of a larger one the tables that decisions
/// need, so that a start stays a matter of seconds.
const WHOLE_CHECK_BYTES_MAX: u64 = 512 << 20;
/// Pages that the writer keeps, in KiB: what a commit of many changes touches must fit, or SQLite writes the same pages
/// to the write-ahead log several times within it and reads them back.
const WRITER_CACHE_KIB: u32 = 64 * 1024;
/// The write-ahead log is moved into the database past this many pages (of 4 KiB, so 64 MiB). SQLite's own 1,000 is less
/// than one commit of many results writes; the longer log lets a page that changes often be moved once.
const CHECKPOINT_PAGES: u32 = 16_384;
/// Those tables.
const DECISIVE_TABLES: [&str; 9] =
    ["meta", "settings", "nodes", "profiles", "tokens", "runs", "segments", "drains", "packages"];

/// A store's connections, ready for use.
pub(super) struct Opened {
    /// Held until the writer has ended.
    pub lock: HomeLock,
    /// The one connection that writes.
    pub writer: SqliteConnection,
    /// The log writer's own reader.
    pub log_reader: SqliteConnection,
    /// Everybody else's.
    pub readers: SqlitePool,
    /// From `meta`.
    pub generation: Generation,
    /// From `meta`.
    pub listened_ms: u64,
    /// Number of the newest event ever.
    pub last_event: u64,
}

/// Opens the database in `data`, which is made if it is missing.
pub(super) async fn open(data: &Path) -> Result<Opened, OpenError> {
    let lock = lock(data)?;
    let file = data.join(DATABASE_FILE);
    match look(data, &file)? {
        Standing::Nothing => create(data, &file).await?,
        Standing::Whole => check(&file, true).await?,
        Standing::WithWriteAhead => check(&file, false).await?,
    }
    // Before the database is opened: SQLite's locks would go with any other descriptor of it that is closed.
    give_files(data).map_err(|source| OpenError::File {
        what: "giving to the owner of the folder what is in",
        path: data.to_owned(),
        source,
    })?;
    let failed = |what| {
        let file = file.clone();
        move |source| OpenError::Database { what, file, source }
    };
    let mut writer = writing(&file).connect().await.map_err(failed("opening the database"))?;
    migrate(&mut writer, &file).await?;
    let generation = meta_number(&mut writer, &file, "generation").await?;
    let listened_ms = meta_number(&mut writer, &file, "listened_ms").await?;
    let last_event: i64 =
        sqlx::query_scalar("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'")
            .fetch_one(&mut writer)
            .await
            .map_err(failed("reading the number of the last event from"))?;
    let log_reader = reading(&file).connect().await.map_err(failed("opening the database"))?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .connect_with(reading(&file))
        .await
        .map_err(failed("opening the database"))?;
    Ok(Opened {
        lock,
        writer,
        log_reader,
        readers,
        generation: Generation(generation),
        listened_ms,
        last_event: u64::try_from(last_event).unwrap_or(0),
    })
}

/// Gives what lies at the top of the folder to the folder's owner, where root has just made some of it.
fn give_files(data: &Path) -> std::io::Result<()> {
    if rustix::process::geteuid().is_root() {
        for entry in std::fs::read_dir(data)? {
            owner::give(&entry?.path(), data)?;
        }
    }
    Ok(())
}

/// Makes the folder where it is missing, and locks it.
pub(super) fn lock(data: &Path) -> Result<HomeLock, OpenError> {
    groundcrew_durable::whole::create_folder(data, 0o700)
        .map_err(|source| OpenError::Folder { folder: data.to_owned(), source })?;
    HomeLock::acquire(data).map_err(|source| match source {
        groundcrew_durable::Error::Held { .. } => OpenError::Locked { folder: data.to_owned(), source },
        source => OpenError::Folder { folder: data.to_owned(), source },
    })
}

fn common(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(false)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        // Statements carry documents and tokens' hashes: they are not for a log.
        .disable_statement_logging()
}

/// The connection that writes.
pub(super) fn writing(file: &Path) -> SqliteConnectOptions {
    common(file)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("cache_size", format!("-{WRITER_CACHE_KIB}"))
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
}

/// A connection that cannot write.
pub(super) fn reading(file: &Path) -> SqliteConnectOptions {
    common(file).read_only(true)
}

/// A connection that changes a copy which nobody else has, and leaves one file.
pub(super) fn editing(file: &Path) -> SqliteConnectOptions {
    common(file).journal_mode(SqliteJournalMode::Delete).synchronous(SqliteSynchronous::Full)
}

/// What stands in the data folder.
enum Standing {
    /// No database, and nothing that belongs to one.
    Nothing,
    /// A database that was closed in order.
    Whole,
    /// A database beside a write-ahead log that holds what is not in it yet.
    WithWriteAhead,
}

/// Looks at the files without opening any of them as a database.
fn look(data: &Path, file: &Path) -> Result<Standing, OpenError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::File { what: "reading", path, source }
    };
    let write_ahead = data.join(format!("{DATABASE_FILE}-wal"));
    let ahead_bytes = match std::fs::symlink_metadata(&write_ahead) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(unreadable(&write_ahead)(error)),
    };
    let found = match std::fs::symlink_metadata(file) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return nothing(data, file, (ahead_bytes > 0).then_some(write_ahead));
        }
        Err(error) => return Err(unreadable(file)(error)),
    };
    let damaged = |what: String| Err(OpenError::Damaged { file: file.to_owned(), what });
    if !found.is_file() {
        return damaged("it is not a regular file".into());
    }
    if found.len() == 0 {
        return damaged("it is empty, and an empty file is never ours".into());
    }
    let mut header = [0; 100];
    let mut database = File::open(file).map_err(unreadable(file))?;
    if let Err(error) = database.read_exact(&mut header) {
        return match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                damaged(format!("it has {} bytes, fewer than a database's header", found.len()))
            }
            _other => Err(unreadable(file)(error)),
        };
    }
    match header_damage(&header, found.len(), ahead_bytes > 0) {
        Some(what) => damaged(what),
        None if ahead_bytes > 0 => Ok(Standing::WithWriteAhead),
        None => Ok(Standing::Whole),
    }
}

/// There is no database: fine, unless something that only a database explains is there.
fn nothing(data: &Path, file: &Path, write_ahead: Option<PathBuf>) -> Result<Standing, OpenError> {
    let holds_something = |folder: &PathBuf| {
        std::fs::read_dir(folder).is_ok_and(|mut entries| entries.any(|entry| entry.is_ok()))
    };
    let folders =
        [super::logs::LOGS_FOLDER, super::artifacts::ARTIFACTS_FOLDER, super::packages::PACKAGES_FOLDER]
            .map(|name| data.join(name));
    let beside = write_ahead.or_else(|| folders.into_iter().find(holds_something));
    // A restore that was cut short: the old store is aside, and the new one has not come in.
    match beside.or_else(|| super::restore::leftover_in(data)) {
        Some(beside) => Err(OpenError::Missing { file: file.to_owned(), beside }),
        None => Ok(Standing::Nothing),
    }
}

/// What is wrong with the first 100 bytes of a database (<https://www.sqlite.org/fileformat2.html#the_database_header>).
fn header_damage(header: &[u8; 100], file_bytes: u64, write_ahead: bool) -> Option<String> {
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if &header[..16] != b"SQLite format 3\0" {
        return Some("its header is not that of an SQLite database".into());
    }
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        bytes if bytes >= 512 && bytes.is_power_of_two() => u64::from(bytes),
        bytes => return Some(format!("its header says {bytes} for the size of a page")),
    };
    if number(68) != APPLICATION_ID {
        let found = number(68);
        return Some(format!("its header has application id {found:#010x}, expected {APPLICATION_ID:#010x}"));
    }
    // With a write-ahead log the header may be ahead of the file: a checkpoint was cut short, and is repeated.
    let expected_bytes = u64::from(number(28)) * page_bytes;
    if !write_ahead && number(24) == number(92) && file_bytes < expected_bytes {
        return Some(format!(
            "it has {file_bytes} bytes, and its header says {expected_bytes}: it was cut off"
        ));
    }
    None
}

/// Reads the database without a right to write: its version, and that it hangs together.
pub(super) async fn check(file: &Path, whole: bool) -> Result<(), OpenError> {
    // Without a write-ahead log nothing beside the file is needed, and `immutable` makes none.
    let options = reading(file).immutable(whole);
    let shared_memory = file.with_file_name(format!("{DATABASE_FILE}-shm"));
    let had_shared_memory = shared_memory.exists();
    let outcome = match options.connect().await {
        Ok(mut connection) => {
            let outcome = check_content(&mut connection, file).await;
            connection
                .close()
                .await
                .map_err(database_error(file, "closing the database after its check"))
                .and(outcome)
        }
        Err(error) => Err(database_error(file, "opening the database")(error)),
    };
    if outcome.is_err() && !had_shared_memory && shared_memory.exists() {
        // Ours: the folder is locked. It holds nothing that is not in the write-ahead log.
        std::fs::remove_file(&shared_memory).map_err(|source| OpenError::File {
            what: "removing",
            path: shared_memory,
            source,
        })?;
    }
    outcome
}

async fn check_content(connection: &mut SqliteConnection, file: &Path) -> Result<(), OpenError> {
    let found = meta_number(connection, file, "schema").await?;
    if found > SCHEMA {
        return Err(OpenError::Newer { file: file.to_owned(), found, known: SCHEMA });
    }
    let bytes = std::fs::metadata(file).map_or(0, |found| found.len());
    let pragmas: Vec<String> = if bytes <= WHOLE_CHECK_BYTES_MAX {
        vec!["PRAGMA quick_check(3)".into()]
    } else {
        DECISIVE_TABLES.iter().map(|table| format!("PRAGMA quick_check('{table}')")).collect()
    };
    for pragma in pragmas {
        let lines: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(pragma))
            .fetch_all(&mut *connection)
            .await
            .map_err(database_error(file, "checking the database"))?;
        if lines != ["ok"] {
            return Err(OpenError::Damaged { file: file.to_owned(), what: lines.join("; ") });
        }
    }
    Ok(())
}

/// An error of the database, told apart by SQLite's code: damage, or anything else.
pub(super) fn database_error(file: &Path, what: &'static str) -> impl FnOnce(sqlx::Error) -> OpenError {
    /// SQLITE_CORRUPT, SQLITE_NOTADB and SQLITE_FORMAT.
    const DAMAGE: [u32; 3] = [11, 26, 24];
    let file = file.to_owned();
    move |source| {
        let code = source.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
        match code {
            Some(code) if DAMAGE.contains(&(code & 0xff)) => {
                OpenError::Damaged { file, what: source.to_string() }
            }
            Some(_) | None => OpenError::Database { what, file, source },
        }
    }
}

/// A number in `meta`.
pub(super) async fn meta_number(
    connection: &mut SqliteConnection,
    file: &Path,
    key: &str,
) -> Result<u64, OpenError> {
    let text: Option<String> = sqlx::query_scalar("SELECT value FROM meta WHERE key = ?")
        .bind(key)
        .fetch_optional(connection)
        .await
        .map_err(database_error(file, "reading the version of the database"))?;
    text.as_deref().and_then(|text| text.parse().ok()).ok_or_else(|| OpenError::Damaged {
        file: file.to_owned(),
        what: format!("its table meta has {text:?} for {key}, expected a number"),
    })
}

/// Makes a database under another name, and gives it its own when it is whole and durable.
async fn create(data: &Path, file: &Path) -> Result<(), OpenError> {
    let making = data.join(format!("{DATABASE_FILE}.new"));
    let at = |what, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::File { what, path, source }
    };
    for leftover in ["", "-wal", "-shm", "-journal"].map(|end| data.join(format!("{DATABASE_FILE}.new{end}")))
    {
        match std::fs::remove_file(&leftover) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(at("removing", &leftover)(error)),
        }
    }
    let options = writing(&making)
        .create_if_missing(true)
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .pragma("application_id", APPLICATION_ID.to_string());
    let mut connection = options.connect().await.map_err(database_error(&making, "making the database"))?;
    migrate(&mut connection, &making).await?;
    connection.close().await.map_err(database_error(&making, "making the database"))?;
    let made = File::open(&making).map_err(at("opening", &making))?;
    made.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .map_err(at("setting the mode of", &making))?;
    made.sync_all().map_err(at("syncing", &making))?;
    std::fs::rename(&making, file).map_err(at("renaming", &making))?;
    File::open(data).and_then(|folder| folder.sync_all()).map_err(at("syncing", data))
}

/// Brings the schema up to date.
pub(super) async fn migrate(connection: &mut SqliteConnection, file: &Path) -> Result<(), OpenError> {
    MIGRATOR.run(connection).await.map_err(|source| OpenError::Migrate { file: file.to_owned(), source })
}

/// Sees that there is a database in the folder, whole as far as its header tells.
pub(super) fn expect_database(data: &Path) -> Result<(), OpenError> {
    let file = data.join(DATABASE_FILE);
    match look(data, &file)? {
        Standing::Whole | Standing::WithWriteAhead => Ok(()),
        Standing::Nothing => Err(OpenError::Damaged { file, what: "there is none".into() }),
    }
}
