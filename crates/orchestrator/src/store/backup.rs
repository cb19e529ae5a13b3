//! A copy of the store that is whole in itself.
//!
//! It may be made by another process than the one that serves: the database gives a snapshot of itself, segments
//! are only ever appended to, and every other file is replaced as a whole. `restore` brings it back.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use groundcrew_protocol::ids::Generation;
use groundcrew_protocol::time::WallMs;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::artifacts::ARTIFACTS_FOLDER;
use super::logs::{LOGS_FOLDER, segment};
use super::manifest::{self, Entry, FORMAT, MANIFEST_FILE, Manifest};
use super::packages::PACKAGES_FOLDER;
use super::{DATABASE_FILE, OpenError, StoreError, open, restore, text};
use crate::owner;

/// Tries, where retention takes a file away that the snapshot still names, or an operator a package.
const TRIES_MAX: u32 = 3;
/// Runs of a snapshot that are looked at together.
const RUNS_AT_ONCE: i64 = 200;
/// Files beside database, logs and artifacts: certificates, keys, settings. More is not ours.
const OTHER_FILES_MAX: usize = 10_000;
/// Folders inside each other.
const OTHER_DEPTH_MAX: usize = 8;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUp {
    /// The folder.
    pub folder: PathBuf,
    /// Files in it, without the manifest.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The store's generation.
    pub generation: Generation,
}

/// Why no backup was made. The target does not exist then.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is something at the target.
    #[error("{0:?} exists; give a folder that does not")]
    TargetExists(PathBuf),
    /// The target would become part of what is backed up.
    #[error("{0:?} lies in the data folder; give a folder outside of it, best on another disk")]
    TargetInside(PathBuf),
    /// The database cannot be read.
    #[error("opening the store")]
    Open(#[from] OpenError),
    /// The snapshot has a run that needs what is no longer there.
    #[error(
        "run {run} had not ended when the snapshot was taken; it has since, and {file}, a package that it used, was deleted before it was copied; make the backup again"
    )]
    Outrun {
        /// The run.
        run: String,
        /// The package's file.
        file: String,
    },
    /// Reading or writing failed.
    #[error("copying the store")]
    Store(#[from] StoreError),
}

/// Copies the store in `data` to the new folder `to`, also while another process serves from it: a snapshot of the
/// database, the log segments, artifacts and packages that it names, and every other file of the data folder (certificates,
/// keys). The folder appears whole, under its name, or not at all.
///
/// # Errors
/// [`BackupError`].
pub async fn backup(data: &Path, to: &Path, now: WallMs) -> Result<BackedUp, BackupError> {
    if to.symlink_metadata().is_ok() {
        return Err(BackupError::TargetExists(to.to_owned()));
    }
    let (above, name) = match (to.parent(), to.file_name()) {
        (Some(above), Some(name)) if above.as_os_str().is_empty() => (Path::new("."), name),
        (Some(above), Some(name)) => (above, name),
        (None, _) | (_, None) => return Err(BackupError::TargetExists(to.to_owned())),
    };
    let real = |path: &Path| path.canonicalize().map_err(StoreError::file("finding", path));
    if real(above)?.starts_with(real(data)?) {
        return Err(BackupError::TargetInside(to.to_owned()));
    }
    let mut partial_name = name.to_owned();
    partial_name.push(format!(".partial-{}", std::process::id()));
    let partial = above.join(partial_name);
    let mut tries = 0;
    let outcome = loop {
        tries += 1;
        let outcome = fill(data, &partial, now).await;
        if !(tries < TRIES_MAX && outcome.as_ref().is_err_and(is_vanished)) {
            break outcome;
        }
        remove(&partial)?;
    };
    let finished = outcome.and_then(|made| {
        std::fs::rename(&partial, to).map_err(StoreError::file("renaming", &partial))?;
        manifest::sync_folder(above)?;
        Ok(made)
    });
    match finished {
        Ok((files, bytes, generation)) => Ok(BackedUp { folder: to.to_owned(), files, bytes, generation }),
        Err(failed) => {
            remove(&partial)?;
            Err(failed)
        }
    }
}

/// A file went away while it was wanted.
fn is_vanished(failed: &BackupError) -> bool {
    match failed {
        BackupError::Outrun { .. } => true,
        BackupError::Store(error) => is_missing(error),
        BackupError::TargetExists(_) | BackupError::TargetInside(_) | BackupError::Open(_) => false,
    }
}

fn is_missing(failed: &StoreError) -> bool {
    matches!(failed, StoreError::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

fn remove(partial: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(partial) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::file("removing", partial)(error)),
    }
}

