//! The log files of steps and interrupts: `{path}-{UTC %Y-%m-%d-%H%M%S}.log`, and `.log.err` beside it.
//!
//! Two runs of one step never share a file. The first of a second has the reference's exact name; the next takes the
//! second after the newest log of that step, so that names stay of one form and sort by age. A file that exists is
//! never opened. Cleaning up keeps the five newest runs of exactly one step, a run being a log, its `.err`, or both.
//!
//! A folder is listed once in a process: ten thousand steps that each list the folder that they fill would take
//! minutes. Calls for one package and version take turns, so nobody else writes there meanwhile.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::places::{NAME_BYTES_MAX, below, require_step_path, shortened};
use super::rooted::{Error, Result, Root};

/// Runs of a step whose logs are kept, the current one among them.
const RUNS_MAX: usize = 5;

/// Bytes of a stamp, which is how the time stands in a name: `2026-11-20-194122`.
const STAMP_BYTES: usize = 17;

/// Behind a name with its stamp: the longer of the two endings.
const ENDING_BYTES_MAX: usize = ".log.err".len();

/// Logs that lie ahead of the clock by less than this were given the next free second; by more, the clock was wrong
/// when they were made, and the present time is better.
const AHEAD_S_MAX: i64 = 3600;

/// Names that are tried for a run. All but the first were taken by files that are not known, such as a folder.
const NAMES_MAX: i64 = 64;

/// A second in UTC, as a log's name carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp(i64);

/// The logs of one package and version.
#[derive(Debug)]
pub struct Logs<'a> {
    root: &'a Root,
    folder: PathBuf,
    /// Of each folder that a step has named: the steps that have logs there, with the stamps of their runs.
    known: BTreeMap<PathBuf, BTreeMap<OsString, BTreeSet<Stamp>>>,
}

/// The two open files of a run.
#[derive(Debug)]
pub struct LogFiles {
    /// For what the step writes to stdout.
    pub out: File,
    /// For what it writes to stderr.
    pub err: File,
    /// The path of `out` inside the root; that of `err` ends in `.err` besides.
    pub path: PathBuf,
    run: Run,
}

/// Which step in which folder a run belongs to, and its stamp.
#[derive(Debug)]
struct Run {
    step: StepLogs,
    stamp: Stamp,
}

/// The folder of a step's logs and the beginning of their names.
#[derive(Debug, Clone)]
struct StepLogs {
    folder: PathBuf,
    name: OsString,
}

impl<'a> Logs<'a> {
    /// The logs in `folder`, a path inside the root.
    pub fn new(root: &'a Root, folder: &Path) -> Self {
        Self { root, folder: folder.to_owned(), known: BTreeMap::new() }
    }

    /// Makes the two files of a run of `step_path` (or `interrupts/{interrupt}_{number}`) that starts `now`. On an
    /// error neither exists, and the run can go on without them.
    pub fn create(&mut self, step_path: &str, now: Timestamp) -> Result<LogFiles> {
        let step = self.step(step_path)?;
        let (root, stamps) = (self.root, self.stamps(&step)?);
        let now = now.as_second();
        let newest = stamps.last().map(|stamp| stamp.0).filter(|newest| newest - now < AHEAD_S_MAX);
        let first = newest.map_or(now, |newest| now.max(newest + 1));
        for second in first..first + NAMES_MAX {
            let stamp = Stamp(second);
            let path = step.file(stamp, ".log");
            if let Some((out, err)) = create_pair(root, &path, &step.file(stamp, ".log.err"))? {
                stamps.insert(stamp);
                return Ok(LogFiles { out, err, path, run: Run { step, stamp } });
            }
        }
        let taken = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        Err(Error::io("finding a free log name for", &root.host_path(&step.file(Stamp(first), ".log")))(
            taken,
        ))
    }

    /// Removes the logs of the oldest runs of `of`'s step, so that it and the four newest others stay.
    pub fn clean(&mut self, of: &LogFiles) -> Result<()> {
        let Run { step, stamp: current } = &of.run;
        let (root, stamps) = (self.root, self.stamps(step)?);
        let others = stamps.iter().rev().filter(|stamp| *stamp != current);
        let old: Vec<Stamp> = others.skip(RUNS_MAX - 1).copied().collect();
        for stamp in old {
            for ending in [".log", ".log.err"] {
                root.remove_lazily(&step.file(stamp, ending))?;
            }
            stamps.remove(&stamp);
        }
        Ok(())
    }

