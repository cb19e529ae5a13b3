//! A tree listed before it is copied: every folder before what is in it, links as what they lead to.

use std::path::{Path, PathBuf};

use groundcrew_durable::kind_words;
use rustix::fs::{FileType, Stat};

use crate::package::rooted::{Error, Like, Result, Root};

/// Folders below each other that are copied.
const DEPTH_MAX: usize = 128;

/// Files and folders of one tree. A package with more is a mistake, such as a link to a whole system.
const ENTRIES_MAX: usize = 200_000;

/// A listed tree.
#[derive(Debug)]
pub(super) struct Listing {
    /// Where it lies in its root.
    pub(super) top: PathBuf,
    /// What the top itself is like.
    pub(super) top_like: Like,
    /// What is in it, by the path below the top.
    pub(super) entries: Vec<Entry>,
}

impl Listing {
    /// Bytes of all files: one that several links lead to is copied, and counts, as often.
    pub(super) fn bytes(&self) -> u64 {
        self.entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.bytes))
    }
}

/// A folder or file of a tree.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) below: PathBuf,
    pub(super) what: What,
    pub(super) like: Like,
    /// Of a file.
    pub(super) bytes: u64,
}

/// What is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Folder,
    File,
}

/// Lists the folder at `top` in `tree`, unless it is to stop. Refuses what cannot be copied, by name.
pub(super) fn list(tree: &Root, top: &Path, stop: &dyn Fn() -> bool) -> Result<Listing> {
    let shown = tree.host_path(top);
    let nothing = || Error::Kind { path: shown.clone(), found: "nothing", expected: "a folder" };
    let stat = tree.folder(top)?.ok_or_else(nothing)?.own_stat()?;
    let mut listing = Listing { top: top.to_owned(), top_like: Like::of(&stat), entries: Vec::new() };
    let mut above = vec![identity(&stat)];
    add_folder(tree, &mut listing, Path::new(""), &mut above, stop)?;
    Ok(listing)
}

/// Adds what is in a folder. `above` are the folders in which it lies, itself the last: a link to one of them would
/// never end.
fn add_folder(
    tree: &Root,
    listing: &mut Listing,
    below: &Path,
    above: &mut Vec<(u64, u64)>,
    stop: &dyn Fn() -> bool,
) -> Result<()> {
    for name in tree.names_in(&listing.top.join(below))? {
        let below = below.join(name);
        let path = listing.top.join(&below);
        let shown = || tree.host_path(&path);
        if stop() {
            return Err(Error::Stopped { path: shown() });
        }
        if listing.entries.len() >= ENTRIES_MAX {
            return Err(Error::TooMany { path: shown(), of_what: "files", limit: ENTRIES_MAX });
        }
        let refuse =
            |found| Error::Kind { path: shown(), found, expected: "a file, a folder, or a link to one" };
        let stat =
            tree.stat_followed(&path)?.ok_or_else(|| refuse("a symbolic link to nothing in its tree"))?;
        let like = Like::of(&stat);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let bytes = u64::try_from(stat.st_size).expect("no file has a negative size");
                listing.entries.push(Entry { below, what: What::File, like, bytes });
            }
            FileType::Directory => {
                if above.contains(&identity(&stat)) {
                    return Err(refuse("a symbolic link to a folder that holds it"));
                }
                if above.len() > DEPTH_MAX {
                    return Err(Error::TooMany {
                        path: shown(),
                        of_what: "folders in each other",
                        limit: DEPTH_MAX,
                    });
                }
                listing.entries.push(Entry { below: below.clone(), what: What::Folder, like, bytes: 0 });
                above.push(identity(&stat));
                add_folder(tree, listing, &below, above, stop)?;
                above.pop();
            }
            other @ (FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown) => return Err(refuse(kind_words(other))),
        }
    }
    Ok(())
}

fn identity(stat: &Stat) -> (u64, u64) {
    #[allow(clippy::unnecessary_cast, reason = "the width of these fields depends on the target")]
    (stat.st_dev as u64, stat.st_ino as u64)
}
