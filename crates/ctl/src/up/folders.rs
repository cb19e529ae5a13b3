//! Where `up` keeps things: data, which are gone afterwards, and what stays.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::arguments::UpArguments;
use crate::error::Usage;
use crate::output::say_aside;
use crate::words::clean;

/// Of the output of a program that failed, this much is looked at for its last lines.
const TAIL_BYTES: u64 = 16 * 1024;
const TAIL_LINES: usize = 15;
/// Every temporary folder begins so.
const PREFIX: &str = "groundcrew-up-";
/// The file that a living `up` holds locked in its folder.
const LOCK: &str = "up.lock";

/// What a program prints, and where it goes.
pub(super) const ORCHESTRATOR_LOG: &str = "groundcrewd.log";
pub(super) const AGENT_LOG: &str = "groundcrew.log";

/// Both folders.
pub(super) struct Folders {
    data: Data,
    report: PathBuf,
    /// Held until the end: says that the folder is somebody's.
    _lock: File,
}

enum Data {
    /// Removed at the end.
    Temporary(TempDir),
    /// It was named, or is to be kept: it stays.
    Staying(PathBuf),
}

impl Folders {
    /// Makes both, and removes what an `up` that was killed had to leave.
    ///
    /// # Errors
    /// Where the folder for data holds something already, or one cannot be made.
    pub(super) fn prepare(arguments: &UpArguments) -> Result<Folders> {
        let temporary = std::env::temp_dir();
        sweep(&temporary);
        let data = match &arguments.data {
            Some(folder) => Data::Staying(new_or_empty(folder)?),
            None => {
                let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&temporary);
                Data::Temporary(made.with_context(|| format!("making a folder in {}", temporary.display()))?)
            }
        };
        let report = &arguments.report_dir;
        std::fs::create_dir_all(report).with_context(|| format!("making {}", report.display()))?;
        let report = report.canonicalize().with_context(|| format!("finding {}", report.display()))?;
        for name in ["report.html", "report.json"] {
            remove_file(&report.join(name))?;
        }
        let path = data.path().join(LOCK);
        let lock = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("locking {}", path.display()))?;
        Ok(Folders { data, report, _lock: lock })
    }

    /// The folder for data.
    pub(super) fn data(&self) -> &Path {
        self.data.path()
    }

    /// The folder of what stays.
    pub(super) fn report(&self) -> &Path {
        &self.report
    }

    /// Where the operator's token is.
    pub(super) fn token_file(&self) -> PathBuf {
        self.data().join("operator-token")
    }

    /// A new file for what a program prints.
    pub(super) fn log(&self, name: &str) -> Result<File> {
        let path = self.report.join(name);
        let file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o644).open(&path);
        file.with_context(|| format!("making {}", path.display()))
    }

    /// The last lines of what both programs printed.
    pub(super) fn tails(&self) -> String {
        let mut text = String::new();
        for name in [ORCHESTRATOR_LOG, AGENT_LOG] {
            let path = self.report.join(name);
            match tail(&path) {
                Ok(lines) if lines.is_empty() => {}
                Ok(lines) => text.push_str(&format!("\nThe last lines of {}:\n{lines}", path.display())),
                // A program that never started has no file.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => text.push_str(&format!("\n{} cannot be read: {error}\n", path.display())),
            }
        }
        text
    }

    /// Lets the data stay. The file says that nobody sweeps them.
    pub(super) fn keep(&mut self) {
        let here = Data::Staying(self.data.path().to_path_buf());
        if let Data::Temporary(folder) = std::mem::replace(&mut self.data, here) {
            let path = folder.keep();
            // Without its lock file a folder is nobody's to sweep.
            if let Err(error) = std::fs::remove_file(path.join(LOCK)) {
                say_aside(&format!("groundcrewctl: {}: {error}", path.join(LOCK).display()));
            }
        }
    }

    /// Removes what is temporary.
    ///
    /// # Errors
    /// Where something stays behind that should not.
    pub(super) fn remove(self) -> Result<()> {
        match self.data {
            Data::Temporary(folder) => {
                let path = folder.path().to_path_buf();
                folder.close().with_context(|| format!("removing {}", path.display()))
            }
            Data::Staying(path) => remove_file(&path.join(LOCK)),
        }
    }
}

impl Data {
    fn path(&self) -> &Path {
        match self {
            Data::Temporary(folder) => folder.path(),
            Data::Staying(path) => path,
        }
    }
}

fn new_or_empty(folder: &Path) -> Result<PathBuf> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("making {}", folder.display()))?;
    let folder = folder.canonicalize().with_context(|| format!("finding {}", folder.display()))?;
    let mut entries = std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    if entries.next().is_some() {
        let found =
            format!("--data: {} holds something; expected a folder that is new or empty", folder.display());
        return Err(Usage(found).into());
    }
    Ok(folder)
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes folders of ours whose `up` is gone: a kill leaves no time to. What cannot be removed is let be; it may be
/// another user's.
fn sweep(temporary: &Path) {
    let Ok(entries) = std::fs::read_dir(temporary) else { return };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if !is_ours {
            continue;
        }
        let Some(lock) = open_lock(&entry.path()) else { continue };
        let is_free = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
        if is_free && std::fs::remove_dir_all(entry.path()).is_ok() {
            say_aside(&format!("Removed {}, which an earlier `up` had to leave.", entry.path().display()));
        }
    }
}

/// The lock file of a folder, where it is one and this user's: anybody may put anything into a folder for all.
fn open_lock(folder: &Path) -> Option<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOFOLLOW;
    let file =
        OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(folder.join(LOCK)).ok()?;
    let found = file.metadata().ok()?;
    (found.is_file() && found.uid() == rustix::process::geteuid().as_raw()).then_some(file)
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    Ok(last.iter().map(|line| format!("  {}\n", clean(line))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_an_earlier_up_left_is_swept_and_a_living_ones_is_not() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = temporary.path().join(name);
            std::fs::create_dir(&path).unwrap();
            let lock = File::create(path.join(LOCK)).unwrap();
            (path, lock)
        };
        let (left, lock) = folder("groundcrew-up-left");
        drop(lock);
        let (living, lock) = folder("groundcrew-up-living");
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let (kept, _) = folder("groundcrew-up-kept");
        std::fs::remove_file(kept.join(LOCK)).unwrap();
        let (other, _) = folder("other");
        // A pipe in the place of the lock file must not make `up` wait for its writer, nor a link lead elsewhere.
        let (pipe, _) = folder("groundcrew-up-pipe");
        std::fs::remove_file(pipe.join(LOCK)).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, pipe.join(LOCK), mode).unwrap();
        let (linked, _) = folder("groundcrew-up-linked");
        std::fs::remove_file(linked.join(LOCK)).unwrap();
        std::os::unix::fs::symlink(other.join(LOCK), linked.join(LOCK)).unwrap();
        sweep(temporary.path());
        assert!(pipe.exists() && linked.exists());
        assert!(!left.exists());
        assert!(living.exists() && kept.exists() && other.exists());
    }

    #[test]
    fn data_that_are_there_already_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(new_or_empty(&folder.path().join("a/b")).is_ok());
        let error = new_or_empty(folder.path()).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("new or empty"), "{error}");
    }

    #[test]
    fn a_tail_is_bounded_and_steers_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let text: String = (0..100_000).map(|number| format!("line {number}\x1b[2J\n")).collect();
        std::fs::write(&path, text).unwrap();
        let tail = tail(&path).unwrap();
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.contains("line 99999 [2J") && !tail.contains('\x1b'), "{tail}");
    }
}