    fn step(&self, step_path: &str) -> Result<StepLogs> {
        require_step_path(step_path)?;
        let (above, name) = step_path.rsplit_once('/').unwrap_or(("", step_path));
        let names: Vec<String> = above
            .split('/')
            .filter(|name| !matches!(*name, "" | "."))
            .map(|name| {
                shortened(OsStr::new(name), NAME_BYTES_MAX).into_string().expect("cut between characters")
            })
            .collect();
        let folder = below(&self.folder, &names.iter().map(String::as_str).collect::<Vec<_>>());
        let room = NAME_BYTES_MAX - "-".len() - STAMP_BYTES - ENDING_BYTES_MAX;
        Ok(StepLogs { folder, name: shortened(OsStr::new(name), room) })
    }

    /// The stamps of the runs of a step that have logs.
    fn stamps(&mut self, step: &StepLogs) -> Result<&mut BTreeSet<Stamp>> {
        let folder = match self.known.entry(step.folder.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(list(self.root, &step.folder)?),
        };
        Ok(folder.entry(step.name.clone()).or_default())
    }
}

impl StepLogs {
    fn file(&self, stamp: Stamp, ending: &str) -> PathBuf {
        let mut path = self.folder.clone().into_os_string();
        path.push("/");
        path.push(&self.name);
        path.push(format!("-{}{ending}", stamp.text()));
        PathBuf::from(path)
    }
}

impl Stamp {
    fn text(self) -> String {
        let time = Timestamp::from_second(self.0).unwrap_or(Timestamp::MAX);
        let time = TimeZone::UTC.to_datetime(time);
        format!("{}-{:02}{:02}{:02}", time.date(), time.hour(), time.minute(), time.second())
    }

    /// `None` for what is not exactly how a stamp is written.
    fn parse(text: &str) -> Option<Self> {
        let part = |range| text.get(range);
        let (date, hour) = (part(0..10)?, part(11..13)?);
        let (minute, second) = (part(13..15)?, part(15..17)?);
        let time: DateTime = format!("{date}T{hour}:{minute}:{second}").parse().ok()?;
        let stamp = Self(TimeZone::UTC.to_timestamp(time).ok()?.as_second());
        (stamp.text() == text).then_some(stamp)
    }
}

/// The step and stamp in a log's name.
fn parse_name(name: &OsStr) -> Option<(OsString, Stamp)> {
    let bytes = name.as_bytes();
    let bytes = bytes.strip_suffix(b".err").unwrap_or(bytes).strip_suffix(b".log")?;
    let (step, stamp) = bytes.split_at_checked(bytes.len().checked_sub(STAMP_BYTES)?)?;
    let step = step.strip_suffix(b"-")?;
    let stamp = Stamp::parse(std::str::from_utf8(stamp).ok()?)?;
    Some((OsStr::from_bytes(step).to_owned(), stamp))
}

fn list(root: &Root, folder: &Path) -> Result<BTreeMap<OsString, BTreeSet<Stamp>>> {
    let mut steps: BTreeMap<OsString, BTreeSet<Stamp>> = BTreeMap::new();
    for name in root.names_in(folder)? {
        if let Some((step, stamp)) = parse_name(&name) {
            steps.entry(step).or_default().insert(stamp);
        }
    }
    Ok(steps)
}

/// Both files of a run, or neither: `None` where one of the names is taken.
fn create_pair(root: &Root, out_path: &Path, err_path: &Path) -> Result<Option<(File, File)>> {
    let Some(out) = root.create_new(out_path)? else { return Ok(None) };
    match root.create_new(err_path) {
        Ok(Some(err)) => Ok(Some((out, err))),
        Ok(None) => root.remove_lazily(out_path).map(|_| None),
        Err(error) => {
            // What prevented the second file is the answer, also where the first cannot be removed either.
            let _less_important = root.remove_lazily(out_path);
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests;
