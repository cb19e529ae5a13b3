//! The agent's home: what it keeps on a disk, or in memory where there is none.
//!
//! ```text
//!   lock             held for as long as the agent lives: one process per home
//!   instance         random id of this home
//!   run.json         the run, its token, the greatest known claim     (control::memory)
//!   outbox/          outcomes, until they are acknowledged             \
//!   kept/            acknowledged ones, until the run ends              } outbox.rs
//!   refused/         outcomes that the orchestrator will not take      /
//!   artifacts/       raw output of tools, until it is acknowledged       artifacts/
//!   spool/           log lines and readings, until acknowledged          spool/
//!   child.json       the process that runs, and that a successor ends
//!   hooks.json       what a drain's hook owes, whichever run it was for  (control::hooks)
//!   .drain_request.json, drain-seen.json, agent.sock                     drain/
//!   agent-info.json  what the agent says of itself to others             info.rs
//!   packages/N/V/    packages of the orchestrator's store                fetch/
//!   runs/RUN/        what belonged to an earlier run and was never sent
//! ```
//!
//! Opening blocks and happens before the loop starts. A file that cannot be read never stops the agent: it is
//! set aside as `NAME.broken-N`, and [`Home::notes`] says so.

use std::path::{Path, PathBuf};

use groundcrew_durable::lock::HomeLock;
use groundcrew_durable::whole::{Options, create_folder, read_bounded, sweep_leftovers, write_whole};
use groundcrew_durable::{Error, fault};
use groundcrew_protocol::ids::{RandomId, RunId};
use groundcrew_protocol::wire::HomeKind;

use crate::control::hooks::{self, Kept};
use crate::control::memory::Memory;
use crate::files::{io_error, kind_of, move_into, names_in, read_json, set_aside};
use crate::points;

/// A few hundred bytes, with room for what newer versions add.
const RUN_FILE_BYTES_MAX: u64 = 64 * 1024;
const INSTANCE_BYTES_MAX: u64 = 256;
/// A hook's command has at most 64 words of 4 KiB, each letter up to six in JSON.
const HOOKS_FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// What belongs to one run. `child.json` is not among them: a child is ended whosever it was.
const PARTS_OF_A_RUN: [&str; 5] = ["outbox", "refused", "kept", "spool", "artifacts"];

/// Why a home cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// Another agent lives here.
    #[error("another agent uses the home {}", home.display())]
    InUse {
        /// The home.
        home: PathBuf,
        /// Who holds it.
        source: Error,
    },
    /// The disk will not.
    #[error("opening the home {}", home.display())]
    Disk {
        /// The home.
        home: PathBuf,
        /// What it says.
        source: Error,
    },
    /// The system has no random numbers to give.
    #[error("drawing a random number")]
    Random {
        /// What it says.
        source: getrandom::Error,
    },
}

/// An open home. Its lock is held until this is dropped.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    instance: RandomId,
    kind: HomeKind,
    run: Memory,
    hooks: Kept,
    notes: Vec<String>,
    _lock: HomeLock,
}

