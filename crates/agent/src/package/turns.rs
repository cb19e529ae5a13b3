//! Who may run the steps of a package now, and which step of it runs.
//!
//! Calls for one package in one version take turns by a lock on one byte of the flag `START`: no file is made for it
//! that the reference agent would not have made, and packages do not wait for each other. The lock is the open file's
//! (`F_OFD_SETLK`, fcntl(2)), so that it ends with the process, however that ends.
//!
//! A step may outlive an agent that is killed. So its process is written down before its program starts, and the next
//! agent waits for it, or ends it at a deadline, before it starts anything. That record is for another agent under the
//! same boot, whose reads see what was written here whatever happens to this process: it is not synced, because after a
//! power cut nothing runs that it could name. A record that is not whole names nobody either: its step is let go only
//! after all of it was written.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use groundcrew_durable::epoch;
use groundcrew_protocol::ids::Sha256Hex;
use serde::{Deserialize, Serialize};

use super::flags;
use super::places::Places;
use super::rooted::Root;
use super::session::{LOOK, Session};
use crate::errors::chain;
use crate::process::proc_stat;

/// How long a step that outlived its agent may still take.
const LEFT_WAIT: Duration = Duration::from_secs(600);
/// From SIGTERM to SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(5);
/// Tries to lock the flag `START` where it is removed at that very moment.
const STARTS_MAX: u32 = 8;
/// Greatest size of a record that is read.
const RECORD_BYTES_MAX: u64 = 64 * 1024;

/// A step that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// Its process, which leads a process group of the same number.
    pid: i32,
    /// Clock ticks after boot at which it started.
    start: u64,
    /// The boot under which it runs; empty where that could not be read.
    boot_id: String,
    /// The namespace in which the number is meant, as the kernel calls it.
    pid_namespace: String,
    /// Its path in the package.
    step: String,
}

/// The turn of one package and version. It ends when this is dropped.
pub(crate) struct Turn<'a> {
    _lock: File,
    root: &'a Root,
    path: PathBuf,
    /// The file at `path`, once a step has run: empty while none does.
    file: Option<File>,
    boot_id: String,
    pid_namespace: String,
}

impl<'a> Turn<'a> {
    fn new(lock: File, root: &'a Root, path: PathBuf) -> Turn<'a> {
        let boot_id = epoch::boot_id(Path::new(epoch::PROC)).unwrap_or_default();
        Turn { _lock: lock, root, path, file: None, boot_id, pid_namespace: pid_namespace() }
    }

    /// Writes down, for other agents under this boot, which process is about to become a step.
    pub fn record(&mut self, pid: u32, step: &str) -> io::Result<()> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        let stat = proc_stat::read(pid).ok_or_else(|| io::Error::other("its process has ended"))?;
        let record = Record {
            pid,
            start: stat.start,
            boot_id: self.boot_id.clone(),
            pid_namespace: self.pid_namespace.clone(),
            step: step.to_owned(),
        };
        let bytes = serde_json::to_vec(&record).map_err(io::Error::other)?;
        let written = self.empty_file().and_then(|mut file| file.write_all(&bytes));
        // What is made of it is one line, which must say where and why.
        let shown = self.root.host_path(&self.path);
        written.map_err(|error| io::Error::other(format!("writing {}: {error}", shown.display())))
    }

    /// Strikes the step off: it has ended.
    pub fn strike_off(&mut self) -> anyhow::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.set_len(0).context("striking off the step that has ended")
    }

    /// The file for the record, with nothing in it.
    fn empty_file(&mut self) -> io::Result<&File> {
        let kept = match self.file.take() {
            // A step may have removed it, with the folder around it.
            Some(file) => Some((file.metadata()?, file)).filter(|(metadata, _file)| metadata.nlink() > 0),
            None => None,
        };
        let file = match kept {
            Some((metadata, file)) => {
                // Of a step that was not let go, because its record could not be written whole.
                if metadata.len() > 0 {
                    file.set_len(0)?;
                }
                file
            }
            None => {
                let made =
                    self.root.create_new(&self.path).map_err(|error| io::Error::other(chain(&error)))?;
                made.ok_or_else(|| {
                    io::Error::other("found a file, expected none: calls for a package take turns")
                })?
            }
        };
        Ok(self.file.insert(file))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            // Where it cannot be removed it stays as an empty file, which names nobody.
            let _names_nobody = self.root.remove_lazily(&self.path);
        }
    }
}

