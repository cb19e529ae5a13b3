//! What can go wrong beneath a root mount: a variant for each thing a caller may do differently.

use std::io;
use std::path::{Path, PathBuf};

/// The result of everything beneath a root mount that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong with which path. Paths are shown as the host knows them, the root mount in front.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a call: a full or read-only disk, a missing folder, a lack of permission.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was being done, as the words in front of the path.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A whole write failed; nothing of it stands at the path.
    #[error(transparent)]
    Durable(#[from] groundcrew_durable::Error),
    /// Symbolic links that lead to each other, or far too many on one way.
    #[error("{}: found more than {links_max} symbolic links on the way, expected at most that many", path.display())]
    Links {
        /// The path as asked for.
        path: PathBuf,
        /// The limit.
        links_max: u32,
    },
    /// The path leads through more folders than are kept open at once.
    #[error("{}: found more than {folders_max} folders on the way, expected at most that many", path.display())]
    TooDeep {
        /// The path as asked for.
        path: PathBuf,
        /// The limit.
        folders_max: usize,
    },
    /// Something else stands at the path than what was to be read, made or replaced. It was not touched.
    #[error("{}: found {found}, expected {expected}", path.display())]
    Kind {
        /// The path.
        path: PathBuf,
        /// What stands there, such as "a fifo".
        found: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// The content is larger than the caller allows.
    #[error("{}: found more than {bytes_max} bytes, expected at most that many", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit, in bytes.
        bytes_max: u64,
    },
    /// A text that was to be part of a path cannot be one.
    #[error("{what} {found:?}: expected {expected}")]
    BadName {
        /// Which text, such as "package name".
        what: &'static str,
        /// The text, cut to 80 characters.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A tree that was to be copied holds too much.
    #[error("{}: found more than {limit} {of_what}, expected at most that many", path.display())]
    TooMany {
        /// The tree, or the place in it.
        path: PathBuf,
        /// Of what there is too much.
        of_what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The file system has too little room for what is to be copied.
    #[error("found {free} bytes free at {}, expected {wanted} for what is to be copied there{}", path.display(), stays_free(*least))]
    NoRoom {
        /// A folder of the file system.
        path: PathBuf,
        /// What is free, in bytes.
        free: u64,
        /// What the copy takes.
        wanted: u64,
        /// What is to stay free beside it.
        least: u64,
    },
    /// It was asked to end while something was being copied. What is there is whole, and is gone on with.
    #[error("ended on request while {} was being copied", path.display())]
    Stopped {
        /// What was being copied, or where to.
        path: PathBuf,
    },
    /// Another process is at work there.
    #[error("{} is being worked on by another process", path.display())]
    Busy {
        /// The folder that the other process has locked.
        path: PathBuf,
    },
}

impl Error {
    /// Makes the adapter that turns a failed call into an [`Error::Io`] with its path.
    pub(crate) fn io<E: Into<io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { doing, path: path.to_owned(), source: source.into() }
    }

    /// Makes an [`Error::BadName`].
    pub(crate) fn bad_name(what: &'static str, found: &str, expected: &'static str) -> Self {
        Self::BadName { what, found: found.chars().take(80).collect(), expected }
    }

    /// What the operating system answered, where it was asked.
    pub fn system(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } | Self::Durable(groundcrew_durable::Error::Io { source, .. }) => {
                Some(source)
            }
            Self::Durable(_)
            | Self::Links { .. }
            | Self::TooDeep { .. }
            | Self::Kind { .. }
            | Self::TooLarge { .. }
            | Self::BadName { .. }
            | Self::TooMany { .. }
            | Self::NoRoom { .. }
            | Self::Stopped { .. }
            | Self::Busy { .. } => None,
        }
    }
}

fn stays_free(least: u64) -> String {
    if least == 0 { String::new() } else { format!(", and {least} more that stay free") }
}
