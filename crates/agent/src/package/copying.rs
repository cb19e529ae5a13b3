//! What is copied beneath the root mount before any step runs: the package itself, its `root_dir`, and the container's
//! resolv.conf.
//!
//! A tree is listed wholly before anything of it is copied, so that what cannot be copied (a fifo, a device, a link to
//! nothing or out of the tree) is refused while everything still is as it was. Links are copied as what they lead to,
//! as the reference does. Every file arrives whole, with mode and time of its source, or not at all; the package as a
//! whole arrives under its name only when all of it is on the disk.

mod listing;
mod placing;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use super::places::below;
use super::rooted::{Error, Folder, Link, Result, Root};
use listing::{Listing, What};
pub(crate) use placing::{built_copy, remove_half_built};

/// What operators before the present one left on a node for its packages: copied over a package that is delivered.
pub const NODE_FILES: &str = "/etc/nvidia-bootstrap/node-files/";

/// The container's own resolv.conf, and that of the root mount.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What of a package is copied onto the root itself.
const ROOT_DIR: &str = "root_dir";

/// The mode of a resolv.conf that is made.
const RESOLV_MODE: u32 = 0o644;

/// More than any resolver reads.
const RESOLV_BYTES_MAX: u64 = 1 << 20;

/// What bounds a copy.
#[derive(Clone, Copy)]
pub struct Bounds<'a> {
    /// Asked between any two reads: whether to end, which leaves no file half written.
    pub stop: &'a dyn Fn() -> bool,
    /// What stays free beside the copy, in bytes.
    pub free_bytes_least: u64,
}

/// A copy that nobody ends, and that may take all there is.
pub(crate) const UNBOUNDED: Bounds<'static> = Bounds { stop: &|| false, free_bytes_least: 0 };

/// A package that is to be copied to its place, listed wholly: nothing in it is of a kind that cannot be copied.
pub struct Delivery {
    /// The package, and what lies on the node for it, which goes over it.
    trees: Vec<(Root, Listing)>,
}

impl Delivery {
    /// Lists the package in `data`, and `node_files` where that folder exists.
    pub fn list(data: &Path, node_files: &Path, bounds: &Bounds<'_>) -> Result<Delivery> {
        let mut trees = vec![tree_at(data, bounds)?];
        if node_files.is_dir() {
            trees.push(tree_at(node_files, bounds)?);
        }
        Ok(Delivery { trees })
    }

    /// The trees that it is made of, the later over the earlier.
    pub(crate) fn trees(&self) -> impl Iterator<Item = &Root> {
        self.trees.iter().map(|(tree, _)| tree)
    }

    /// Refuses it where there is no room for all of it at `copy_dir`, links counted as what they lead to.
    pub fn expect_room(&self, root: &Root, copy_dir: &Path, bounds: &Bounds<'_>) -> Result<()> {
        placing::expect_room(&nearest_folder(root, copy_dir)?, self.bytes(), bounds)
    }

    /// Refuses it where the host has something of another kind than its `root_dir` is to be copied over.
    pub fn expect_root_dir(&self, root: &Root, bounds: &Bounds<'_>) -> Result<()> {
        self.trees.iter().try_for_each(|(_, listing)| {
            let of_root_dir = listing.entries.iter().filter_map(|entry| {
                let below = entry.below.strip_prefix(ROOT_DIR).ok()?;
                (!below.as_os_str().is_empty()).then_some((below, entry.what))
            });
            placing::expect_places(root, of_root_dir, bounds)
        })
    }

    /// Copies it to `copy_dir` inside the root, where nothing stands.
    ///
    /// It is built beside its place under another name, which the next call removes where this one was killed.
    pub fn make(&self, root: &Root, copy_dir: &Path, bounds: &Bounds<'_>) -> Result<()> {
        if !copy_dir.is_absolute() {
            return Err(Error::bad_name("copy dir", &copy_dir.to_string_lossy(), "an absolute path"));
        }
        placing::build_beside(root, copy_dir, &self.trees, bounds)
    }

    /// Links are copied as what they lead to, so that a small package may make a large copy.
    fn bytes(&self) -> u64 {
        self.trees.iter().fold(0, |sum, (_, listing)| sum.saturating_add(listing.bytes()))
    }
}

/// Copies the package in `data` to `copy_dir` inside the root, and `node_files` over it where that folder exists,
/// unless something stands at `copy_dir` already. Says whether it copied.
pub fn deliver(
    root: &Root,
    copy_dir: &Path,
    data: &Path,
    node_files: &Path,
    bounds: &Bounds<'_>,
) -> Result<bool> {
    if root.exists(copy_dir)? {
        return Ok(false);
    }
    Delivery::list(data, node_files, bounds)?.make(root, copy_dir, bounds)?;
    Ok(true)
}