/// Fills the folder under its temporary name.
async fn fill(data: &Path, partial: &Path, now: WallMs) -> Result<(u64, u64, Generation), BackupError> {
    std::fs::DirBuilder::new().create(partial).map_err(StoreError::file("making", partial))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(partial, mode).map_err(StoreError::file("setting the mode of", partial))?;
    let named = snapshot(data, partial).await?;
    let generation = named.generation;
    let (from, folder) = (data.to_owned(), partial.to_owned());
    let Copied { mut files, vanished } = blocking(move || copy_all(&from, &folder, &named)).await?;
    forget(data, partial, vanished).await?;
    let (data, folder) = (data.to_owned(), partial.to_owned());
    let work = move || -> Result<(u64, u64), StoreError> {
        files.push(manifest::hash(&folder.join(DATABASE_FILE), DATABASE_FILE)?);
        let bytes = files.iter().map(|file| file.bytes).sum();
        let count = files.len() as u64;
        let manifest = Manifest { format: FORMAT, made: now, generation, files };
        let json = text::to_json("a manifest", &manifest)?;
        let path = folder.join(MANIFEST_FILE);
        groundcrew_durable::whole::write_whole(&path, json.as_bytes(), &Default::default())
            .map_err(|error| StoreError::file("writing", &path)(std::io::Error::other(error)))?;
        // Who serves from the data folder may bring it back.
        owner::give_all(&folder, &data)
            .map_err(StoreError::file("giving to the owner of the data folder", &folder))?;
        manifest::sync_folders(&folder)?;
        Ok((count, bytes))
    };
    let (files, bytes) = blocking(work).await?;
    Ok((files, bytes, generation))
}

/// Runs file work where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StoreError::Unreadable { what: "a backup".into(), why: error.to_string() })?
}

/// What a snapshot of the database names.
struct Named {
    generation: Generation,
    /// Segments, and up to where they are named.
    segments: Vec<(i64, i64)>,
    artifacts: Vec<String>,
    packages: Vec<String>,
}

async fn snapshot(data: &Path, partial: &Path) -> Result<Named, BackupError> {
    let file = data.join(DATABASE_FILE);
    let copy = partial.join(DATABASE_FILE);
    open::expect_database(data)?;
    let failed = |what| open::database_error(&file, what);
    let mut connection = open::reading(&file).connect().await.map_err(failed("opening the database"))?;
    sqlx::query("VACUUM INTO ?")
        .bind(copy.to_str().ok_or_else(|| StoreError::Unreadable {
            what: format!("the path {copy:?}"),
            why: "it is not UTF-8".into(),
        })?)
        .execute(&mut connection)
        .await
        .map_err(failed("copying the database"))?;
    connection.close().await.map_err(failed("closing the database"))?;

    let mut copied = open::reading(&copy)
        .immutable(true)
        .connect()
        .await
        .map_err(open::database_error(&copy, "opening the copy of the database"))?;
    let generation = Generation(open::meta_number(&mut copied, &copy, "generation").await?);
    let named = StoreError::database("reading what the copy of the database names");
    let segments = sqlx::query_as("SELECT segment, max(offset + length) FROM log_chunks GROUP BY segment")
        .fetch_all(&mut copied)
        .await
        .map_err(&named)?;
    let artifacts = sqlx::query_scalar("SELECT DISTINCT sha256 FROM artifacts")
        .fetch_all(&mut copied)
        .await
        .map_err(&named)?;
    // A store that no server of this version has opened yet has none.
    let schema = open::meta_number(&mut copied, &copy, "schema").await?;
    let packages = match schema >= open::SCHEMA_WITH_PACKAGES {
        true => sqlx::query_scalar("SELECT DISTINCT sha256 FROM packages")
            .fetch_all(&mut copied)
            .await
            .map_err(&named)?,
        false => Vec::new(),
    };
    copied.close().await.map_err(&named)?;
    Ok(Named { generation, segments, artifacts, packages })
}

/// What was copied.
struct Copied {
    files: Vec<Entry>,
    /// Packages that were deleted since the snapshot, with what was found instead of their files.
    vanished: Vec<(String, StoreError)>,
}

/// Takes packages out of the snapshot that operators have deleted since: no run of now that has not ended uses one of them, and
/// where one of the snapshot's does, another snapshot is needed. One that is still named has lost its file, and without that no
/// backup is whole.
async fn forget(data: &Path, partial: &Path, vanished: Vec<(String, StoreError)>) -> Result<(), BackupError> {
    if vanished.is_empty() {
        return Ok(());
    }
    let (file, copy) = (data.join(DATABASE_FILE), partial.join(DATABASE_FILE));
    let failed = |what| open::database_error(&file, what);
    let mut served = open::reading(&file).connect().await.map_err(failed("opening the database"))?;
    let edits = open::database_error(&copy, "opening the copy of the database");
    let mut copied = open::editing(&copy).connect().await.map_err(edits)?;
    let forgetting = StoreError::database("forgetting packages that were deleted meanwhile");
    let sums: Vec<&str> = vanished.iter().map(|(sha256, _)| sha256.as_str()).collect();
    let user = going_user(&mut copied, &sums).await?;
    for (sha256, missing) in vanished {
        let named: Option<i64> = sqlx::query_scalar("SELECT 1 FROM packages WHERE sha256 = ? LIMIT 1")
            .bind(&sha256)
            .fetch_optional(&mut served)
            .await
            .map_err(&forgetting)?;
        if named.is_some() {
            return Err(missing.into());
        }
        if let Some((run, sum)) = &user {
            return Err(BackupError::Outrun { run: run.clone(), file: format!("{PACKAGES_FOLDER}/{sum}") });
        }
        let delete = sqlx::query("DELETE FROM packages WHERE sha256 = ?").bind(&sha256);
        delete.execute(&mut copied).await.map_err(&forgetting)?;
    }
    served.close().await.map_err(&forgetting)?;
    copied.close().await.map_err(&forgetting)?;
    Ok(())
}

