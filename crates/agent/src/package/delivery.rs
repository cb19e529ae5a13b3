//! A package on its way to its place: checked wholly before anything is written, then delivered, with what goes onto the host.
//!
//! [`check`] reads and refuses, and writes nothing. It is asked twice: before a call takes its turn, so that what is refused
//! leaves everything as it was, and in its turn, because other calls may have been at work until then. [`put`] writes, in the
//! turn alone: what a step of another call is at work on is not overwritten.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::FileType;

use super::config::{CONFIG_BYTES_MAX, Config, Mode};
use super::copying::{self, Bounds, Delivery, Resolv};
use super::places::Places;
use super::rooted::{Link, Result, Root};
use super::session::Session;
use super::step;

/// Name of a package's config in its folder.
const CONFIG: &str = "config.json";

/// A package that may be put into its place, or lies there.
pub(crate) struct Checked {
    config: Config,
    /// What the config was read from.
    bytes: Vec<u8>,
    /// What is to be copied to its place; none where something stands there.
    delivery: Option<Delivery>,
    resolv: Option<Resolv>,
}

impl Checked {
    /// Where its flags, history and logs lie.
    ///
    /// # Errors
    /// Where its name or version is none of a folder.
    pub fn places(&self, session: &Session) -> Result<Places> {
        session.places(&self.config.package_name, &self.config.package_version)
    }
}

/// Reads the package and sees whether all that is to be written can be. `earlier` is what was found before, whose warnings
/// have been said.
///
/// # Errors
/// What is refused: a config, a file that it names and that is not there, what cannot be copied to where it belongs.
pub(crate) fn check(
    session: &mut Session,
    root: &Root,
    copy_dir: &Path,
    mode: Mode,
    earlier: Option<Checked>,
) -> anyhow::Result<Checked> {
    let cancel = session.cancel.clone();
    let bounds = Bounds { stop: &|| cancel.is_asked(), free_bytes_least: 0 };
    let delivery = if root.exists(copy_dir)? { None } else { Some(list(session, &bounds)?) };
    let package = Package::of(root, copy_dir, delivery.as_ref());
    let (file, bytes) = package.read_config()?;
    let config = match earlier {
        Some(earlier) if earlier.bytes == bytes => earlier.config,
        Some(_) | None => {
            let config = Config::parse(&file, &bytes)?;
            for warning in config.missing_checks() {
                session.say_on_stderr(&warning);
            }
            config
        }
    };
    config.check_files(&file, |path| package.has_step(path))?;
    if installs(mode) {
        package.require_config_files(&config, &file)?;
        match &delivery {
            Some(delivery) => delivery.expect_root_dir(root, &bounds)?,
            None => copying::expect_root_dir(root, copy_dir, &bounds)?,
        }
    }
    if let Some(delivery) = &delivery {
        delivery.expect_room(root, copy_dir, &bounds)?;
    }
    let resolv = session.read_resolv(root)?;
    Ok(Checked { config, bytes, delivery, resolv })
}

/// Puts what was checked into its places. To be called in the turn of the package.
///
/// # Errors
/// Those of the disk, and what has changed since it was checked.
pub(crate) fn put(
    session: &Session,
    root: &Root,
    copy_dir: &Path,
    mode: Mode,
    checked: Checked,
) -> Result<Config> {
    let bounds = Bounds { stop: &|| session.cancel.is_asked(), free_bytes_least: 0 };
    if let Some(resolv) = &checked.resolv {
        resolv.copy(root)?;
    }
    if let Some(delivery) = &checked.delivery {
        delivery.make(root, copy_dir, &bounds)?;
    }
    if installs(mode) {
        copying::copy_root_dir(root, copy_dir, &bounds)?;
    }
    Ok(checked.config)
}

/// An uninstall neither changes the host's files nor needs those that only an installation has.
fn installs(mode: Mode) -> bool {
    !matches!(mode, Mode::Uninstall | Mode::UninstallCheck)
}

/// What is to be delivered: the package, and what lies on the node for it.
fn list(session: &Session, bounds: &Bounds<'_>) -> anyhow::Result<Delivery> {
    let data = Path::new(&session.settings.data_dir);
    Delivery::list(data, Path::new(copying::NODE_FILES), bounds)
        .with_context(|| format!("opening the package in {}", data.display()))
}

/// A package where it lies.
enum Package<'a> {
    /// In its place, inside the root.
    Placed(&'a Root, &'a Path),
    /// In trees of which the later are to be copied over the earlier.
    Apart(Vec<&'a Root>),
}