/// Marks that the agent has started on this node, and waits for the turn, and for what an agent that is gone has left
/// running. `None` where SIGTERM came first.
///
/// # Errors
/// Where the lock cannot be had, or what was left cannot be read.
pub(crate) fn take<'a>(
    session: &mut Session,
    root: &'a Root,
    places: &Places,
) -> anyhow::Result<Option<Turn<'a>>> {
    let byte = byte_of(places);
    let other = format!("call for {} {}", places.package(), places.version());
    let locked = || {
        for _ in 0..STARTS_MAX {
            let file = flags::open_start(root, places)?;
            let is_locked = try_lock(&file, byte);
            let shown = || format!("locking {}", root.host_path(&places.flags().join("START")).display());
            if !is_locked.with_context(shown)? {
                return Ok(None);
            }
            // One that was removed while it was waited for locks nobody else out.
            if flags::is_start(root, places, &file)? {
                return Ok(Some(file));
            }
        }
        bail!("{}: found another one each time it was locked", places.flags().join("START").display())
    };
    let Some(lock) = session.take_turn(&other, locked)? else { return Ok(None) };
    let record = places.flags().join(format!(".running-{byte:016x}.json"));
    let turn = Turn::new(lock, root, record);
    if !wait_for_left(session, &turn)? {
        return Ok(None);
    }
    Ok(Some(turn))
}

/// Which byte of the file stands for a package and version: any below 2^60, and hardly ever that of another.
fn byte_of(places: &Places) -> i64 {
    let hash = Sha256Hex::of(format!("{}\0{}", places.package(), places.version()).as_bytes());
    let first =
        u64::from_str_radix(&hash.as_str()[..15], 16).expect("a hash is written in hexadecimal digits");
    i64::try_from(first).expect("fifteen digits are 60 bits")
}

