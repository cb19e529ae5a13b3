//! A listed tree put into its place.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use groundcrew_durable::kind_words;
use rustix::fs::FileType;

use super::listing::{Entry, Listing, What};
use super::{Bounds, folder_and_name};
use crate::package::places::{NAME_BYTES_MAX, shortened};
use crate::package::rooted::{Error, Folder, Like, Link, Result, Root};

/// In front of the name under which a package is built before it has its own.
const BUILDING_PREFIX: &str = ".groundcrew-copy-";

/// Bytes that are compared at a time.
const COMPARE_BYTES: usize = 64 << 10;

/// The mode of a folder while it is filled: nobody else looks in.
const BUILDING_MODE: u32 = 0o700;

/// Builds a copy of `trees`, the later over the earlier, beside `path` in `root`, and gives it that name when all of
/// it is on the disk. What an earlier call left half built is removed first, and what this one builds where it fails.
pub(super) fn build_beside(
    root: &Root,
    path: &Path,
    trees: &[(Root, Listing)],
    bounds: &Bounds<'_>,
) -> Result<()> {
    let (folder, name) = folder_and_name(root, &without_end_slash(path))?;
    let mut building = OsString::from(BUILDING_PREFIX);
    building.push(&name);
    let building = shortened(&building, NAME_BYTES_MAX);
    let built = start_building(&folder, &building)?;
    if let Err(error) = build(&built, &folder, trees, bounds) {
        // What led here matters, not this one: what cannot be removed now, the next call removes.
        let _removed_later = folder.remove_tree(&building);
        return Err(error);
    }
    folder.rename(&building, &name)?;
    folder.sync()
}

fn build(built: &Folder, in_folder: &Folder, trees: &[(Root, Listing)], bounds: &Bounds<'_>) -> Result<()> {
    let bytes = trees.iter().fold(0_u64, |sum, (_, listing)| sum.saturating_add(listing.bytes()));
    expect_room(in_folder, bytes, bounds)?;
    for (tree, listing) in trees {
        let target = Root::of_folder(built)?;
        place(&target, Path::new("/"), tree, listing, bounds)?;
    }
    let (_, first) = &trees[0];
    built.finish(&first.top_like)
}

/// Refuses to copy so many bytes into a folder whose file system has no room for them.
pub(super) fn expect_room(folder: &Folder, wanted: u64, bounds: &Bounds<'_>) -> Result<()> {
    let least = bounds.free_bytes_least;
    match folder.free_bytes()? {
        Some(free) if free < wanted.saturating_add(least) => {
            Err(Error::NoRoom { path: folder.path().to_owned(), free, wanted, least })
        }
        Some(_) | None => Ok(()),
    }
}

/// Refuses entries, by their paths from the root, in whose places stands what they could not be put over.
pub(super) fn expect_places<'a>(
    target: &Root,
    entries: impl IntoIterator<Item = (&'a Path, What)>,
    bounds: &Bounds<'_>,
) -> Result<()> {
    for (path, what) in entries {
        let to = Path::new("/").join(path);
        if (bounds.stop)() {
            return Err(Error::Stopped { path: target.host_path(&to) });
        }
        let (kind, expected) = match what {
            What::Folder => (FileType::Directory, "a folder"),
            What::File => (FileType::RegularFile, "a regular file"),
        };
        if let Some(found) = target.metadata(&to, Link::Follow)?
            && found.kind != kind
        {
            return Err(Error::Kind { path: target.host_path(&to), found: kind_words(found.kind), expected });
        }
    }
    Ok(())
}

/// A slash at the end would ask for a folder that is there.
fn without_end_slash(path: &Path) -> PathBuf {
    path.components().collect()
}

/// Makes the empty folder in which a copy is built, and takes its lock: one that a killed process left is unlocked,
/// and is removed.
fn start_building(folder: &Folder, building: &OsStr) -> Result<Folder> {
    let busy = || Error::Busy { path: folder.path().join(building) };
    if !remove_half_built(folder, building)? {
        return Err(busy());
    }
    let built = folder.make_folder(building, BUILDING_MODE)?.ok_or_else(busy)?;
    if !built.try_lock()? {
        return Err(busy());
    }
    Ok(built)
}

/// Of which copy this is the name while it is built, or how that begins where it is a long one; `None` where it is none of a
/// copy that is being built.
pub(crate) fn built_copy(name: &OsStr) -> Option<&OsStr> {
    name.as_bytes().strip_prefix(BUILDING_PREFIX.as_bytes()).map(OsStr::from_bytes)
}

