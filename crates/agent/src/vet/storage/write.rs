//! The file that the profile allows: written, read back by its checksums, removed.
//!
//! It is made anew under a name that nothing had before, so that nobody's file is ever written over.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::Instant;

use groundcrew_protocol::check::{Check, Observation};
use groundcrew_protocol::plan::names;

use super::fio::{Fio, Pattern};
use crate::vet::StageContext;

/// Room that stays free beside the file: a full file system stops whoever else writes to it.
const ROOM_BYTES_MIN: u64 = 256 << 20;

/// What came of the file.
pub(super) struct Written {
    pub check: Check,
    pub raw: Option<(String, Vec<u8>)>,
}

/// The file, gone with this.
struct OwnFile(PathBuf);

impl OwnFile {
    fn make(folder: &Path) -> Result<OwnFile, String> {
        let path = folder.join(format!(".groundcrew-storage-{}", std::process::id()));
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|error| format!("make the file {}: {error}", path.display()))?;
        Ok(OwnFile(path))
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        // What cannot be removed is named in the evidence; the next attempt would refuse the name.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writes the file and reads it back.
pub(super) fn run(context: &StageContext, folder: &str, mib: u64, deadline: Instant) -> Written {
    let of = |observed, evidence: String| {
        let limit = context.limit(names::FILE_ERRORS);
        Check::of(names::FILE_ERRORS, Some(folder), observed, limit).with_evidence(evidence)
    };
    let unreadable =
        |why: String| Written { check: of(Observation::Unreadable { why }, String::new()), raw: None };
    let path = context.root.path(folder);
    if let Err(why) = has_room(&path, mib) {
        return unreadable(why);
    }
    let file = match OwnFile::make(&path) {
        Ok(file) => file,
        Err(why) => return unreadable(why),
    };
    let fio = Fio { context, pattern: Pattern::File { mib }, file: &file.0, about: folder, deadline };
    let ran = fio.run();
    let observed = match &ran.load {
        Ok(load) if load.errors > 0 => Observation::measured(load.errors as f64, "errors"),
        Ok(load) if load.bytes >= (mib << 20) as f64 => Observation::measured(0.0, "errors"),
        Ok(load) => Observation::Unreadable {
            why: format!("only {} of {} bytes were written", load.bytes, mib << 20),
        },
        Err(why) => Observation::Unreadable { why: why.clone() },
    };
    Written {
        check: of(observed, ran.command),
        raw: ran.raw.map(|bytes| ("fio-file.json".to_owned(), bytes)),
    }
}

fn has_room(folder: &Path, mib: u64) -> Result<(), String> {
    let said = |error: rustix::io::Errno| format!("look at the folder {}: {error}", folder.display());
    let found = rustix::fs::statvfs(folder).map_err(said)?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let needed = (mib << 20) + ROOM_BYTES_MIN;
    match free >= needed {
        true => Ok(()),
        false => Err(format!(
            "{} has {} MiB free, expected {} MiB for the file and what is to stay free",
            folder.display(),
            free >> 20,
            needed >> 20
        )),
    }
}