impl<'a> Package<'a> {
    fn of(root: &'a Root, copy_dir: &'a Path, delivery: Option<&'a Delivery>) -> Package<'a> {
        match delivery {
            Some(delivery) => Package::Apart(delivery.trees().collect()),
            None => Package::Placed(root, copy_dir),
        }
    }

    /// The folders in which it lies, the later over the earlier.
    fn parts(&self) -> Vec<(&'a Root, &'a Path)> {
        match self {
            Package::Placed(root, folder) => vec![(*root, *folder)],
            Package::Apart(trees) => trees.iter().map(|tree| (*tree, Path::new("/"))).collect(),
        }
    }

    /// The bytes of its config, and what errors call it.
    fn read_config(&self) -> anyhow::Result<(PathBuf, Vec<u8>)> {
        let mut looked_at = PathBuf::new();
        for (tree, folder) in self.parts().into_iter().rev() {
            let path = folder.join(CONFIG);
            looked_at = tree.host_path(&path);
            // One byte more than is taken: the config's own error says that it is too long.
            if let Some(bytes) = tree.read(&path, CONFIG_BYTES_MAX as u64 + 1)? {
                return Ok((looked_at, bytes));
            }
        }
        bail!("{}: found no such file, expected a package's config", looked_at.display())
    }

    /// Whether it has the file of a step.
    fn has_step(&self, path: &str) -> bool {
        match self {
            Package::Placed(root, folder) => root.exists(&step::file_of(folder, path)).unwrap_or(false),
            Package::Apart(trees) => will_have_step(trees, path),
        }
    }

    /// A config file that is expected may lie in any of its trees. `file` is what errors call the config.
    fn require_config_files(&self, config: &Config, file: &Path) -> anyhow::Result<()> {
        let mut missing: BTreeSet<String> = config.expected_config_files.iter().cloned().collect();
        for (tree, folder) in self.parts() {
            let names: Vec<String> = missing.into_iter().collect();
            let still = copying::missing_config_files(tree, folder, names.iter().map(String::as_str))?;
            missing = still.into_iter().map(str::to_owned).collect();
        }
        Ok(config.check_config_files(file, |name| missing.contains(name))?)
    }
}

/// Whether there is a file of a step once all of the trees are copied: a folder on its way may be in one of them and the file in
/// another, and links are folders then.
fn will_have_step(trees: &[&Root], path: &str) -> bool {
    let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    let mut way: Vec<&str> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        if *name == ".." {
            way.pop();
            continue;
        }
        way.push(name);
        let file = step::file_of(Path::new("/"), &way.join("/"));
        let is_last = index + 1 == names.len();
        let stands = |tree: &&Root| {
            let found = tree.metadata(&file, Link::Follow).ok().flatten();
            found.is_some_and(|found| is_last || found.kind == FileType::Directory)
        };
        if !trees.iter().any(stands) {
            return false;
        }
    }
    !way.is_empty()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_step_is_looked_for_where_it_will_lie_once_all_trees_are_copied() {
        let (package, node) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let steps = |tree: &tempfile::TempDir| tree.path().join("skyhook_dir");
        fs::create_dir_all(steps(&package).join("sub")).unwrap();
        fs::create_dir_all(steps(&node).join("other/deep")).unwrap();
        fs::write(steps(&package).join("a.sh"), "").unwrap();
        fs::write(steps(&package).join("sub/b.sh"), "").unwrap();
        fs::write(steps(&node).join("other/c.sh"), "").unwrap();
        symlink("other/deep", steps(&node).join("link")).unwrap();
        symlink("none", steps(&node).join("lost.sh")).unwrap();
        let trees = [&package, &node].map(|tree| Root::open_tree(tree.path()).unwrap());
        let trees = [&trees[0], &trees[1]];
        for there in [
            "a.sh",
            "/a.sh",
            "./sub//b.sh",
            "other/c.sh",
            "other/../a.sh",
            "sub/../other/c.sh",
            "link/../a.sh",
        ] {
            assert!(will_have_step(&trees, there), "{there}");
        }
        for missing in
            ["b.sh", "sub/c.sh", "none/../a.sh", "a.sh/../a.sh", "link/../c.sh", "lost.sh", "a.sh/b", ""]
        {
            assert!(!will_have_step(&trees, missing), "{missing:?}");
        }
        assert!(!will_have_step(&trees[..1], "other/../a.sh"));
        // In its place it lies where the system finds it.
        fs::create_dir_all(package.path().join("root/pkg")).unwrap();
        fs::rename(steps(&package), package.path().join("root/pkg/skyhook_dir")).unwrap();
        let root = Root::open(&package.path().join("root")).unwrap();
        let placed = Package::of(&root, Path::new("/pkg"), None);
        assert!(placed.has_step("sub/../a.sh") && !placed.has_step("none/../a.sh"));
    }
}
