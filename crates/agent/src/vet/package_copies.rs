//! The copies of packages beneath the root mount, where the profile names no folder of its own for them:
//! `/var/lib/groundcrew/packages/{name}-{version}/groundcrew-{run}-{operator's retries}`.
//!
//! A run's stages share one, and a run after it has no use for it: what was done is known by the flags. So each package stage
//! removes the copies of other runs, whatever package they are of. Those of the own run's earlier retries stay: a stage that
//! passed then is not run again, and what it installed may lead there. So does a copy in which something is mounted. What was
//! left of a copy that was killed while it was made goes, whichever run's it is. A profile that names `copy_dir` has the copy to
//! itself.

use std::ffi::OsStr;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use groundcrew_protocol::wire::LogLevel;

use super::StageContext;
use crate::errors::chain;
use crate::package::copying;
use crate::package::rooted::{Folder, Result, Root};
use crate::package::session::open_root;

/// The folder of all of them, inside the root.
const COPIES: &str = "/var/lib/groundcrew/packages";
/// How a copy's name begins, which is that of an instance.
const INSTANCE_PREFIX: &str = "groundcrew-";
/// Folders that one stage looks at, of packages and of copies: many times as many as runs leave when each removes those before.
const LOOKED_AT_MAX: usize = 10_000;

/// Where the copy of a package lies for an instance, inside the root.
pub(super) fn default_of(name: impl Display, version: impl Display, instance: &str) -> String {
    format!("{COPIES}/{name}-{version}/{instance}")
}

/// Removes the copies that are not of this instance's run. What cannot be removed is said, and tried again by the next stage.
pub(super) fn sweep(context: &StageContext, root_mount: &str, instance: &str) {
    let say = |level, text| context.say(level, text);
    let swept = open_root(Path::new(root_mount))
        .and_then(|root| sweep_in(&root, instance, &|| context.cancel.is_asked(), &say));
    if let Err(error) = swept {
        say(LogLevel::Warn, format!("removing copies of earlier runs: {}", chain(&error)));
    }
}

fn sweep_in(
    root: &Root,
    instance: &str,
    stop: &dyn Fn() -> bool,
    say: &dyn Fn(LogLevel, String),
) -> Result<()> {
    let own_run = own_run(instance);
    let Some(packages) = root.folder(Path::new(COPIES))? else { return Ok(()) };
    let mut looked_at = 0;
    for package in packages.names()? {
        // A link, or what is no folder, is nobody's copy.
        let Ok(Some(copies)) = packages.open_folder(&package) else { continue };
        let names = copies.names()?;
        let (mut gone, all) = (0, names.len());
        for name in &names {
            let Some(rubbish) = Rubbish::of(name, own_run) else { continue };
            looked_at += 1;
            if stop() || looked_at > LOOKED_AT_MAX {
                return Ok(());
            }
            match rubbish.remove(&copies, name) {
                Ok(true) => {
                    gone += 1;
                    let removed = root.host_path(&Path::new(COPIES).join(&package).join(name));
                    say(LogLevel::Info, format!("removed {}, {}", removed.display(), rubbish.what()));
                }
                Ok(false) => {}
                Err(error) => {
                    say(LogLevel::Warn, format!("a copy of an earlier run stays: {}", chain(&error)))
                }
            }
        }
        if gone > 0 && gone == all {
            // Where somebody has put something into it meanwhile it stays.
            packages.remove_empty(&package)?;
        }
    }
    Ok(())
}

/// What of a package's copies nobody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rubbish {
    OfAnotherRun,
    /// Built by a process that was killed, unless it is being built.
    HalfBuilt,
}

impl Rubbish {
    fn of(name: &OsStr, own_run: &str) -> Option<Rubbish> {
        if copying::built_copy(name).is_some_and(is_instance) {
            return Some(Rubbish::HalfBuilt);
        }
        let is_own = name.as_bytes().starts_with(own_run.as_bytes());
        (is_instance(name) && !is_own).then_some(Rubbish::OfAnotherRun)
    }

    /// False where it is none after all.
    fn remove(self, copies: &Folder, name: &OsStr) -> Result<bool> {
        match self {
            Rubbish::OfAnotherRun => copies.remove_tree(name).map(|()| true),
            Rubbish::HalfBuilt => copying::remove_half_built(copies, name),
        }
    }

    fn what(self) -> &'static str {
        match self {
            Rubbish::OfAnotherRun => "the copy of another run",
            Rubbish::HalfBuilt => "which was left when its copying was killed",
        }
    }
}

/// How the names of all instances of a run begin: an instance's without the number of its retry.
fn own_run(instance: &str) -> &str {
    &instance[..instance.rfind('-').map_or(instance.len(), |dash| dash + 1)]
}

