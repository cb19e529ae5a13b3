//! Packages that the orchestrator stores: fetched, checked against the sum that the run has frozen, unpacked, and kept for
//! the stages to come.
//!
//! ```text
//!   {home}/packages/{name}/{version}/
//!     fetched-SUM       the archive, or as much of it as has come: a later try goes on behind it
//!     unpacking-SUM/    what is unpacked of it; it becomes the next once all of it is on the disk
//!     package-SUM/      the package, whole: what stages use, from now on without asking anybody
//!     leaving-SUM/      one that is being removed
//! ```
//!
//! A package is there under its last name or not at all, whenever the agent was killed: whatever stands under another name
//! is gone on with or removed by the next try. Everything here blocks its caller, a stage's thread, and nothing else: the
//! connection has a runtime of its own there. One process has the home, and its stages run one after the other.

mod download;
mod part;
mod places;
mod unpack;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use groundcrew_protocol::ids::{PackageName, PackageVersion, Sha256Hex};
use groundcrew_protocol::wire::LogLevel;

use crate::client::Orchestrator;
use crate::process::Cancel;
use places::Places;

/// What stays free on the home's file system, where results and log lines must find room: as much as a spool that has no
/// orchestrator fills in hours.
pub const FREE_BYTES_LEAST: u64 = 64 * 1024 * 1024;
/// Packages on the node that its run does not name, of all names together: for the runs to come, the last ones that were
/// used. Older ones go.
pub const OTHERS_KEPT_MAX: usize = 4;

/// Which package is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: PackageName,
    /// Its version.
    pub version: PackageVersion,
    /// The sum of its archive.
    pub sha256: Sha256Hex,
}

/// What a stage gives to have a package brought.
pub struct Around<'a> {
    /// Ends it before its time.
    pub cancel: &'a Cancel,
    /// When the stage ends.
    pub deadline: Instant,
    /// Takes lines.
    pub say: &'a dyn Fn(LogLevel, String),
    /// Takes how far it is, from 0 to 1.
    pub show: &'a dyn Fn(f64, String),
}

impl Around<'_> {
    /// Why it is to end now, where it is; `came` says how much there is.
    fn stop(&self, came: impl FnOnce() -> String) -> Option<FetchError> {
        if self.cancel.is_asked() {
            return Some(FetchError::Stopped);
        }
        (Instant::now() >= self.deadline).then(|| FetchError::Late { came: came(), last: None })
    }
}

/// Why there is no package.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It was asked to end.
    #[error("ended before all of it had come")]
    Stopped,
    /// The stage's time is over.
    #[error("{came} had come when the stage's time was over{}", last.as_ref().map(|last| format!("; last: {last}")).unwrap_or_default())]
    Late {
        /// How much there is.
        came: String,
        /// What went wrong last, where something did.
        last: Option<String>,
    },
    /// The orchestrator does not give it.
    #[error("the orchestrator does not give it")]
    Refused(#[source] groundcrew_client::Error),
    /// What came is another archive.
    #[error("found an archive with SHA-256 {found}, expected {expected}; nothing of it is kept")]
    OtherContent {
        /// The sum of what came.
        found: Sha256Hex,
        /// The sum that the run has frozen.
        expected: Sha256Hex,
    },
    /// It is larger than any that is stored.
    #[error("found an archive of {found} bytes, expected at most {most}")]
    TooLarge {
        /// Its bytes.
        found: u64,
        /// How many are taken.
        most: u64,
    },
    /// The disk has too little room.
    #[error("found {free} bytes free at {}, expected {wanted} and {least} more that stay free", path.display())]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// What is free.
        free: u64,
        /// What is to be written.
        wanted: u64,
        /// What stays free.
        least: u64,
    },
    /// The archive is not taken.
    #[error("the archive is not taken, and nothing of it is kept")]
    Archive(#[source] groundcrew_archive::Error),
    /// The disk, or the system.
    #[error("{doing} {}", path.display())]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl FetchError {
    fn disk(doing: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> FetchError {
        move |source| FetchError::Disk { doing, path: path.to_owned(), source }
    }
}

/// The packages that the orchestrator stores for a run.
#[derive(Debug)]
pub struct Store {
    orchestrator: Orchestrator,
    places: Places,
    of_run: Vec<Sha256Hex>,
    free_bytes_least: u64,
}

impl Store {
    /// The store of the run that `orchestrator` asks for, in an agent's home; `of_run` are the sums of all its packages.
    pub fn new(orchestrator: Orchestrator, home: &std::path::Path, of_run: Vec<Sha256Hex>) -> Store {
        Store { orchestrator, places: Places::in_home(home), of_run, free_bytes_least: FREE_BYTES_LEAST }
    }

    /// The folder of a package, which is fetched and unpacked where it is not there yet.
    ///
    /// # Errors
    /// [`FetchError`]; another call goes on from where this one stopped.
    pub fn provide(&self, wanted: &Wanted, around: &Around<'_>) -> Result<PathBuf, FetchError> {
        let place = self.places.of(wanted)?;
        place.clear()?;
        if place.is_whole()? {
            place.remove_fetched()?;
            (around.say)(LogLevel::Info, format!("{} is here already", words(wanted)));
        } else {
            download::fetch(&self.orchestrator, wanted, &place, self.free_bytes_least, around)?;
            let unpacked = unpack::unpack(&place, self.free_bytes_least, around)?;
            (around.say)(
                LogLevel::Info,
                format!(
                    "{} is unpacked: {} entries, {} bytes",
                    words(wanted),
                    unpacked.entries,
                    unpacked.bytes
                ),
            );
        }
        place.touch()?;
        for note in self.places.sweep(&self.of_run, OTHERS_KEPT_MAX) {
            (around.say)(note.0, note.1);
        }
        Ok(place.package())
    }
}

fn words(wanted: &Wanted) -> String {
    format!("package {} {}", wanted.name, wanted.version)
}
