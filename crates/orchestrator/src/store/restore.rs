//! Brings a backup back, as a new generation of the store.
//!
//! Everything is copied and checked beside its place first, then what was there is moved aside, then the copy is
//! moved in, the database last: a restore that is cut short leaves either the old store or none that opens.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use groundcrew_protocol::ids::{Generation, RunId};
use groundcrew_protocol::time::WallMs;
use sqlx::{ConnectOptions, Connection};

use super::backup::blocking;
use super::manifest::{self, FORMAT, MANIFEST_BYTES_MAX, MANIFEST_FILE, Manifest};
use super::{DATABASE_FILE, OpenError, StoreError, open, text};
use crate::{causes, owner};

/// Where a backup is copied to before it is moved in.
const RESTORING_PREFIX: &str = "restoring-";
/// Where the old content goes.
const REPLACED_PREFIX: &str = "replaced-";
/// Events of a new generation are numbered from here times the generation, so that a watcher who has seen more of
/// the old store than the backup knew misses nothing of the new one.
const EVENTS_OF_A_GENERATION: i64 = 1_000_000_000_000;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The new generation.
    pub generation: Generation,
    /// Runs that have not ended; the next start tells each with `Input::Restored`.
    pub runs: Vec<RunId>,
    /// Where the old content went, where there was any.
    pub moved_aside: Option<PathBuf>,
}

/// Why a backup did not come back. The data folder is as it was, unless its old content was being moved aside.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The data folder is served from, or cannot be locked; or the backup's database cannot be used.
    #[error("opening")]
    Open(#[from] OpenError),
    /// The data folder holds something.
    #[error("{0:?} is not empty; with --force its content is moved aside first")]
    NotEmpty(PathBuf),
    /// The backup is not whole.
    #[error("the backup {folder:?} cannot be used: {what}")]
    Damaged {
        /// The backup.
        folder: PathBuf,
        /// What was found and what was expected.
        what: String,
    },
    /// Reading or writing failed.
    #[error("copying the backup")]
    Store(#[from] StoreError),
}

/// True for what a restore leaves in the data folder.
pub(super) fn is_leftover(name: &str) -> bool {
    name.starts_with(RESTORING_PREFIX) || name.starts_with(REPLACED_PREFIX)
}

/// What a restore has left in the data folder, where it has: the latest of it.
pub(super) fn leftover_in(data: &Path) -> Option<PathBuf> {
    let mut names = entries(data).ok()?;
    names.retain(|name| is_leftover(&name.to_string_lossy()));
    names.into_iter().max().map(|name| data.join(name))
}

/// Brings the backup in `from` back into the folder `data`, as a new generation. With `force` the content of `data`
/// is moved into a folder of its own inside it first (`replaced-` and the time). Nothing reads that again but the next
/// restore, for its generation; no sweep and no backup takes it in, so it stays until somebody removes it.
///
/// # Errors
/// [`RestoreError`].
pub async fn restore(from: &Path, data: &Path, force: bool, now: WallMs) -> Result<Restored, RestoreError> {
    let manifest = read_manifest(from)?;
    let _lock = open::lock(data)?;
    for leftover in entries(data)?.iter().filter(|name| name.to_string_lossy().starts_with(RESTORING_PREFIX))
    {
        let path = data.join(leftover);
        std::fs::remove_dir_all(&path).map_err(StoreError::file("removing", &path))?;
    }
    let old = old_content(data)?;
    if !old.is_empty() && !force {
        return Err(RestoreError::NotEmpty(data.to_owned()));
    }
    let old_generation = latest_generation(data).await?;
    let making = data.join(format!("{RESTORING_PREFIX}{}", std::process::id()));
    let outcome = match copy_checked(from, &making, &manifest).await {
        Ok(()) => prepare(&making, old_generation).await,
        Err(failed) => Err(failed),
    };
    let (generation, runs) = match outcome {
        Ok(prepared) => prepared,
        Err(failed) => {
            // The error that counts is the first one; a leftover is removed by the next restore.
            let _left = std::fs::remove_dir_all(&making);
            return Err(failed);
        }
    };
    owner::give_all(&making, data)
        .map_err(StoreError::file("giving to the owner of the data folder", &making))?;
    let moved_aside = move_aside(data, &old, now)?;
    move_in(&making, data)?;
    Ok(Restored { generation, runs, moved_aside })
}

fn read_manifest(from: &Path) -> Result<Manifest, RestoreError> {
    let damaged = |what: String| RestoreError::Damaged { folder: from.to_owned(), what };
    let path = from.join(MANIFEST_FILE);
    let bytes = groundcrew_durable::whole::read_bounded(&path, MANIFEST_BYTES_MAX)
        .map_err(|error| damaged(causes::chain(&error)))?
        .ok_or_else(|| damaged(format!("it has no {MANIFEST_FILE}: it is no backup, or not a whole one")))?;
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|error| damaged(format!("{MANIFEST_FILE}: {error}")))?;
    if manifest.format != FORMAT {
        return Err(damaged(format!("it has format {}, and this version reads {FORMAT}", manifest.format)));
    }
    if !manifest.files.iter().any(|file| file.path == DATABASE_FILE) {
        return Err(damaged(format!("{MANIFEST_FILE} does not name {DATABASE_FILE}")));
    }
    Ok(manifest)
}

