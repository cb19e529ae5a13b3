//! What can go wrong with the store.

use std::path::PathBuf;

use groundcrew_protocol::ids::RunId;

/// Why a store could not be opened. Nothing was written in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process serves from this folder.
    #[error("the data folder {folder:?} is in use")]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// Who has it.
        #[source]
        source: groundcrew_durable::Error,
    },
    /// The folder cannot be made or locked.
    #[error("preparing the data folder {folder:?}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: groundcrew_durable::Error,
    },
    /// The database is damaged or no database of ours.
    #[error(
        "the database {file:?} cannot be used: {what}. Nothing was changed. Restore a backup with `groundcrewd restore`, \
         or, to begin with an empty store, move groundcrew.db with its -wal and -shm, logs/, artifacts/ and packages/ away; tls/ stays, \
         and with it the certificate that agents pin"
    )]
    Damaged {
        /// The database.
        file: PathBuf,
        /// What was found and what was expected.
        what: String,
    },
    /// The database is gone, and what belongs to it is still there.
    #[error(
        "the database {file:?} is missing while {beside:?} is there. Nothing was changed. Restore a backup with \
         `groundcrewd restore`, or, to begin with an empty store, move groundcrew.db-wal and -shm, logs/, artifacts/, packages/ and \
         what a restore has left (replaced-…, restoring-…) away; tls/ stays, and with it the certificate that agents pin"
    )]
    Missing {
        /// The database.
        file: PathBuf,
        /// What is there.
        beside: PathBuf,
    },
    /// The database was written by a newer version.
    #[error(
        "the database {file:?} has schema {found}, and this version knows schemas up to {known}; use the newer groundcrewd"
    )]
    Newer {
        /// The database.
        file: PathBuf,
        /// Its schema.
        found: u64,
        /// The newest that is known here.
        known: u64,
    },
    /// A file or folder could not be read or written.
    #[error("{what} {path:?}")]
    File {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The database answered with an error.
    #[error("{what} {file:?}")]
    Database {
        /// What was being done.
        what: &'static str,
        /// The database.
        file: PathBuf,
        /// Why not.
        #[source]
        source: sqlx::Error,
    },
    /// The store could not be made ready.
    #[error("making the store ready")]
    Store(#[source] StoreError),
    /// The schema could not be brought up to date.
    #[error("bringing the schema of {file:?} up to date")]
    Migrate {
        /// The database.
        file: PathBuf,
        /// Why not.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
}

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The run's version was not the one that the change was made from. Nothing landed; try again.
    #[error("run {run} was changed by another process at the same time")]
    Conflict {
        /// The run.
        run: RunId,
    },
    /// Something of that name is there already.
    #[error("{0}")]
    Exists(String),
    /// It is still needed.
    #[error("{0}")]
    InUse(String),
    /// More than the store keeps of it.
    #[error("{0}")]
    TooMuch(String),
    /// The closure of a change panicked. Nothing of it landed.
    #[error("deciding on run {run} failed by a defect; nothing was changed")]
    Panicked {
        /// The run.
        run: RunId,
    },
    /// The transaction could not begin; the log says why. Nothing landed.
    #[error("the store could not begin a transaction; nothing was changed")]
    NotBegun,
    /// The store is being closed.
    #[error("the store is closed")]
    Closed,
    /// What is stored cannot be read as what it should be.
    #[error("{what} in the store cannot be read: {why}")]
    Unreadable {
        /// What.
        what: String,
        /// Why not.
        why: String,
    },
    /// A file could not be read or written.
    #[error("{what} {path:?}")]
    File {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::sync::Arc<std::io::Error>,
    },
    /// The database answered with an error. All jobs of one commit share it.
    #[error("{what}")]
    Database {
        /// What was being done.
        what: &'static str,
        /// Why not.
        #[source]
        source: std::sync::Arc<sqlx::Error>,
    },
}

impl StoreError {
    /// An error of the database while `what` was being done.
    pub(super) fn database(what: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
        move |source| StoreError::Database { what, source: std::sync::Arc::new(source) }
    }

    /// An error of a file while `what` was being done to it.
    pub(super) fn file(
        what: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| StoreError::File { what, path, source: std::sync::Arc::new(source) }
    }
}
