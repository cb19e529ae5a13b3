//! `cargo xtask guest`: what the tests boot. A private QEMU with a kernel, an initramfs and one root image, all of them
//! from Debian's packages, in `target/guest`:
//!
//! ```text
//!   tools/root/          QEMU, the kernel and its modules, busybox, unpacked and not installed: the host's packages stay
//!                        as they are, whatever their versions
//!   image/vmlinux        the kernel, unpacked, which QEMU starts by PVH without a boot loader
//!   image/initramfs.cpio busybox and the few modules that lead to the root
//!   image/root.img       ext4 with a small Debian under systemd; a guest writes to an overlay of its own above it
//!   live/base.cpio.zst   what every live image holds but for its agent and its settings (`cargo xtask image`)
//!   spent                what each guest took, a line each: written by the tests, added up by `cargo xtask test`
//! ```
//!
//! A part is made when it is missing or its recipe has changed ([`Kit`]).

mod system;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::debian::Kit;
use crate::image;

/// Prepares what is missing. Returns the folder.
///
/// # Errors
/// When this is not root, or apt's mirrors do not give what is needed.
pub fn prepare() -> Result<PathBuf> {
    let kit = Kit::open()?;
    let tools = kit.tools()?;
    image::prepare_base(&kit, &tools)?;
    kit.part("image", system::RECIPE, |new| system::make(&tools, new))?;
    Ok(kit.into_folder())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guests_took_is_added_up() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(spent(folder), None);
        fs::write(folder.join("spent"), "commands 31.5\na name 40.25\n").unwrap();
        assert_eq!(spent(folder).unwrap(), "2 guests took 1 min 12 s together, of 25 min 00 s at most");
        fs::write(folder.join("spent"), "a 500.0\nb 600.0\nc 400.0\n").unwrap();
        assert!(spent(folder).unwrap().starts_with("3 guests took 25 min 00 s together"));
        fs::write(folder.join("spent"), "a 500.0\nb 600.0\nc 460.0\n").unwrap();
        let warning = spent(folder).unwrap();
        assert!(warning.starts_with("WARNING: 3 guests took 26 min 00 s together"), "{warning}");
        assert!(warning.ends_with("\n  b: 10 min 00 s\n  a: 8 min 20 s\n  c: 7 min 40 s"), "{warning}");
        forget_spent(folder).unwrap();
        forget_spent(folder).unwrap();
        assert_eq!(spent(folder), None);
    }
}
