//! The files of artifacts. Everything here blocks: it runs on the I/O thread.

use std::fs;
use std::path::{Path, PathBuf};

use groundcrew_durable::whole::{Options, create_folder, read_bounded, remove, write_whole};
use groundcrew_durable::{Error, Result};
use groundcrew_protocol::ids::{Attempt, RunId};
use groundcrew_protocol::limits::{ARTIFACT_BYTES_MAX, ARTIFACTS_MAX};
use groundcrew_protocol::order;
use groundcrew_protocol::stage::Stage;
use serde::{Deserialize, Serialize};

use crate::files::{names_in, read_json, write_json};

/// What artifacts may take of the home altogether, in bytes. A live image has its home in memory.
pub const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What is said of one artifact: some hundred bytes.
const KNOWN_BYTES_MAX: u64 = 16 * 1024;

/// An artifact that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The run that it belongs to.
    pub run: RunId,
    /// The stage that made it.
    pub stage: Stage,
    /// The attempt of the stage.
    pub attempt: Attempt,
    /// Its name, as the stage gave it.
    pub name: String,
}

/// Where the artifacts of a home lie.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
    run: RunId,
}

impl Store {
    /// The artifacts of a run in a home.
    pub fn in_home(home: &Path, run: &RunId) -> Store {
        Store { folder: home.join("artifacts"), run: run.clone() }
    }

    /// Keeps one artifact of an attempt, durably. `Some` where it is over a limit and not kept: which.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn keep(
        &self,
        stage: &Stage,
        attempt: Attempt,
        name: &str,
        content: &[u8],
    ) -> Result<Option<String>> {
        create_folder(&self.folder, 0o700)?;
        let numbers = self.numbers()?;
        let (mut bytes, mut of_attempt) = (content.len() as u64, 0);
        for number in &numbers {
            bytes += fs::metadata(self.content(*number)).map_or(0, |found| found.len());
            let known = self.known(*number, &mut Vec::new())?;
            of_attempt += usize::from(known.is_some_and(|one| one.stage == *stage && one.attempt == attempt));
        }
        if content.len() > ARTIFACT_BYTES_MAX {
            return Ok(Some(format!("{} bytes, where {ARTIFACT_BYTES_MAX} is the limit", content.len())));
        }
        if of_attempt >= ARTIFACTS_MAX {
            return Ok(Some(format!("the attempt has {ARTIFACTS_MAX} already")));
        }
        if bytes > BYTES_MAX {
            return Ok(Some(format!(
                "all that wait would take {bytes} bytes, where {BYTES_MAX} is the limit"
            )));
        }
        let number = numbers.last().map_or(1, |last| last + 1);
        let known = Known { run: self.run.clone(), stage: stage.clone(), attempt, name: name.to_owned() };
        write_whole(&self.content(number), content, &Options::default())?;
        write_json(&self.meaning(number), &known)?;
        Ok(None)
    }

    /// The oldest artifact with its number and content; `None` where nothing waits. What cannot be understood is
    /// removed or set aside, which `notes` says.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn oldest(&self, notes: &mut Vec<String>) -> Result<Option<(u64, Known, Vec<u8>)>> {
        for number in self.numbers()? {
            let content = read_bounded(&self.content(number), ARTIFACT_BYTES_MAX as u64);
            let known = self.known(number, notes)?.filter(|known| known.run == self.run);
            match (known, content) {
                (Some(known), Ok(Some(content))) => return Ok(Some((number, known, content))),
                (_, Err(error @ Error::Io { .. })) => return Err(error),
                (known, _) => {
                    let what = known.map_or("something".to_owned(), |known| known.name);
                    notes.push(format!("artifact {number} ({what}) is not whole and is let go"));
                    self.remove(number)?;
                }
            }
        }
        Ok(None)
    }

    /// Lets an artifact go. Done already is done.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn remove(&self, number: u64) -> Result<()> {
        // The content last: by it an artifact is listed, and what a crash leaves of one is met again.
        remove(&self.meaning(number))?;
        remove(&self.content(number)).map(|_was_there| ())
    }

    fn known(&self, number: u64, notes: &mut Vec<String>) -> Result<Option<Known>> {
        read_json(&self.meaning(number), KNOWN_BYTES_MAX, notes)
    }

    fn content(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number}.bin"))
    }

    fn meaning(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number}.json"))
    }

    /// The numbers of what has a content, oldest first.
    fn numbers(&self) -> Result<Vec<u64>> {
        let names = names_in(&self.folder)?;
        let number = |name: std::ffi::OsString| name.to_str()?.strip_suffix(".bin")?.parse().ok();
        let mut numbers: Vec<u64> = names.into_iter().filter_map(number).collect();
        order::sort(&mut numbers);
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(home: &Path, run: &str) -> Store {
        Store::in_home(home, &run.parse().unwrap())
    }

    #[test]
    fn artifacts_come_back_oldest_first_and_leave_for_good() {
        let home = tempfile::tempdir().unwrap();
        let first = store(home.path(), "r-1");
        assert!(first.oldest(&mut Vec::new()).unwrap().is_none());
        for name in ["a", "b"] {
            assert_eq!(first.keep(&Stage::CpuStress, Attempt(2), name, name.as_bytes()).unwrap(), None);
        }
        let later = store(home.path(), "r-1");
        let (number, known, content) = later.oldest(&mut Vec::new()).unwrap().unwrap();
        assert_eq!((known.name.as_str(), known.attempt, content.as_slice()), ("a", Attempt(2), &b"a"[..]));
        later.remove(number).unwrap();
        later.remove(number).unwrap();
        assert_eq!(later.oldest(&mut Vec::new()).unwrap().unwrap().1.name, "b");
    }

    #[test]
    fn what_is_not_whole_or_another_runs_is_let_go_and_said() {
        let home = tempfile::tempdir().unwrap();
        let mine = store(home.path(), "r-1");
        store(home.path(), "r-2").keep(&Stage::Smart, Attempt(1), "theirs", b"x").unwrap();
        mine.keep(&Stage::Smart, Attempt(1), "mine", b"x").unwrap();
        std::fs::write(home.path().join("artifacts/1000.bin"), b"killed before its meaning was written")
            .unwrap();
        let mut notes = Vec::new();
        let (number, known, _) = mine.oldest(&mut notes).unwrap().unwrap();
        assert_eq!(known.name, "mine");
        mine.remove(number).unwrap();
        assert!(mine.oldest(&mut notes).unwrap().is_none());
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert_eq!(std::fs::read_dir(home.path().join("artifacts")).unwrap().count(), 0);
    }

    #[test]
    fn over_a_limit_nothing_is_kept_and_the_limit_is_named() {
        let home = tempfile::tempdir().unwrap();
        let store = store(home.path(), "r-1");
        let keep = |attempt, name: &str, bytes: &[u8]| {
            store.keep(&Stage::CpuStress, Attempt(attempt), name, bytes).unwrap()
        };
        let large = vec![7; ARTIFACT_BYTES_MAX + 1];
        assert!(keep(1, "large", &large).unwrap().contains("is the limit"));
        for number in 0..ARTIFACTS_MAX {
            assert_eq!(keep(1, &number.to_string(), b"x"), None);
        }
        assert!(keep(1, "one more", b"x").unwrap().contains("64 already"));
        for number in 0..3 {
            assert_eq!(keep(2, &number.to_string(), &large[1..]), None);
        }
        assert!(keep(2, "3", &large[1..]).unwrap().contains("all that wait"));
    }
}
