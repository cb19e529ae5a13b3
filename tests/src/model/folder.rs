//! The folders of spools: in memory where the machine has a file system there, so that a sync costs nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::random::Random;

/// Where files live in memory on Linux.
const MEMORY: &str = "/dev/shm";

/// A folder that goes with its owner.
pub fn make() -> tempfile::TempDir {
    let made = if Path::new(MEMORY).is_dir() { tempfile::tempdir_in(MEMORY) } else { tempfile::tempdir() };
    made.expect("a folder for the model's spools")
}

/// Copies a spool: streams with their files.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder for a copied spool");
    for entry in fs::read_dir(from).into_iter().flatten() {
        let entry = entry.expect("a name in a spool");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy of a spool's file");
        }
    }
}

/// How long each segment of a spool is.
pub fn lengths(spool: &Path) -> BTreeMap<PathBuf, u64> {
    let files =
        |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path());
    let streams = fs::read_dir(spool).into_iter().flatten().flatten().map(|stream| stream.path());
    let segments =
        streams.flat_map(files).filter(|path| path.extension().is_some_and(|ending| ending == "rec"));
    let length = |path: PathBuf| Some((path.clone(), path.metadata().ok()?.len()));
    segments.filter_map(length).collect()
}

/// A power cut: of what was not synced any part is gone, from the end. One part for all files, since their names,
/// and so their order, are not of the seed.
pub fn cut(spool: &Path, synced: &BTreeMap<PathBuf, u64>, random: &mut Random) {
    let kept_per_mille = random.below(1_001);
    for (path, length) in lengths(spool) {
        let kept = synced.get(&path).copied().unwrap_or(0).min(length);
        let left = kept + (length - kept) * kept_per_mille / 1_000;
        let file = fs::OpenOptions::new().write(true).open(&path).expect("a segment of a spool");
        file.set_len(left).expect("a segment can be cut");
    }
}
