//! What lies in a backup: every file with its size and hash.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use groundcrew_protocol::ids::{Generation, Sha256Hex};
use groundcrew_protocol::time::WallMs;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::StoreError;

/// Name of the manifest in a backup.
pub(super) const MANIFEST_FILE: &str = "manifest.json";
/// The form of backups that this version writes and reads.
pub(super) const FORMAT: u32 = 1;
/// A manifest of two million files; a larger one is not ours.
pub(super) const MANIFEST_BYTES_MAX: u64 = 512 << 20;
/// Bytes that are copied at a time.
const COPY_BYTES: usize = 256 * 1024;

/// The manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// When the backup was made.
    pub made: WallMs,
    /// Generation of the store that it was made of.
    pub generation: Generation,
    /// Every file but the manifest.
    pub files: Vec<Entry>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its path inside the backup.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its content.
    pub sha256: Sha256Hex,
}

impl Entry {
    /// The path, where it stays inside the backup.
    pub fn inner_path(&self) -> Option<PathBuf> {
        let path = PathBuf::from(&self.path);
        let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
        (inside && !self.path.is_empty()).then_some(path)
    }
}

/// Copies at most `bytes_max` bytes of a file to a new one, durably, and says what it was. The folders above are
/// made.
pub(super) fn copy(from: &Path, to: &Path, bytes_max: u64, name: &Path) -> Result<Entry, StoreError> {
    let source = File::open(from).map_err(StoreError::file("opening", from))?;
    let folder = to.parent().expect("a copy lies in a folder");
    std::fs::create_dir_all(folder).map_err(StoreError::file("making", folder))?;
    let mode = source.metadata().map_err(StoreError::file("reading", from))?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777;
    let target = OpenOptions::new().write(true).create_new(true).mode(mode).open(to);
    let mut target = target.map_err(StoreError::file("making", to))?;
    let (bytes, sha256) =
        pour(source.take(bytes_max), &mut target).map_err(StoreError::file("copying to", to))?;
    target.sync_all().map_err(StoreError::file("syncing", to))?;
    let path = name.to_str().ok_or_else(|| StoreError::Unreadable {
        what: format!("the name {name:?}"),
        why: "it is not UTF-8".into(),
    })?;
    Ok(Entry { path: path.to_owned(), bytes, sha256 })
}

/// Hashes a file where it lies, and makes it durable.
pub(super) fn hash(path: &Path, name: &str) -> Result<Entry, StoreError> {
    let file = File::open(path).map_err(StoreError::file("opening", path))?;
    let (bytes, sha256) = pour(&file, &mut io::sink()).map_err(StoreError::file("reading", path))?;
    file.sync_all().map_err(StoreError::file("syncing", path))?;
    Ok(Entry { path: name.to_owned(), bytes, sha256 })
}

fn pour(mut from: impl Read, to: &mut impl Write) -> io::Result<(u64, Sha256Hex)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut bytes = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok((bytes, Sha256Hex::from_digest(&hash.finalize()))),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
}

/// Makes the names in a folder and in all below it durable.
pub(super) fn sync_folders(folder: &Path) -> Result<(), StoreError> {
    for entry in std::fs::read_dir(folder).map_err(StoreError::file("reading", folder))? {
        let entry = entry.map_err(StoreError::file("reading", folder))?;
        if entry.file_type().map_err(StoreError::file("reading", folder))?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    sync_folder(folder)
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::file("syncing", folder))
}
