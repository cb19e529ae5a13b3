//! From the bytes of an archive to its entries.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};

use crate::error::Error;
use crate::meter::{Meter, Metered};
use crate::tree::{Facts, Kind, Take, Tree};

/// What a form is told by: more than the longest mark, which stands in a tar archive's first block.
const HEAD_BYTES: u64 = 512;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// Where a tar archive says that it is one, in POSIX's form and in GNU's.
const USTAR_AT: usize = 257;
const USTAR: &[u8] = b"ustar";
/// Bytes of what stands before an entry's content: its headers, with long names and extended attributes.
const HEADERS_BYTES_MAX: u64 = 256 * 1024;
/// Headers that hold for the whole archive: git archive writes one, and each archive that was put behind another its own.
const GLOBALS_MAX: u64 = 16;
/// What may follow the mark of the end: zeros up to a whole tape record, and as much again.
const TRAILER_BYTES_MAX: u64 = 1 << 20;
/// Memory for what zstd looks back to, as a power of two: 32 MiB. Its levels up to 19 use 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;
/// Keys of a file with holes, in the form in which its entry looks like a plain one.
const SPARSE_KEYS: &str = "GNU.sparse.";

/// Takes what an archive holds, entry by entry. Folders above a path may be missing.
pub trait Sink {
    /// A folder; it may be there.
    ///
    /// # Errors
    /// Why it cannot be placed, as of every function here.
    fn folder(&mut self, path: &Path) -> io::Result<()>;
    /// A file. What is not read of the content is passed over.
    ///
    /// # Errors
    /// See there.
    fn file(&mut self, path: &Path, mode: u32, bytes: u64, content: &mut dyn Read) -> io::Result<()>;
    /// A symbolic link.
    ///
    /// # Errors
    /// See there.
    fn link(&mut self, path: &Path, target: &Path) -> io::Result<()>;
    /// Another name of the file at `target`.
    ///
    /// # Errors
    /// See there.
    fn hard_link(&mut self, path: &Path, target: &Path) -> io::Result<()>;
}

/// What an archive held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Content {
    /// Its entries.
    pub entries: usize,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Reads an archive to its end and hands what it holds to the sink: at most `bytes_max` bytes of files.
///
/// # Errors
/// [`Error`], at the first thing that is wrong.
pub fn read(mut source: impl Read, bytes_max: u64, sink: &mut dyn Sink) -> Result<Content, Error> {
    let unreadable = |source| Error::Unreadable { entries: 0, source };
    let mut head = Vec::new();
    source.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(unreadable)?;
    let is_tar = head.get(USTAR_AT..).is_some_and(|rest| rest.starts_with(USTAR));
    let form = (head.starts_with(GZIP), head.starts_with(ZSTD), is_tar);
    let whole = BufReader::new(Cursor::new(head).chain(source));
    match form {
        (true, _, _) => read_tar(MultiGzDecoder::new(whole), bytes_max, sink),
        (_, true, _) => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole).map_err(unreadable)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(unreadable)?;
            read_tar(decoder, bytes_max, sink)
        }
        (_, _, true) => read_tar(whole, bytes_max, sink),
        (false, false, false) => Err(Error::Form),
    }
}

fn read_tar(from: impl Read, bytes_max: u64, sink: &mut dyn Sink) -> Result<Content, Error> {
    let meter = Meter::default();
    let mut archive = Archive::new(Metered { from, meter: meter.clone() });
    let mut walk =
        Walk { tree: Tree::default(), meter, bytes: 0, bytes_max, sizes: BTreeMap::new(), globals: 0, sink };
    let failed = |source| Error::Unreadable { entries: 0, source };
    let mut entries = archive.entries().map_err(failed)?;
    loop {
        walk.meter.allow(HEADERS_BYTES_MAX);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(|error| walk.unreadable(error))?;
        walk.take(&mut entry)?;
    }
    if walk.meter.is_at_end() {
        return Err(Error::CutShort { entries: walk.tree.entries() });
    }
    // To the very end, where gzip and zstd have their checksums.
    walk.meter.allow(TRAILER_BYTES_MAX);
    let drained = io::copy(&mut archive.into_inner(), &mut io::sink());
    drained.map_err(|error| walk.unreadable(error))?;
    Ok(Content { entries: walk.tree.entries(), bytes: walk.bytes })
}

