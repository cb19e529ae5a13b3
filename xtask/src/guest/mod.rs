//! `cargo xtask guest`: what the tests boot. A private QEMU with a kernel, an initramfs and one root image, all of them
//! from Debian's packages, in `target/guest`:
//!
//! ```text
//!   tools/root/          QEMU, the kernel and its modules, busybox, unpacked and not installed: the host's packages stay
//!                        as they are, whatever their versions
//!   image/vmlinux        the kernel, unpacked, which QEMU starts by PVH without a boot loader
//!   image/initramfs.cpio busybox and the few modules that lead to the root
//!   image/root.img       ext4 with a small Debian under systemd; a guest writes to an overlay of its own above it
//!   spent                what each guest took, a line each: written by the tests, added up by `cargo xtask test`
//! ```
//!
//! A part is made when it is missing or its recipe has changed. The recipe is the source of the files beside this one, so
//! that no change of them leaves an old part in use.

mod bootstrap;
mod image;
mod tools;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::cargo;
use crate::packages::{self, Need};

/// Prepares what is missing. Returns the folder.
///
/// # Errors
/// When this is not root, or apt's mirrors do not give what is needed.
pub fn prepare() -> Result<PathBuf> {
    let folder = cargo::target_folder()?.join("guest");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let lock = folder.join("lock");
    let held = File::create(&lock).with_context(|| format!("making {}", lock.display()))?;
    // Another `cargo xtask` in the same folder makes the same; this one then finds it made.
    flock(&held, FlockOperation::LockExclusive).with_context(|| format!("locking {}", lock.display()))?;
    let recipe = [bootstrap::RECIPE, tools::RECIPE].concat();
    let tools = part(&folder, "tools", &recipe, tools::make)?;
    let recipe = [&recipe, image::RECIPE].concat();
    part(&folder, "image", &recipe, |new| image::make(&tools.join("root"), new))?;
    Ok(folder)
}

/// What all guests together may take, in seconds, on two idle cores: a test run that takes longer is one that people leave
/// out. It is said and fails nothing, because no test may depend on how fast or busy the machine is.
const SPENT_S_MAX: f64 = 25.0 * 60.0;

/// What all guests since [`forget_spent`] took together, beside what they may take, in words; nothing where none was booted.
pub fn spent(folder: &Path) -> Option<String> {
    let lines = fs::read_to_string(folder.join("spent")).ok()?;
    let mut each: Vec<(&str, f64)> =
        lines.lines().filter_map(|line| line.rsplit_once(' ')).filter_map(of_guest).collect();
    let sum: f64 = each.iter().map(|(_, seconds)| seconds).sum();
    let limit = in_minutes(SPENT_S_MAX);
    let said = format!("{} guests took {} together, of {limit} at most", each.len(), in_minutes(sum));
    if sum <= SPENT_S_MAX {
        return Some(said);
    }
    // The longest first: there is the most to be had.
    each.sort_by(|one, other| other.1.total_cmp(&one.1));
    let each: Vec<String> =
        each.iter().map(|(name, seconds)| format!("  {name}: {}", in_minutes(*seconds))).collect();
    Some(format!(
        "WARNING: {said}. On a machine of two idle cores that is too much: share boots or shorten waits.\n{}",
        each.join("\n")
    ))
}

fn of_guest<'l>((name, seconds): (&'l str, &str)) -> Option<(&'l str, f64)> {
    Some((name, seconds.parse().ok()?))
}

fn in_minutes(seconds: f64) -> String {
    let whole = seconds.round();
    format!("{:.0} min {:02.0} s", (whole / 60.0).floor(), whole % 60.0)
}

/// Begins a new sum.
pub fn forget_spent(folder: &Path) -> Result<()> {
    match fs::remove_file(folder.join("spent")) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context("removing the times of old guests")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A folder that `make` fills, unless it was filled by this recipe before. It appears whole or not at all.
fn part(folder: &Path, name: &str, recipe: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let place = folder.join(name);
    if fs::read_to_string(place.join("recipe")).is_ok_and(|made_by| made_by == recipe) {
        return Ok(place);
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "preparing the guests takes root, to unpack a system with its owners; run as root, or leave the guests out \
         with `cargo xtask test --no-vm`"
    );
    packages::ensure(Need::Guest)?;
    eprintln!("preparing {}", place.display());
    let new = folder.join(format!("{name}.new"));
    remove(&new)?;
    fs::create_dir(&new).with_context(|| format!("making {}", new.display()))?;
    make(&new)?;
    fs::write(new.join("recipe"), recipe).context("writing the recipe")?;
    remove(&place)?;
    fs::rename(&new, &place).with_context(|| format!("putting {} into place", place.display()))?;
    Ok(place)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("xtask-guest-{name}-{}", std::process::id()));
        remove(&folder).unwrap();
        fs::create_dir(&folder).unwrap();
        folder
    }

    #[test]
    fn what_guests_took_is_added_up() {
        let folder = fresh("spent");
        assert_eq!(spent(&folder), None);
        fs::write(folder.join("spent"), "commands 31.5\na name 40.25\n").unwrap();
        assert_eq!(spent(&folder).unwrap(), "2 guests took 1 min 12 s together, of 25 min 00 s at most");
        fs::write(folder.join("spent"), "a 500.0\nb 600.0\nc 400.0\n").unwrap();
        assert!(spent(&folder).unwrap().starts_with("3 guests took 25 min 00 s together"));
        fs::write(folder.join("spent"), "a 500.0\nb 600.0\nc 460.0\n").unwrap();
        let warning = spent(&folder).unwrap();
        assert!(warning.starts_with("WARNING: 3 guests took 26 min 00 s together"), "{warning}");
        assert!(warning.ends_with("\n  b: 10 min 00 s\n  a: 8 min 20 s\n  c: 7 min 40 s"), "{warning}");
        forget_spent(&folder).unwrap();
        forget_spent(&folder).unwrap();
        assert_eq!(spent(&folder), None);
        remove(&folder).unwrap();
    }

    #[test]
    fn a_part_of_the_same_recipe_is_not_made_again() {
        let folder = fresh("part");
        fs::create_dir(folder.join("tools")).unwrap();
        fs::write(folder.join("tools/recipe"), "one").unwrap();
        let place = part(&folder, "tools", "one", |_| panic!("it was made again")).unwrap();
        assert_eq!(place, folder.join("tools"));
        remove(&folder).unwrap();
    }
}