fn entries(folder: &Path) -> Result<Vec<OsString>, StoreError> {
    let failed = |error| StoreError::file("reading", folder)(error);
    let found = std::fs::read_dir(folder).map_err(failed)?;
    found.map(|entry| entry.map(|entry| entry.file_name()).map_err(failed)).collect()
}

/// What lies in the data folder and belongs to a store.
fn old_content(data: &Path) -> Result<Vec<OsString>, StoreError> {
    let mut names = entries(data)?;
    names.retain(|name| {
        name != groundcrew_durable::lock::HOME_LOCK_NAME && !is_leftover(&name.to_string_lossy())
    });
    Ok(names)
}

/// The greatest generation of the stores that are there, as far as they can still be read: of the one that is served from,
/// and of those that were moved aside. After a restore that was cut short there are only these, and a number that was
/// given out must not be given again, or no agent would notice.
async fn latest_generation(data: &Path) -> Result<Option<u64>, StoreError> {
    let mut latest = generation_of(data, false).await;
    for name in entries(data)?.iter().filter(|name| name.to_string_lossy().starts_with(REPLACED_PREFIX)) {
        latest = latest.max(generation_of(&data.join(name), true).await);
    }
    Ok(latest)
}

/// Generation of the store in a folder, as far as it can still be read; `untouched`: without a file made for that.
async fn generation_of(data: &Path, untouched: bool) -> Option<u64> {
    let file = data.join(DATABASE_FILE);
    open::expect_database(data).ok()?;
    let mut connection = open::reading(&file).immutable(untouched).connect().await.ok()?;
    let generation = open::meta_number(&mut connection, &file, "generation").await.ok();
    connection.close().await.ok()?;
    generation
}

/// Copies every file that the manifest names, and sees that each is what it says.
async fn copy_checked(from: &Path, making: &Path, manifest: &Manifest) -> Result<(), RestoreError> {
    let (from, making, manifest) = (from.to_owned(), making.to_owned(), manifest.clone());
    let checked = blocking(move || {
        let damaged = |what: String| Ok(Err(RestoreError::Damaged { folder: from.clone(), what }));
        for file in &manifest.files {
            let Some(name) = file.inner_path() else {
                return damaged(format!("{MANIFEST_FILE} names {:?}, which leads out of it", file.path));
            };
            let copied = match manifest::copy(&from.join(&name), &making.join(&name), u64::MAX, &name) {
                Ok(copied) => copied,
                Err(StoreError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return damaged(format!("{:?} is missing", file.path));
                }
                Err(failed) => return Err(failed),
            };
            if copied != *file {
                return damaged(format!(
                    "{:?} has {} bytes that hash to {}, expected {} bytes that hash to {}",
                    file.path, copied.bytes, copied.sha256, file.bytes, file.sha256
                ));
            }
        }
        Ok(Ok(()))
    });
    checked.await?
}