fn tree_at(host: &Path, bounds: &Bounds<'_>) -> Result<(Root, Listing)> {
    let tree = Root::open_tree(host)?;
    let listing = listing::list(&tree, Path::new("/"), bounds.stop)?;
    Ok((tree, listing))
}

/// The folder in which a path would be made: the nearest above it that is there.
fn nearest_folder(root: &Root, path: &Path) -> Result<Folder> {
    let mut above = path.ancestors().skip(1);
    loop {
        let folder = above.next().unwrap_or(Path::new("/"));
        if let Some(folder) = root.folder(folder)? {
            return Ok(folder);
        }
    }
}

/// Which of the config files that a package expects are not in its `configmaps`. `tree` and `package` are the root
/// and COPY_DIR, or the opened SKYHOOK_DATA_DIR and `/` before the package is delivered.
pub fn missing_config_files<'a>(
    tree: &Root,
    package: &Path,
    expected: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<&'a str>> {
    let mut missing = Vec::new();
    for name in expected {
        let is_there = match tree.exists(&below(package, &["configmaps", name])) {
            // No file system could have one by such a name.
            Err(error) if error.system().is_some_and(|why| why.kind() == ErrorKind::InvalidFilename) => false,
            looked => looked?,
        };
        if !is_there {
            missing.push(name);
        }
    }
    Ok(missing)
}

/// Refuses a package in its place whose `root_dir` could not be copied onto the root: what is in it, and what the host has in its
/// places, must be of a kind that can.
pub fn expect_root_dir(root: &Root, copy_dir: &Path, bounds: &Bounds<'_>) -> Result<()> {
    list_root_dir(root, copy_dir, bounds).map(drop)
}

/// Copies the package's `root_dir`, where it has one, onto the root. Folders that the host has keep their modes, files
/// their owners; a file that is already as it should be is left alone.
pub fn copy_root_dir(root: &Root, copy_dir: &Path, bounds: &Bounds<'_>) -> Result<()> {
    match list_root_dir(root, copy_dir, bounds)? {
        Some(listing) => placing::place(root, Path::new("/"), root, &listing, bounds),
        None => Ok(()),
    }
}

fn list_root_dir(root: &Root, copy_dir: &Path, bounds: &Bounds<'_>) -> Result<Option<Listing>> {
    let source = below(copy_dir, &[ROOT_DIR]);
    if root.metadata(&source, Link::Follow)?.is_none() {
        return Ok(None);
    }
    let listing = listing::list(root, &source, bounds.stop)?;
    let entries = listing.entries.iter().map(|entry| (entry.below.as_path(), entry.what));
    placing::expect_places(root, entries, bounds)?;
    Ok(Some(listing))
}

/// The container's own resolv.conf, read, and found to have its place in the root mount.
#[derive(Debug)]
pub struct Resolv {
    bytes: Vec<u8>,
}

impl Resolv {
    /// Reads `source`. Refuses it where something stands at its place that is no file.
    pub fn read(root: &Root, source: &Path) -> Result<Resolv> {
        let mut bytes = Vec::new();
        let file = File::open(source).map_err(Error::io("opening", source))?;
        file.take(RESOLV_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Error::io("reading", source))?;
        if bytes.len() as u64 > RESOLV_BYTES_MAX {
            return Err(Error::TooLarge { path: source.to_owned(), bytes_max: RESOLV_BYTES_MAX });
        }
        placing::expect_places(root, [(Path::new(RESOLV_CONF), What::File)], &UNBOUNDED)?;
        Ok(Resolv { bytes })
    }

    /// Writes it to that of the root mount, which keeps its mode and owner. Where that is a link it is followed inside the
    /// root.
    pub fn copy(&self, root: &Root) -> Result<()> {
        let target = Path::new(RESOLV_CONF);
        let stands = match root.read(target, RESOLV_BYTES_MAX) {
            Err(Error::TooLarge { .. }) => None,
            other => other?,
        };
        if stands.as_deref() == Some(self.bytes.as_slice()) {
            return Ok(());
        }
        root.write_whole(target, &self.bytes, RESOLV_MODE)?;
        // What an earlier call that was killed here left beside it.
        root.target(target)?.folder.sweep().map(drop)
    }
}

/// A path's folder and its last name; both are needed to build something beside it.
fn folder_and_name(root: &Root, path: &Path) -> Result<(Folder, std::ffi::OsString)> {
    let target = root.target(path)?;
    match target.stat {
        None => Ok((target.folder, target.name)),
        Some(_) => {
            Err(Error::Kind { path: root.host_path(path), found: "a regular file", expected: "nothing" })
        }
    }
}

#[cfg(test)]
mod tests;