/// What is known of an archive while it is read.
struct Walk<'s> {
    tree: Tree,
    meter: Meter,
    /// Bytes of files, of which each name counts.
    bytes: u64,
    bytes_max: u64,
    /// Of each file.
    sizes: BTreeMap<PathBuf, u64>,
    globals: u64,
    sink: &'s mut dyn Sink,
}

impl Walk<'_> {
    fn unreadable(&self, source: io::Error) -> Error {
        if self.meter.is_over() {
            return Error::TooMuch {
                found: "longer headers, or more behind the end",
                most: HEADERS_BYTES_MAX,
            };
        }
        Error::Unreadable { entries: self.tree.entries(), source }
    }

    fn take(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), Error> {
        // What it says holds for nothing that matters here: a commit's name, as git archive writes it.
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            self.globals += 1;
            if self.globals > GLOBALS_MAX {
                return Err(Error::TooMuch {
                    found: "more global headers",
                    most: GLOBALS_MAX * HEADERS_BYTES_MAX,
                });
            }
            return io::copy(entry, &mut io::sink()).map(drop).map_err(|error| self.unreadable(error));
        }
        let facts = facts(entry).map_err(|error| self.unreadable(error))?;
        let bytes = entry.size();
        let take = self.tree.take(&facts)?;
        // Another name of a file counts like a copy, which it becomes once somebody copies what was unpacked.
        let counted = match &take {
            Take::HardLink(_, target) => self.sizes.get(target).copied().unwrap_or(0),
            Take::Top | Take::Folder(_) | Take::File(..) | Take::Link(..) => bytes,
        };
        if let Take::File(path, _) | Take::HardLink(path, _) = &take {
            self.sizes.insert(path.clone(), counted);
        }
        self.bytes = self.bytes.saturating_add(counted);
        if self.bytes > self.bytes_max {
            return Err(Error::TooMuch { found: "more bytes in its files", most: self.bytes_max });
        }
        self.meter.allow(bytes);
        let placed = match &take {
            Take::Top => Ok(()),
            Take::Folder(path) => self.sink.folder(path),
            Take::File(path, mode) => self.sink.file(path, *mode, bytes, entry),
            Take::Link(path, target) => self.sink.link(path, target),
            Take::HardLink(path, target) => self.sink.hard_link(path, target),
        };
        if let Err(source) = placed {
            let path = match take {
                Take::Top => PathBuf::new(),
                Take::Folder(path) | Take::File(path, _) | Take::Link(path, _) | Take::HardLink(path, _) => {
                    path
                }
            };
            return Err(Error::Placing { path, source });
        }
        io::copy(entry, &mut io::sink()).map(drop).map_err(|error| self.unreadable(error))
    }
}

fn facts(entry: &mut Entry<'_, impl Read>) -> io::Result<Facts> {
    let mut has_holes = false;
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        has_holes |= extension?.key_bytes().starts_with(SPARSE_KEYS.as_bytes());
    }
    let path = entry.path_bytes().into_owned();
    let kind = match entry.header().entry_type() {
        _ if has_holes => Kind::Other("a file with holes"),
        // As archives were written before there was a type for folders.
        EntryType::Regular if path.ends_with(b"/") => Kind::Folder,
        EntryType::Regular => Kind::File,
        EntryType::Directory => Kind::Folder,
        EntryType::Symlink => Kind::Link,
        EntryType::Link => Kind::HardLink,
        EntryType::GNUSparse => Kind::Other("a file with holes"),
        EntryType::Char | EntryType::Block => Kind::Other("a device"),
        EntryType::Fifo => Kind::Other("a fifo"),
        // The types of other tools: none that a package needs.
        _other => Kind::Other("an entry of a type that is not known here"),
    };
    Ok(Facts {
        kind,
        path,
        mode: entry.header().mode()?,
        target: entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
