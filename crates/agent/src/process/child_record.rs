//! Which children run, kept in `{home}/child.json` so that an agent that was killed is followed by one that knows
//! what to end.
//!
//! A child is written down, durably, before it runs, and struck off after the last of its session is gone.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use groundcrew_durable::whole;
use groundcrew_protocol::ids::BootId;
use serde::{Deserialize, Serialize};

/// Name of the file in an agent's home.
pub const FILE_NAME: &str = "child.json";
/// Greatest size of the file that is read: some thousand children.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Greatest number of children at a time: one for each disk that the stage Storage reads at a time, and a handful.
const CHILDREN_MAX: usize = 160;

/// A child that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildRecord {
    /// Its number; also that of its session and process group.
    pub pid: i32,
    /// Clock ticks after boot at which it started.
    pub start: u64,
    /// The boot under which it runs; absent where it could not be read.
    pub boot_id: Option<BootId>,
    /// Value of [`super::sweep::COOKIE_VARIABLE`] in its environment: finds what left its session.
    pub cookie: String,
    /// The program, for people.
    pub program: String,
}

/// The children of this process, and the file that names them.
#[derive(Debug)]
pub struct ChildRecords {
    path: Option<PathBuf>,
    running: Mutex<Vec<ChildRecord>>,
}

impl ChildRecords {
    /// Records in an agent's home. What a predecessor left there must have been swept before: the first child
    /// overwrites it.
    pub fn in_home(home: &Path) -> ChildRecords {
        ChildRecords { path: Some(home.join(FILE_NAME)), running: Mutex::new(Vec::new()) }
    }

    /// Records in memory alone, for a process that has no home. What it leaves running when it is killed ends by
    /// the parent-death signal and the tool's own time limit, and by nothing else.
    pub fn in_memory() -> ChildRecords {
        ChildRecords { path: None, running: Mutex::new(Vec::new()) }
    }

    /// Writes a child down. When this returns, the record is on the disk.
    ///
    /// # Errors
    /// Where it cannot be written, or too many run already. The child must not be let go then.
    pub fn add(&self, child: ChildRecord) -> io::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.len() >= CHILDREN_MAX {
            return Err(io::Error::other(format!("{CHILDREN_MAX} children run already")));
        }
        let pid = child.pid;
        running.push(child);
        let written = self.write(&running);
        if written.is_err() {
            running.retain(|other| other.pid != pid);
        }
        written
    }

    /// Their numbers; none where the records are being written, for a caller that must not wait for a disk.
    pub fn pids(&self) -> Vec<i32> {
        self.running
            .try_lock()
            .map(|running| running.iter().map(|child| child.pid).collect())
            .unwrap_or_default()
    }

    /// Strikes a child off.
    ///
    /// # Errors
    /// Where the file cannot be written. It then names a process that is gone, which a sweep tolerates.
    pub fn remove(&self, pid: i32) -> io::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|child| child.pid != pid);
        self.write(&running)
    }

    fn write(&self, running: &[ChildRecord]) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let bytes = serde_json::to_vec(running).map_err(io::Error::other)?;
        whole::write_whole(path, &bytes, &whole::Options::default()).map_err(io::Error::other)
    }
}

/// Reads what a predecessor left in a home. A file that is not there names nobody.
///
/// # Errors
/// Where the file is there and cannot be read or understood: then nobody knows what may still run.
pub fn read_left(home: &Path) -> io::Result<Vec<ChildRecord>> {
    let path = home.join(FILE_NAME);
    let bytes = whole::read_bounded(&path, FILE_BYTES_MAX).map_err(io::Error::other)?;
    let Some(bytes) = bytes else { return Ok(Vec::new()) };
    serde_json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(pid: i32) -> ChildRecord {
        ChildRecord { pid, start: 7, boot_id: None, cookie: "c".into(), program: "p".into() }
    }

    #[test]
    fn the_file_names_who_runs_and_nobody_else() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(read_left(home.path()).unwrap(), []);
        let records = ChildRecords::in_home(home.path());
        records.add(child(1)).unwrap();
        records.add(child(2)).unwrap();
        assert_eq!(read_left(home.path()).unwrap(), [child(1), child(2)]);
        records.remove(1).unwrap();
        assert_eq!(read_left(home.path()).unwrap(), [child(2)]);
        records.remove(2).unwrap();
        assert_eq!(read_left(home.path()).unwrap(), []);
    }

    #[test]
    fn what_cannot_be_written_is_an_error_and_not_remembered() {
        let home = tempfile::tempdir().unwrap();
        let records = ChildRecords::in_home(&home.path().join("gone"));
        assert!(records.add(child(1)).is_err());
        assert!(records.running.lock().unwrap().is_empty());
    }

    #[test]
    fn a_mangled_file_is_an_error_not_an_empty_list() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(FILE_NAME), b"[{\"pid\":").unwrap();
        assert!(read_left(home.path()).is_err());
    }
}