impl Home {
    /// Opens or makes the home at `path` for a run. What belongs to another run is moved to `runs/`.
    ///
    /// # Errors
    /// [`HomeError::InUse`] where another agent has it; [`HomeError::Disk`].
    pub fn open(path: &Path, run: &RunId) -> Result<Home, HomeError> {
        let disk = |source| HomeError::Disk { home: path.to_owned(), source };
        create_folder(path, 0o700).map_err(disk)?;
        let lock = HomeLock::acquire(path).map_err(|source| match source {
            Error::Held { .. } => HomeError::InUse { home: path.to_owned(), source },
            source => disk(source),
        })?;
        let (id, token) = (random::<16>()?, random::<32>()?);
        let mut notes = Vec::new();
        sweep(path, &mut notes).map_err(disk)?;
        let instance = open_instance(path, id, &mut notes).map_err(disk)?;
        let run = open_run(path, run, token, &mut notes).map_err(disk)?;
        let hooks = read_json(&path.join(hooks::FILE), HOOKS_FILE_BYTES_MAX, &mut notes).map_err(disk)?;
        for part in ["outbox", "refused", "kept", "spool"] {
            create_folder(&path.join(part), 0o700).map_err(disk)?;
        }
        let kind = kind_of(path).map_err(disk)?;
        let hooks = hooks.unwrap_or_default();
        Ok(Home { path: path.to_owned(), instance, kind, run, hooks, notes, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its random id.
    pub fn instance(&self) -> &RandomId {
        &self.instance
    }

    /// Whether it outlives the machine's power, by its file system alone.
    pub fn kind(&self) -> &HomeKind {
        &self.kind
    }

    /// What was remembered of the run when the home was opened.
    pub fn run(&self) -> &Memory {
        &self.run
    }

    /// What was remembered of the node's hooks. It outlives the run.
    pub fn hooks(&self) -> &Kept {
        &self.hooks
    }

    /// What was found on opening and has to be said: broken files, another run's things.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// True where an agent with the home at `path` has claimed the run: it then needs no boot token. Changes nothing, unlike
/// [`Home::open`], which moves aside what belongs to another run.
pub fn has_claimed(path: &Path, run: &RunId) -> bool {
    let bytes = read_bounded(&path.join("run.json"), RUN_FILE_BYTES_MAX).ok().flatten();
    let memory = bytes.and_then(|bytes| serde_json::from_slice::<Memory>(&bytes).ok());
    memory.is_some_and(|memory| memory.run == *run && memory.claimed)
}

fn random<const BYTES: usize>() -> Result<[u8; BYTES], HomeError> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|source| HomeError::Random { source })?;
    Ok(bytes)
}

/// A new random id.
///
/// # Errors
/// Where the system has no random numbers to give.
pub fn random_id() -> Result<RandomId, HomeError> {
    Ok(RandomId::from_bytes(random::<16>()?))
}

fn sweep(home: &Path, notes: &mut Vec<String>) -> Result<(), Error> {
    let folders = ["outbox", "refused", "kept", "spool"].map(|part| home.join(part));
    let there = folders.iter().filter(|folder| folder.is_dir());
    let mut removed = sweep_leftovers(home)?.removed;
    for folder in there {
        removed += sweep_leftovers(folder)?.removed;
    }
    if removed > 0 {
        notes.push(format!(
            "{removed} writes were cut off by the end of an earlier agent; what they replace stands"
        ));
    }
    Ok(())
}

fn open_instance(home: &Path, fresh: [u8; 16], notes: &mut Vec<String>) -> Result<RandomId, Error> {
    let path = home.join("instance");
    if let Some(bytes) = read_bounded(&path, INSTANCE_BYTES_MAX)? {
        let text = String::from_utf8_lossy(&bytes);
        match text.trim_end().parse() {
            Ok(id) => return Ok(id),
            Err(error) => {
                let aside = set_aside(&path)?;
                notes.push(format!(
                    "the home's id could not be read ({error}) and is now {}",
                    aside.display()
                ));
            }
        }
    }
    let id = RandomId::from_bytes(fresh);
    write_whole(&path, format!("{id}\n").as_bytes(), &Options::default())?;
    Ok(id)
}

fn open_run(home: &Path, run: &RunId, random: [u8; 32], notes: &mut Vec<String>) -> Result<Memory, Error> {
    let path = home.join("run.json");
    match read_json::<Memory>(&path, RUN_FILE_BYTES_MAX, notes)? {
        Some(memory) if memory.run == *run => return Ok(memory),
        Some(other) => move_run_aside(home, &other.run, notes)?,
        None => {}
    }
    let memory = Memory::new(run.clone(), random);
    memory.store(home)?;
    Ok(memory)
}

/// Moves what belongs to a run to `runs/RUN/`, its `run.json` last: a crash on the way leaves that one, and
/// the next opening moves the rest.
fn move_run_aside(home: &Path, run: &RunId, notes: &mut Vec<String>) -> Result<(), Error> {
    let folder = home.join("runs").join(run.as_str());
    create_folder(&folder, 0o700)?;
    let mut unsent = names_in(&home.join("outbox"))?.len();
    for part in PARTS_OF_A_RUN {
        let from = home.join(part);
        match from.symlink_metadata() {
            Ok(_) => drop(move_into(&from, &folder)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("looking at", &from)(error)),
        }
        fault::point(points::HOME_PART_MOVED);
    }
    // Of a move that was cut off, the outbox may be there already.
    unsent = unsent.max(names_in(&folder.join("outbox"))?.len());
    fault::point(points::HOME_MOVED);
    move_into(&home.join("run.json"), &folder)?;
    notes.push(format!(
        "this home belonged to run {run}; what it kept ({unsent} outcomes unsent) is now in {}",
        folder.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use groundcrew_protocol::ids::ClaimNumber;

    use super::*;

    fn run(name: &str) -> RunId {
        name.parse().unwrap()
    }

    #[test]
    fn a_home_is_the_same_when_it_is_opened_again_and_has_one_owner_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/home");
        let home = Home::open(&path, &run("r-1")).unwrap();
        let error = Home::open(&path, &run("r-1")).unwrap_err();
        assert!(matches!(error, HomeError::InUse { .. }), "{error:?}");
        let mut memory = home.run().clone();
        assert!(!has_claimed(&path, &run("r-1")));
        memory.claimed = true;
        memory.known_claim = ClaimNumber(7);
        memory.other.insert("newer".into(), 1.into());
        memory.store(&path).unwrap();
        let instance = home.instance().clone();
        drop(home);
        assert!(has_claimed(&path, &run("r-1")) && !has_claimed(&path, &run("r-2")));
        let again = Home::open(&path, &run("r-1")).unwrap();
        assert_eq!((again.instance(), again.run()), (&instance, &memory));
        assert!(again.notes().is_empty(), "{:?}", again.notes());
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(path.join("run.json")).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{again:?}").contains(memory.token.as_str()));
    }

    #[test]
    fn files_that_cannot_be_read_are_set_aside_and_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let first = Home::open(path, &run("r-1")).unwrap();
        let (token, instance) = (first.run().token.clone(), first.instance().clone());
        drop(first);
        fs::write(path.join("run.json"), "{\"run\":\"r-1\",\"tok").unwrap();
        fs::write(path.join("instance"), "").unwrap();
        let home = Home::open(path, &run("r-1")).unwrap();
        assert!(home.run().token != token && *home.instance() != instance);
        assert_eq!(home.notes().len(), 2, "{:?}", home.notes());
        for name in ["run.json", "instance"] {
            let aside = format!("{name}.broken-1");
            assert!(path.join(&aside).is_file() && home.notes().iter().any(|note| note.contains(&aside)));
        }
    }

    #[test]
    fn another_run_s_things_are_moved_aside_whole_also_after_a_crash_on_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        drop(Home::open(path, &run("r-1")).unwrap());
        fs::write(path.join("outbox/a.json"), "1").unwrap();
        fs::write(path.join("kept/b.json"), "2").unwrap();
        fs::write(path.join("child.json"), "{}").unwrap();
        // As a crash leaves it after the first part.
        fs::create_dir_all(path.join("runs/r-1")).unwrap();
        fs::rename(path.join("outbox"), path.join("runs/r-1/outbox")).unwrap();
        let home = Home::open(path, &run("r-2")).unwrap();
        assert_eq!(home.run().run, run("r-2"));
        for part in ["outbox/a.json", "kept/b.json", "run.json"] {
            assert!(path.join("runs/r-1").join(part).is_file(), "{part}");
        }
        assert!(path.join("child.json").is_file() && path.join("outbox").is_dir());
        assert!(
            home.notes()[0].contains("r-1") && home.notes()[0].contains("1 outcomes"),
            "{:?}",
            home.notes()
        );
        drop(home);
        // There and back again: nothing overwrites what lies there.
        drop(Home::open(path, &run("r-1")).unwrap());
        fs::write(path.join("outbox/c.json"), "3").unwrap();
        drop(Home::open(path, &run("r-2")).unwrap());
        assert!(
            path.join("runs/r-1/outbox/a.json").is_file() && path.join("runs/r-1/outbox.2/c.json").is_file()
        );
    }
}
