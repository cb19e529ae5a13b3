//! The files of the outbox. Everything here blocks: it runs on the I/O thread, or before the loop starts.

use std::path::{Path, PathBuf};

use groundcrew_durable::Error;
use groundcrew_durable::whole::{create_folder, read_bounded, remove};
use groundcrew_protocol::ids::{Attempt, RunId, Sha256Hex};
use groundcrew_protocol::limits::BODY_BYTES_MAX;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::ResultRequest;
use serde::{Deserialize, Serialize};

use crate::files::{move_durably, move_into, names_in, read_json, write_json};

/// An outcome is one message of the wire; escapes that a reader undoes may make it larger here.
const FILE_BYTES_MAX: u64 = 4 * BODY_BYTES_MAX as u64;
/// The encoded part of a file name; a name has at most 255 bytes.
const NAME_BYTES_MAX: usize = 120;
/// What of a longer name is kept, in front of its digest.
const NAME_HEAD_BYTES: usize = 80;

/// Which folder an outcome lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Outbox,
    Kept,
    Refused,
}

/// An outcome on the disk. The run is in it, so that a file that was copied or left over is never sent for
/// another run.
#[derive(Serialize, Deserialize)]
struct Outcome<R> {
    run: RunId,
    order: u64,
    result: R,
}

/// Where the outcomes of one run lie.
#[derive(Debug, Clone)]
pub(super) struct Store {
    home: PathBuf,
    run: RunId,
}

impl Store {
    pub(super) fn new(home: &Path, run: &RunId) -> Store {
        Store { home: home.to_owned(), run: run.clone() }
    }

    fn folder(&self, place: Place) -> PathBuf {
        self.home.join(match place {
            Place::Outbox => "outbox",
            Place::Kept => "kept",
            Place::Refused => "refused",
        })
    }

    fn path(&self, place: Place, stage: &Stage, attempt: Attempt) -> PathBuf {
        self.folder(place).join(file_name(stage, attempt))
    }

    /// Everything in a place with its order. What is broken is set aside, what is another run's moved to it.
    pub(super) fn read_all(
        &self,
        place: Place,
        notes: &mut Vec<String>,
    ) -> Result<Vec<(u64, ResultRequest)>, Error> {
        let mut found = Vec::new();
        for name in names_in(&self.folder(place))? {
            let path = self.folder(place).join(&name);
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let Some(outcome) = read_json::<Outcome<ResultRequest>>(&path, FILE_BYTES_MAX, notes)? else {
                continue;
            };
            if outcome.run == self.run {
                found.push((outcome.order, outcome.result));
                continue;
            }
            let folder = self.home.join("runs").join(outcome.run.as_str());
            create_folder(&folder, 0o700)?;
            let moved = move_into(&path, &folder)?;
            notes.push(format!("an outcome of run {} is now {}", outcome.run, moved.display()));
        }
        Ok(found)
    }

    pub(super) fn read(&self, stage: &Stage, attempt: Attempt) -> Result<Option<ResultRequest>, Error> {
        for place in [Place::Outbox, Place::Kept] {
            let path = self.path(place, stage, attempt);
            let Some(bytes) = read_bounded(&path, FILE_BYTES_MAX)? else { continue };
            let outcome = serde_json::from_slice::<Outcome<ResultRequest>>(&bytes);
            return outcome.map(|outcome| Some(outcome.result)).map_err(|source| Error::Malformed {
                path,
                found: "something else".to_owned(),
                expected: "the outcome that was written there",
                source: Some(source),
            });
        }
        Ok(None)
    }

    pub(super) fn write(&self, order: u64, result: &ResultRequest) -> Result<(), Error> {
        let path = self.path(Place::Outbox, &result.stage, result.attempt);
        write_json(&path, &Outcome { run: self.run.clone(), order, result })
    }

    /// Moves an outcome to `kept/`. Done already is done.
    pub(super) fn keep(&self, stage: &Stage, attempt: Attempt) -> Result<(), Error> {
        let from = self.path(Place::Outbox, stage, attempt);
        if !from.exists() {
            return Ok(());
        }
        move_durably(&from, &self.path(Place::Kept, stage, attempt))
    }

    /// Moves an outcome from `kept/` back, to be sent again. Done already is done.
    pub(super) fn offer(&self, stage: &Stage, attempt: Attempt) -> Result<(), Error> {
        let from = self.path(Place::Kept, stage, attempt);
        if !from.exists() {
            return Ok(());
        }
        move_durably(&from, &self.path(Place::Outbox, stage, attempt))
    }

    /// Writes the reason, then moves the outcome beside it.
    pub(super) fn refuse(&self, stage: &Stage, attempt: Attempt, why: &str) -> Result<(), Error> {
        let reason = self.path(Place::Refused, stage, attempt).with_extension("why.json");
        write_json(&reason, &serde_json::json!({"stage": stage, "attempt": attempt, "why": why}))?;
        for place in [Place::Outbox, Place::Kept] {
            let from = self.path(place, stage, attempt);
            if from.exists() {
                move_durably(&from, &self.path(Place::Refused, stage, attempt))?;
            }
        }
        Ok(())
    }

    pub(super) fn remove(&self, stage: &Stage, attempt: Attempt) -> Result<(), Error> {
        for place in [Place::Outbox, Place::Kept] {
            remove(&self.path(place, stage, attempt))?;
        }
        Ok(())
    }
}

/// A file name for a stage of any name: letters, digits and `_` stand for themselves, every other byte is
/// written as `%XX`. A long one ends with its digest instead of its tail.
fn file_name(stage: &Stage, attempt: Attempt) -> String {
    let text = stage.to_string();
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    if encoded.len() > NAME_BYTES_MAX {
        encoded.truncate(NAME_HEAD_BYTES);
        encoded.push('~');
        encoded.push_str(&Sha256Hex::of(text.as_bytes()).as_str()[..32]);
    }
    format!("{encoded}-{attempt}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_a_safe_name_of_its_own() {
        let long = "x".repeat(5000);
        let stages = [
            "Package:a/b",
            "Package:a%2Fb",
            "Package:../../etc/x",
            "Interrupt:a-1",
            "Interrupt:a",
            ".",
            "..",
            "",
            "ä\0\n",
            &long,
            &format!("{long}y"),
            "CPUStress",
        ];
        let names: Vec<String> =
            stages.iter().map(|stage| file_name(&Stage::from(*stage), Attempt(1))).collect();
        for name in &names {
            let safe = |b: u8| b.is_ascii_alphanumeric() || b"_%-~.".contains(&b);
            assert!(name.len() < 200 && name.bytes().all(safe), "{name}");
            assert!(!name.starts_with('.') && name.matches('.').count() == 1, "{name}");
        }
        let different: std::collections::HashSet<&String> = names.iter().collect();
        assert_eq!(different.len(), stages.len());
        assert_ne!(
            file_name(&Stage::from("Interrupt:a-1"), Attempt(2)),
            file_name(&Stage::from("Interrupt:a"), Attempt(12))
        );
    }
}