fn is_instance(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(INSTANCE_PREFIX))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;
    use std::sync::Mutex;

    use super::*;

    const OWN: &str = "groundcrew-r-b-1";

    fn sweep(root: &Path) -> Vec<String> {
        let said = Mutex::new(Vec::new());
        let say = |_level, text| said.lock().unwrap().push(text);
        sweep_in(&Root::open(root).unwrap(), OWN, &|| false, &say).unwrap();
        said.into_inner().unwrap()
    }

    #[test]
    fn copies_of_other_runs_go_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let (root, outside) = (scratch.path().join("root"), scratch.path().join("outside"));
        fs::create_dir_all(root.join("var/lib")).unwrap();
        assert_eq!(sweep(&root), Vec::<String>::new(), "there may be none");
        let copies = root.join("var/lib/groundcrew/packages");
        for path in [
            "tuning-1.0.0/groundcrew-r-a-0/skyhook_dir",
            "tuning-1.0.0/groundcrew-r-b-0/skyhook_dir",
            "tuning-1.0.0/groundcrew-r-b-1/skyhook_dir",
            "driver-2.0.0/groundcrew-r-a-0/skyhook_dir",
            // What the agent's own home has in this very folder where the root is its own.
            "tuning/1.0.0/package-0000/skyhook_dir",
            "mixed-1.0.0/groundcrew-r-a-0",
            "mixed-1.0.0/of-somebody-else",
            // Killed while they were made, the own run's too.
            "tuning-1.0.0/.groundcrew-copy-groundcrew-r-a-0/skyhook_dir",
            "tuning-1.0.0/.groundcrew-copy-groundcrew-r-b-0/skyhook_dir",
            "half-1.0.0/.groundcrew-copy-groundcrew-r-c-3/skyhook_dir",
            "mixed-1.0.0/.groundcrew-copy-of-somebody-else",
        ] {
            fs::create_dir_all(copies.join(path)).unwrap();
        }
        fs::create_dir_all(outside.join("groundcrew-r-a-0")).unwrap();
        symlink(&outside, copies.join("linked-1.0.0")).unwrap();
        symlink(&outside, copies.join("driver-2.0.0/groundcrew-r-a-0/out")).unwrap();
        fs::write(copies.join("file"), "").unwrap();
        let said = sweep(&root);
        let of = |what: &str| said.iter().filter(|line| line.ends_with(what)).count();
        let counts = (of(", the copy of another run"), of(", which was left when its copying was killed"));
        assert_eq!((counts, said.len()), ((3, 3), 6), "{said:?}");
        let left = |path: &str| {
            let mut names: Vec<String> = fs::read_dir(copies.join(path))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(left(""), ["file", "linked-1.0.0", "mixed-1.0.0", "tuning", "tuning-1.0.0"]);
        assert_eq!(left("tuning-1.0.0"), ["groundcrew-r-b-0", OWN]);
        assert_eq!(left("tuning/1.0.0"), ["package-0000"]);
        assert_eq!(left("mixed-1.0.0"), [".groundcrew-copy-of-somebody-else", "of-somebody-else"]);
        assert!(outside.join("groundcrew-r-a-0").is_dir());
        assert_eq!(sweep(&root), Vec::<String>::new());
    }

    #[test]
    fn what_is_mounted_in_a_copy_is_not_emptied_and_other_copies_go() {
        let scratch = tempfile::tempdir().unwrap();
        let (root, data) = (scratch.path().join("root"), scratch.path().join("data"));
        let copies = root.join("var/lib/groundcrew/packages/tuning-1.0.0");
        let place = copies.join("groundcrew-r-a-0/skyhook_dir/models");
        for folder in [&place, &copies.join("groundcrew-r-c-0/skyhook_dir"), &data] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(data.join("weights"), "x").unwrap();
        fs::write(copies.join("groundcrew-r-a-0/own"), "x").unwrap();
        // A bind on the same file system, which no device number tells.
        let mounts = |program: &str, arguments: &[&Path]| {
            assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program}");
        };
        mounts("mount", &[Path::new("--bind"), &data, &place]);
        let said = sweep(&root);
        mounts("umount", &[&place]);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("a copy of an earlier run stays: "), "{said:?}");
        assert!(said[0].contains("models: found something that is mounted"), "{said:?}");
        assert!(data.join("weights").exists() && copies.join("groundcrew-r-a-0/own").exists());
        assert!(!copies.join("groundcrew-r-c-0").exists());
        assert_eq!(sweep(&root).len(), 1);
        assert!(!copies.exists() && data.join("weights").exists());
    }

    #[test]
    fn a_copy_that_is_being_made_is_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let half = "var/lib/groundcrew/packages/tuning-1.0.0/.groundcrew-copy-groundcrew-r-a-0";
        fs::create_dir_all(scratch.path().join(half)).unwrap();
        let root = Root::open(scratch.path()).unwrap();
        let lock = root.try_lock(Path::new(half)).unwrap().unwrap();
        assert_eq!(sweep(scratch.path()), Vec::<String>::new());
        assert!(scratch.path().join(half).is_dir());
        drop(lock);
        assert_eq!(sweep(scratch.path()).len(), 1);
        assert!(!scratch.path().join("var/lib/groundcrew/packages/tuning-1.0.0").exists());
    }

    #[test]
    fn a_folder_into_which_somebody_has_put_something_is_not_taken_for_empty() {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir_all(scratch.path().join("packages/tuning-1.0.0/groundcrew-r-b-1")).unwrap();
        let packages = Root::open(scratch.path()).unwrap().folder(Path::new("packages")).unwrap().unwrap();
        let name = OsStr::new("tuning-1.0.0");
        assert!(!packages.remove_empty(name).unwrap());
        assert!(scratch.path().join("packages/tuning-1.0.0/groundcrew-r-b-1").is_dir());
        fs::remove_dir(scratch.path().join("packages/tuning-1.0.0/groundcrew-r-b-1")).unwrap();
        assert!(packages.remove_empty(name).unwrap() && !packages.remove_empty(name).unwrap());
    }

    #[test]
    fn a_stage_that_ends_leaves_the_rest_to_the_next() {
        let scratch = tempfile::tempdir().unwrap();
        let copy = scratch.path().join("var/lib/groundcrew/packages/tuning-1.0.0/groundcrew-r-a-0");
        fs::create_dir_all(&copy).unwrap();
        sweep_in(&Root::open(scratch.path()).unwrap(), OWN, &|| true, &|_, _| {}).unwrap();
        assert!(copy.is_dir());
    }
}