/// The first run of a snapshot that has not ended and names one of these sums, as its package's or in any other way.
async fn going_user(
    copied: &mut SqliteConnection,
    sums: &[&str],
) -> Result<Option<(String, String)>, StoreError> {
    let mut after = String::new();
    loop {
        let page: Vec<(String, Vec<u8>)> =
            sqlx::query_as("SELECT id, doc FROM runs WHERE ended IS NULL AND id > ? ORDER BY id LIMIT ?")
                .bind(&after)
                .bind(RUNS_AT_ONCE)
                .fetch_all(&mut *copied)
                .await
                .map_err(StoreError::database("reading the runs of the copy of the database"))?;
        let Some((last, _)) = page.last() else { return Ok(None) };
        after.clone_from(last);
        for (run, doc) in page {
            let doc = text::unpack("a run", &doc)?;
            if let Some(sum) = sums.iter().find(|sum| doc.contains(**sum)) {
                return Ok(Some((run, (*sum).to_owned())));
            }
        }
    }
}

fn copy_all(data: &Path, folder: &Path, named: &Named) -> Result<Copied, StoreError> {
    let (mut files, mut vanished) = (Vec::new(), Vec::new());
    for (number, end) in &named.segments {
        let name = segment::path_of(Path::new(LOGS_FOLDER), text::unsigned(*number));
        let entry = manifest::copy(&data.join(&name), &folder.join(&name), text::unsigned(*end), &name)?;
        if entry.bytes != text::unsigned(*end) {
            let why = format!("it has {} bytes, and rows name {end}", entry.bytes);
            return Err(StoreError::Unreadable { what: format!("the segment {name:?}"), why });
        }
        files.push(entry);
    }
    let artifacts = named.artifacts.iter().map(|sha256| ("artifact", ARTIFACTS_FOLDER, sha256));
    let packages = named.packages.iter().map(|sha256| ("package", PACKAGES_FOLDER, sha256));
    for (what, of, sha256) in artifacts.chain(packages) {
        let name = Path::new(of).join(sha256);
        let entry = match manifest::copy(&data.join(&name), &folder.join(&name), u64::MAX, &name) {
            Err(missing) if of == PACKAGES_FOLDER && is_missing(&missing) => {
                vanished.push((sha256.clone(), missing));
                continue;
            }
            copied => copied?,
        };
        if entry.sha256.as_str() != sha256 {
            let why = "it does not hash to its name".into();
            return Err(StoreError::Unreadable { what: format!("the {what} {name:?}"), why });
        }
        files.push(entry);
    }
    let mut others = Vec::new();
    list_others(data, Path::new(""), 0, &mut others)?;
    for name in others {
        match manifest::copy(&data.join(&name), &folder.join(&name), u64::MAX, &name) {
            Ok(entry) => files.push(entry),
            // A temporary file that was being written, and has its own name by now.
            Err(failed) if is_missing(&failed) => {}
            Err(failed) => return Err(failed),
        }
    }
    Ok(Copied { files, vanished })
}

/// True for what a backup takes by other means, or not at all.
fn is_ours(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(DATABASE_FILE)
        || [
            LOGS_FOLDER,
            ARTIFACTS_FOLDER,
            PACKAGES_FOLDER,
            groundcrew_durable::lock::HOME_LOCK_NAME,
            MANIFEST_FILE,
        ]
        .contains(&&*name)
        || restore::is_leftover(&name)
}

/// Every other file of the data folder; links are followed, what is neither file nor folder is left out.
fn list_others(data: &Path, below: &Path, depth: usize, all: &mut Vec<PathBuf>) -> Result<(), StoreError> {
    let folder = data.join(below);
    for entry in std::fs::read_dir(&folder).map_err(StoreError::file("reading", &folder))? {
        let entry = entry.map_err(StoreError::file("reading", &folder))?;
        let name = below.join(entry.file_name());
        if depth == 0 && is_ours(&entry.file_name()) {
            continue;
        }
        let found = match std::fs::metadata(entry.path()) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::file("reading", &entry.path())(error)),
        };
        if found.is_dir() && depth < OTHER_DEPTH_MAX {
            list_others(data, &name, depth + 1, all)?;
        } else if found.is_file() {
            all.push(name);
        }
        if all.len() > OTHER_FILES_MAX || (found.is_dir() && depth >= OTHER_DEPTH_MAX) {
            return Err(StoreError::TooMuch(format!(
                "{folder:?} holds more than {OTHER_FILES_MAX} files or {OTHER_DEPTH_MAX} folders in each other \
                 that are not the store's; move them out of the data folder"
            )));
        }
    }
    Ok(())
}