/// Removes what a killed process has left of a copy that it was building. False where a living one builds it.
pub(crate) fn remove_half_built(folder: &Folder, building: &OsStr) -> Result<bool> {
    let Some(left) = folder.open_folder(building)? else { return Ok(true) };
    if !left.try_lock()? {
        return Ok(false);
    }
    folder.remove_tree(building)?;
    Ok(true)
}

/// Copies a listed tree of `source` onto what stands at `top` in `target`. Folders that are there stay as they are,
/// files are replaced whole. Every name is on the disk when this returns, also where an earlier call that was killed has put it
/// there.
pub(super) fn place(
    target: &Root,
    top: &Path,
    source: &Root,
    listing: &Listing,
    bounds: &Bounds<'_>,
) -> Result<()> {
    // Folders with entries, to be synced once each, and whether names changed in them; and folders that are new. Kept as paths,
    // which are followed again at the end: a package may have more folders than a process has descriptors.
    let mut filled: BTreeMap<PathBuf, bool> = BTreeMap::new();
    let mut made: Vec<(PathBuf, Like)> = Vec::new();
    for entry in &listing.entries {
        let to = top.join(&entry.below);
        if (bounds.stop)() {
            return Err(Error::Stopped { path: target.host_path(&to) });
        }
        let is_new = match entry.what {
            What::Folder => place_folder(target, &to, &entry.like)?,
            What::File => place_file(target, &to, source, &listing.top.join(&entry.below), entry, bounds)?,
        };
        let above = to.parent().expect("an entry lies below the top");
        match filled.get_mut(above) {
            Some(changed) => *changed |= is_new,
            None => drop(filled.insert(above.to_owned(), is_new)),
        }
        if is_new && entry.what == What::Folder {
            made.push((to, entry.like));
        }
    }
    for (path, changed) in &filled {
        let folder = folder_at(target, path)?;
        // Where nothing changed too: a call that was killed may have put these names there, and not have come to this.
        folder.sync()?;
        if *changed {
            // A killed call came no further than to a folder in which this one had something left to do.
            folder.sweep()?;
        }
    }
    // What is put into a folder changes its time, so the times come last.
    for (path, like) in made.iter().rev() {
        let folder = folder_at(target, path)?;
        folder.set_changed(like)?;
        folder.sync()?;
    }
    Ok(())
}

fn folder_at(target: &Root, path: &Path) -> Result<Folder> {
    let gone =
        || Error::Kind { path: target.host_path(path), found: "nothing any more", expected: "a folder" };
    target.folder(path)?.ok_or_else(gone)
}

/// Makes a folder where there is none. Says whether it did.
fn place_folder(target: &Root, to: &Path, like: &Like) -> Result<bool> {
    if target.folder(to)?.is_some() {
        return Ok(false);
    }
    let (above, name) = folder_and_name(target, to)?;
    Ok(above.make_folder(&name, like.mode)?.is_some())
}

/// Puts a file in its place unless what stands there is just like it. Says whether it did.
fn place_file(
    target: &Root,
    to: &Path,
    source: &Root,
    from: &Path,
    entry: &Entry,
    bounds: &Bounds<'_>,
) -> Result<bool> {
    let shown = source.host_path(from);
    let gone = || Error::Kind { path: shown.clone(), found: "nothing any more", expected: "a regular file" };
    let mut file = source.open_file(from)?.ok_or_else(gone)?;
    let place = target.target(to)?;
    if let Some(stat) = &place.stat
        && Like::of(stat) == entry.like
        && let Some(standing) = target.open_file(to)?
        && same_content(&mut file, standing, bounds.stop)
            .map_err(Error::io("comparing with what stands", &shown))?
    {
        return Ok(false);
    }
    file.rewind().map_err(Error::io("reading", &shown))?;
    // What it takes the place of stands until all of it is there.
    expect_room(&place.folder, entry.bytes, bounds)?;
    place.folder.install(&place.name, &mut file, &entry.like, bounds.stop)?;
    Ok(true)
}

/// False too where it is to stop: nothing is done then to what differs.
fn same_content(one: &mut File, mut other: File, stop: &dyn Fn() -> bool) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut ours, mut theirs) = (vec![0; COMPARE_BYTES], vec![0; COMPARE_BYTES]);
    loop {
        if stop() {
            return Ok(false);
        }
        let read = one.read(&mut ours)?;
        if read == 0 {
            // Nothing may be left of the other either, should it have grown meanwhile.
            return Ok(other.read(&mut theirs)? == 0);
        }
        match other.read_exact(&mut theirs[..read]) {
            Ok(()) if ours[..read] == theirs[..read] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
