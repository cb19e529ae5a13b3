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
use listing::Listing;

/// What operators before the present one left on a node for its packages: copied over a package that is delivered.
pub const NODE_FILES: &str = "/etc/nvidia-bootstrap/node-files/";

/// The container's own resolv.conf, and that of the root mount.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

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

impl Bounds<'_> {
    /// A copy that nobody ends, and that may take all there is.
    #[cfg(test)]
    pub(crate) const NONE: Bounds<'static> = Bounds { stop: &|| false, free_bytes_least: 0 };
}

/// Copies the package in `data` to `copy_dir` inside the root, and `node_files` over it where that folder exists,
/// unless something stands at `copy_dir` already. Says whether it copied.
///
/// It is built beside its place under another name, which the next call removes where this one was killed. Links are copied as
/// what they lead to, so that a small package may make a large copy: what all of it takes must be free before it begins.
pub fn deliver(
    root: &Root,
    copy_dir: &Path,
    data: &Path,
    node_files: &Path,
    bounds: &Bounds<'_>,
) -> Result<bool> {
    if !copy_dir.is_absolute() {
        return Err(Error::bad_name("copy dir", &copy_dir.to_string_lossy(), "an absolute path"));
    }
    if root.exists(copy_dir)? {
        return Ok(false);
    }
    let mut trees = vec![tree_at(data, bounds)?];
    if node_files.is_dir() {
        trees.push(tree_at(node_files, bounds)?);
    }
    placing::build_beside(root, copy_dir, &trees, bounds)?;
    Ok(true)
}

fn tree_at(host: &Path, bounds: &Bounds<'_>) -> Result<(Root, Listing)> {
    let tree = Root::open_tree(host)?;
    let listing = listing::list(&tree, Path::new("/"), bounds.stop)?;
    Ok((tree, listing))
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

/// Copies the package's `root_dir`, where it has one, onto the root. Folders that the host has keep their modes, files
/// their owners; a file that is already as it should be is left alone.
pub fn copy_root_dir(root: &Root, copy_dir: &Path, bounds: &Bounds<'_>) -> Result<()> {
    let source = below(copy_dir, &["root_dir"]);
    if root.metadata(&source, Link::Follow)?.is_none() {
        return Ok(());
    }
    let listing = listing::list(root, &source, bounds.stop)?;
    placing::place(root, Path::new("/"), root, &listing, bounds)
}

/// Copies the content of `source`, the container's own resolv.conf, to that of the root mount, which keeps its mode
/// and owner. Where that is a link it is followed inside the root.
pub fn copy_resolv(root: &Root, source: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    let file = File::open(source).map_err(Error::io("opening", source))?;
    file.take(RESOLV_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(Error::io("reading", source))?;
    if bytes.len() as u64 > RESOLV_BYTES_MAX {
        return Err(Error::TooLarge { path: source.to_owned(), bytes_max: RESOLV_BYTES_MAX });
    }
    let target = Path::new(RESOLV_CONF);
    let stands = match root.read(target, RESOLV_BYTES_MAX) {
        Err(Error::TooLarge { .. }) => None,
        other => other?,
    };
    if stands.as_deref() == Some(bytes.as_slice()) {
        return Ok(());
    }
    root.write_whole(target, &bytes, RESOLV_MODE)?;
    // What an earlier call that was killed here left beside it.
    root.target(target)?.folder.sweep().map(drop)
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