/// Makes the copied database the next generation.
async fn prepare(making: &Path, old: Option<u64>) -> Result<(Generation, Vec<RunId>), RestoreError> {
    let file = making.join(DATABASE_FILE);
    open::expect_database(making)?;
    open::check(&file, true).await?;
    let mut connection =
        open::writing(&file).connect().await.map_err(open::database_error(&file, "opening the database"))?;
    open::migrate(&mut connection, &file).await?;
    let of_backup = open::meta_number(&mut connection, &file, "generation").await?;
    let generation = of_backup.max(old.unwrap_or(0)) + 1;
    let failed = StoreError::database("making the next generation");
    let mut change = connection.begin().await.map_err(&failed)?;
    sqlx::query("UPDATE meta SET value = ? WHERE key = 'generation'")
        .bind(generation.to_string())
        .execute(&mut *change)
        .await
        .map_err(&failed)?;
    sqlx::query("UPDATE runs SET restored = 1 WHERE ended IS NULL")
        .execute(&mut *change)
        .await
        .map_err(&failed)?;
    let first_event = text::signed(generation).saturating_mul(EVENTS_OF_A_GENERATION);
    let updated = sqlx::query("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'events'")
        .bind(first_event)
        .execute(&mut *change)
        .await
        .map_err(&failed)?;
    if updated.rows_affected() == 0 {
        sqlx::query("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)")
            .bind(first_event)
            .execute(&mut *change)
            .await
            .map_err(&failed)?;
    }
    let ids: Vec<String> = sqlx::query_scalar("SELECT id FROM runs WHERE restored = 1 ORDER BY id")
        .fetch_all(&mut *change)
        .await
        .map_err(&failed)?;
    change.commit().await.map_err(&failed)?;
    connection.close().await.map_err(&failed)?;
    let runs = ids.iter().map(|id| text::parse("the id of a run", id)).collect::<Result<_, _>>()?;
    manifest::hash(&file, DATABASE_FILE)?;
    manifest::sync_folders(making)?;
    Ok((Generation(generation), runs))
}

fn move_aside(data: &Path, old: &[OsString], now: WallMs) -> Result<Option<PathBuf>, StoreError> {
    if old.is_empty() {
        return Ok(None);
    }
    let mut number = now.0;
    let aside = loop {
        let aside = data.join(format!("{REPLACED_PREFIX}{number}"));
        match std::fs::create_dir(&aside) {
            Ok(()) => break aside,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(StoreError::file("making", &aside)(error)),
        }
    };
    // The database first: whatever is cut short after it does not open as a store.
    let database_first = |name: &&OsString| name.as_os_str() != DATABASE_FILE;
    let mut names: Vec<&OsString> = old.iter().collect();
    names.sort_by_key(database_first);
    for name in names {
        let path = data.join(name);
        std::fs::rename(&path, aside.join(name)).map_err(StoreError::file("moving aside", &path))?;
    }
    owner::give(&aside, data).map_err(StoreError::file("giving to the owner of the data folder", &aside))?;
    manifest::sync_folder(&aside)?;
    manifest::sync_folder(data)?;
    Ok(Some(aside))
}

fn move_in(making: &Path, data: &Path) -> Result<(), StoreError> {
    let mut names = entries(making)?;
    names.sort_by_key(|name| name.as_os_str() == DATABASE_FILE);
    for name in names {
        if name == DATABASE_FILE {
            manifest::sync_folder(data)?;
        }
        let path = making.join(&name);
        std::fs::rename(&path, data.join(&name)).map_err(StoreError::file("moving in", &path))?;
    }
    std::fs::remove_dir(making).map_err(StoreError::file("removing", making))?;
    manifest::sync_folder(data)
}
