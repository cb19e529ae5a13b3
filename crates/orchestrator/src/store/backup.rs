//! A copy of the store that is whole in itself, and how it comes back.

use std::path::{Path, PathBuf};

use groundcrew_protocol::ids::{Generation, RunId};

use super::{OpenError, StoreError};

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
    /// The database cannot be read.
    #[error("opening the store")]
    Open(#[from] OpenError),
    /// Reading or writing failed.
    #[error("copying the store")]
    Store(#[from] StoreError),
}

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
    /// The data folder is served from, or cannot be locked.
    #[error("opening the data folder")]
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

/// Copies the store in `data` to the new folder `to`, also while another process serves from it: a snapshot of the
/// database, the log segments and artifacts that it names, and every other file of the data folder (certificates,
/// keys). The folder appears whole, under its name, or not at all.
///
/// # Errors
/// [`BackupError`].
pub async fn backup(_data: &Path, _to: &Path) -> Result<BackedUp, BackupError> {
    unreachable!("being written")
}

/// Brings the backup in `from` back into the folder `data`, as a new generation. With `force` the content of `data`
/// is moved into a folder of its own inside it first.
///
/// # Errors
/// [`RestoreError`].
pub async fn restore(_from: &Path, _data: &Path, _force: bool) -> Result<Restored, RestoreError> {
    unreachable!("being written")
}
