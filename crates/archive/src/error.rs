//! Why an archive is not taken.

use std::io;
use std::path::PathBuf;

use crate::tree::Refused;

/// Why an archive is not taken. What was handed to the sink before is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no archive of a form that is read here.
    #[error("it is no tar archive, nor one that was packed with gzip or zstd")]
    Form,
    /// It cannot be read: torn, or packed in a way that is not read here.
    #[error("it cannot be read after {entries} entries")]
    Unreadable {
        /// Entries that were read before.
        entries: usize,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ends before its end.
    #[error("it ends after {entries} entries without the mark of an archive's end: it was cut short")]
    CutShort {
        /// Entries that were read before.
        entries: usize,
    },
    /// More than is taken.
    #[error("found {found}, expected at most {most} bytes")]
    TooMuch {
        /// What there was too much of.
        found: &'static str,
        /// How much is taken.
        most: u64,
    },
    /// An entry breaks a rule.
    #[error(transparent)]
    Entry(#[from] Refused),
    /// The sink could not take an entry.
    #[error("placing {path:?}")]
    Placing {
        /// Its path in the archive.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}
