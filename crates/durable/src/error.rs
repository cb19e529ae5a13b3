//! The one error type of the crate: a variant for each thing a caller may do differently.

use std::io;
use std::path::{Path, PathBuf};

use crate::found::{Corruption, Holder};

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong with which path. Unless a variant says otherwise, what was on disk before still is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a call: a full or failing disk, a missing folder, a lack of permission.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done, as the words in front of the path.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The path ends in nothing that could name a file: `/`, `..` or the empty path.
    #[error("{:?} names no file", path.display())]
    NoFileName {
        /// The path as given.
        path: PathBuf,
    },
    /// Something other than a regular file stands at the path. It is never followed, read or replaced.
    #[error("{} is {found}, expected a regular file", path.display())]
    NotAFile {
        /// The path as given.
        path: PathBuf,
        /// What stands there, such as "a symbolic link".
        found: &'static str,
    },
    /// Something other than a folder stands where a folder was to be made.
    #[error("{} is {found}, expected a folder", path.display())]
    NotAFolder {
        /// The path as given.
        path: PathBuf,
        /// What stands there.
        found: &'static str,
    },
    /// A path that must stay beneath a folder leads over a symbolic link, or out. Nothing there is opened.
    #[error("{} leads over a symbolic link or out of its folder, expected a plain path beneath it", path.display())]
    LeadsOut {
        /// The path.
        path: PathBuf,
    },
    /// The content is, or would become, larger than the caller allows.
    #[error("{} holds more than the {bytes_max} bytes allowed", path.display())]
    TooLarge {
        /// The file, or the record file that would have taken the record.
        path: PathBuf,
        /// The limit, in bytes.
        bytes_max: u64,
    },
    /// The file belongs to somebody else and this process may not make its replacement theirs. Replacing it
    /// all the same would take it away from its owner, so nothing was written.
    #[error("{} belongs to {uid}:{gid}, and this process may not give its replacement to them", path.display())]
    OwnerNotKept {
        /// The file that was to be replaced.
        path: PathBuf,
        /// The user it belongs to.
        uid: u32,
        /// The group it belongs to.
        gid: u32,
        /// What the system answered.
        source: io::Error,
    },
    /// The content is not what the file is for.
    #[error("{}: found {found}, expected {expected}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was found in it.
        found: String,
        /// What belongs there.
        expected: &'static str,
        /// The parser's own error, where it was the parser that gave up.
        source: Option<serde_json::Error>,
    },
    /// So many ask for a drain already that one more is refused.
    #[error("{} has {holders_max} holders, and takes no more: `groundcrew drain cancel` frees all", path.display())]
    TooManyHolders {
        /// The marker.
        path: PathBuf,
        /// The limit.
        holders_max: usize,
    },
    /// Somebody who does not know the lock wrote the file again and again while it was to be replaced.
    #[error("{} was changed {tries} times while it was being replaced, by somebody without its lock", path.display())]
    KeepsChanging {
        /// The file.
        path: PathBuf,
        /// How often it was tried.
        tries: u32,
    },
    /// Another process kept a lock for longer than the caller wanted to wait.
    #[error("the lock {} was still taken after {waited_ms} ms", path.display())]
    LockWait {
        /// The lock file.
        path: PathBuf,
        /// The wait that was allowed, in milliseconds.
        waited_ms: u64,
    },
    /// Another process holds this for as long as it lives.
    #[error("{} is held by {holder}", path.display())]
    Held {
        /// The lock file or record file.
        path: PathBuf,
        /// Who holds it.
        holder: Holder,
    },
    /// A record file is damaged in front of its end, so that appending would follow onto nonsense.
    #[error("{} is damaged at byte {offset}: {corruption}", path.display())]
    Corrupt {
        /// The record file.
        path: PathBuf,
        /// Where the first record begins that is not whole; every record before it is.
        offset: u64,
        /// How it is damaged.
        corruption: Corruption,
    },
    /// A place in a record file was asked for that lies behind the file's end.
    #[error("{} ends at byte {bytes}, before byte {offset}", path.display())]
    PastEnd {
        /// The record file.
        path: PathBuf,
        /// The place asked for.
        offset: u64,
        /// The file's length.
        bytes: u64,
    },
    /// An earlier failure left it unknown what of this record file is on the disk. It takes no more records
    /// until it is opened anew.
    #[error("{} failed earlier and must be opened anew", path.display())]
    Broken {
        /// The record file.
        path: PathBuf,
    },
}

impl Error {
    /// Makes the adapter that turns a failed call into an [`Error::Io`] with its path.
    pub(crate) fn io<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source: source.into() }
    }
}