/// Takes the lock on a byte; false while another has it.
fn try_lock(file: &File, byte: i64) -> io::Result<bool> {
    // SAFETY: a flock of zeros is a valid one.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = byte;
    lock.l_len = 1;
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the kernel only reads the structure.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
    if done == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Waits for a step that outlived its agent, and ends it at the deadline. False where SIGTERM came first.
fn wait_for_left(session: &mut Session, turn: &Turn<'_>) -> anyhow::Result<bool> {
    let shown = turn.root.host_path(&turn.path);
    let Some(bytes) = turn.root.read(&turn.path, RECORD_BYTES_MAX)? else { return Ok(true) };
    let record = parse(&bytes).with_context(|| {
        format!(
            "{}: found no record of a running step; see whether one runs, and remove the file",
            shown.display()
        )
    })?;
    let Some(record) = record else {
        turn.root.remove_lazily(&turn.path)?;
        return Ok(true);
    };
    let until = Instant::now() + LEFT_WAIT;
    if runs(&record) {
        session.warn(&format!(
            "{} of an agent that is gone still runs as process {}; it is waited for, at most {} s",
            record.step,
            record.pid,
            LEFT_WAIT.as_secs()
        ));
    }
    while runs(&record) && Instant::now() < until {
        if session.wait(LOOK) {
            session.warn("SIGTERM came while waiting for it: nothing was run");
            return Ok(false);
        }
    }
    if runs(&record) {
        end(session, &record)?;
    }
    turn.root.remove_lazily(&turn.path)?;
    Ok(true)
}

/// Reads a record; `None` for one that was never written whole, whose step was not let go. A power cut may leave a file
/// longer than what reached the disk of it, with zeros for the rest.
fn parse(bytes: &[u8]) -> serde_json::Result<Option<Record>> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    match serde_json::from_slice(&bytes[..end]) {
        Ok(record) => Ok(Some(record)),
        Err(error) if error.is_eof() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the process that a record names still runs, here and now.
fn runs(record: &Record) -> bool {
    let same_boot = epoch::boot_id(Path::new(epoch::PROC)).unwrap_or_default() == record.boot_id;
    same_boot
        && record.pid_namespace == pid_namespace()
        && proc_stat::read(record.pid).is_some_and(|stat| stat.start == record.start && !stat.is_dead())
}

fn end(session: &mut Session, record: &Record) -> anyhow::Result<()> {
    session.warn(&format!("{} was waited for long enough and is ended", record.step));
    let group = rustix::process::Pid::from_raw(record.pid).context("a record of no process")?;
    for (signal, time) in
        [(rustix::process::Signal::TERM, KILL_AFTER), (rustix::process::Signal::KILL, KILL_AFTER)]
    {
        // Gone meanwhile is what is wanted.
        let _gone = rustix::process::kill_process_group(group, signal);
        let until = Instant::now() + time;
        while runs(record) && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
    }
    if runs(record) {
        bail!(
            "{} (process {}) was killed and hangs in the kernel; nothing is started beside it",
            record.step,
            record.pid
        );
    }
    Ok(())
}

/// The namespace of process ids in which this process is. Without /proc nobody knows, and all are alike.
fn pid_namespace() -> String {
    let link = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    link.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(package: &str, version: &str) -> Places {
        Places::new(Path::new("/etc/skyhook"), Path::new("/var/log/skyhook"), package, version).unwrap()
    }

    #[test]
    fn one_package_and_version_takes_turns_and_others_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("START");
        std::fs::write(&path, "").unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let (a, b) = (byte_of(&places("a", "1.0.0")), byte_of(&places("a", "1.0.1")));
        let (first, second) = (open(), open());
        assert!(try_lock(&first, a).unwrap());
        assert!(!try_lock(&second, a).unwrap());
        assert!(try_lock(&second, b).unwrap());
        drop(first);
        assert!(try_lock(&second, a).unwrap());
    }

    #[test]
    fn a_record_that_is_not_whole_names_nobody_and_another_file_is_refused() {
        let record = Record {
            pid: 7,
            start: 8,
            boot_id: "9".to_owned(),
            pid_namespace: String::new(),
            step: "é.sh".to_owned(),
        };
        let whole = serde_json::to_vec(&record).unwrap();
        for end in 0..whole.len() {
            let cut = [&whole[..end], &[0; 300]].concat();
            assert_eq!(parse(&whole[..end]).unwrap(), None, "{end}");
            assert_eq!(parse(&cut).unwrap(), None, "{end}");
        }
        assert_eq!(parse(&whole).unwrap(), Some(record));
        assert!(parse(b"[]").is_err() && parse(b"pid 7").is_err() && parse(b"{}").is_err());
    }

    #[test]
    fn one_file_has_the_record_of_the_step_that_runs_and_goes_with_the_turn() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::open(folder.path()).unwrap();
        let (path, own) = (folder.path().join("flags/.running"), std::process::id());
        let lock = File::create(folder.path().join("lock")).unwrap();
        let mut turn = Turn::new(lock, &root, "/flags/.running".into());
        let found = || parse(&std::fs::read(&path).unwrap()).unwrap();
        turn.strike_off().unwrap();
        assert!(!path.exists());
        turn.record(own, "a-long-name.sh").unwrap();
        // Its agent could not let it go: nobody struck it off.
        turn.record(own, "b.sh").unwrap();
        assert!(found().is_some_and(|record| record.step == "b.sh" && runs(&record)));
        turn.strike_off().unwrap();
        assert_eq!(found(), None);
        // A step that clears the flags does not hide the next one.
        std::fs::remove_dir_all(folder.path().join("flags")).unwrap();
        turn.record(own, "c.sh").unwrap();
        assert!(found().is_some_and(|record| record.step == "c.sh"));
        drop(turn);
        assert!(!path.exists());
    }

    #[test]
    fn names_do_not_run_into_each_other() {
        assert_ne!(byte_of(&places("a", "b1")), byte_of(&places("ab", "1")));
    }

    #[test]
    fn a_record_names_one_process_for_ever() {
        let own = std::process::id() as i32;
        let record = Record {
            pid: own,
            start: proc_stat::read(own).unwrap().start,
            boot_id: epoch::boot_id(Path::new(epoch::PROC)).unwrap(),
            pid_namespace: pid_namespace(),
            step: "a.sh".to_owned(),
        };
        assert!(runs(&record));
        assert!(!runs(&Record { start: record.start + 1, ..record.clone() }));
        assert!(!runs(&Record { boot_id: "another".to_owned(), ..record.clone() }));
        assert!(!runs(&Record { pid_namespace: "pid:[1]".to_owned(), ..record }));
    }
}
