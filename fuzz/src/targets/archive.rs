//! The archive of a package: whatever it holds, what is handed on stays below one folder.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use groundcrew_archive::{Sink, read};
use tar::{EntryType, Header};

/// More than an input can hold unpacked many times over, and little enough that the limit is met.
const BYTES_MAX: u64 = 1 << 20;

/// Tries one input: as an archive, and as a list of entries of which one is made, since no search finds the checksum
/// of a tar header.
pub fn check(bytes: &[u8]) {
    unpacked(bytes);
    unpacked(&packed(bytes));
}

fn unpacked(archive: &[u8]) {
    let mut shelf = Shelf::default();
    let outcome = read(archive, BYTES_MAX, &mut shelf);
    assert!(shelf.bytes <= BYTES_MAX, "{} bytes were handed on", shelf.bytes);
    if let Ok(content) = outcome {
        assert_eq!(content.bytes, shelf.bytes);
    }
    for (path, target) in &shelf.links {
        assert!(stays_below(path.parent().unwrap_or(Path::new("")), target), "{path:?} leads to {target:?}");
    }
}

/// Takes everything, and holds each entry against the rules.
#[derive(Default)]
struct Shelf {
    bytes: u64,
    files: BTreeMap<PathBuf, u64>,
    links: BTreeMap<PathBuf, PathBuf>,
}

impl Shelf {
    /// A place for something that is no folder.
    fn place(&mut self, path: &Path, bytes: u64) {
        self.below(path);
        self.bytes += bytes;
        let taken = self.files.insert(path.to_owned(), bytes).is_some() || self.links.contains_key(path);
        assert!(!taken, "{path:?} was handed on twice");
    }

    fn below(&self, path: &Path) {
        assert!(stays_below(Path::new(""), path) && path != Path::new(""), "{path:?} leads out");
        for above in path.ancestors().skip(1) {
            let taken = self.files.contains_key(above) || self.links.contains_key(above);
            assert!(!taken, "{path:?} goes through {above:?}, which is no folder");
        }
    }
}

impl Sink for Shelf {
    fn folder(&mut self, path: &Path) -> io::Result<()> {
        self.below(path);
        Ok(())
    }

    fn file(&mut self, path: &Path, _mode: u32, _bytes: u64, content: &mut dyn Read) -> io::Result<()> {
        let bytes = io::copy(content, &mut io::sink())?;
        self.place(path, bytes);
        Ok(())
    }

    fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        self.below(path);
        let taken = self.files.contains_key(path) || self.links.contains_key(path);
        assert!(!taken, "{path:?} was handed on twice");
        self.links.insert(path.to_owned(), target.to_owned());
        Ok(())
    }

    fn hard_link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        let bytes = self.files.get(target).copied();
        self.place(
            path,
            bytes.unwrap_or_else(|| panic!("{path:?} is another name of {target:?}, which is no file")),
        );
        Ok(())
    }
}

/// Whether a path that is followed from a folder stays below the top.
fn stays_below(folder: &Path, path: &Path) -> bool {
    let below = folder.join(path).components().try_fold(0_usize, |depth, part| match part {
        Component::CurDir => Some(depth),
        Component::Normal(_name) => Some(depth + 1),
        Component::ParentDir => depth.checked_sub(1),
        Component::RootDir | Component::Prefix(_) => None,
    });
    below.is_some()
}

/// An archive with an entry for each line: its kind, its path, and behind a tab the target of a link.
fn packed(lines: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some((kind, names)) = line.split_first() else { continue };
        let mut names = names.splitn(2, |byte| *byte == b'\t');
        let (path, target) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::new(*kind));
        header.set_mode(0o644);
        header.set_size(0);
        let old = header.as_old_mut();
        for (field, name) in [(&mut old.name, path), (&mut old.linkname, target)] {
            let name = &name[..name.len().min(field.len())];
            field[..name.len()].copy_from_slice(name);
        }
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
    }
    archive.extend_from_slice(&[0; 1024]);
    archive
}
