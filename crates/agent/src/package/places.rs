//! Where a package's flags, history and logs lie inside the root mount, and which texts may be part of such a path.
//!
//! The names are those of the reference agent, so that a node that it has prepared goes on where it stood. A text
//! that would lead elsewhere than into its folder is refused with what was found and what was expected.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use groundcrew_protocol::ids::Sha256Hex;

use super::rooted::{Error, Result};

/// Bytes of one name in a folder, on every file system that nodes use (NAME_MAX).
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// What is put behind a package's name for its history file and for a corrupt one that is moved aside.
const HISTORY_SUFFIX_BYTES: usize = ".json.backup".len();

/// Between the beginning of a name that was too long and its hash. Base64 has no such character, so a shortened flag
/// never looks like another's.
const SHORTENED_MARK: &str = "~";

/// The places of one package in one version, all absolute inside the root mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    root_dir: PathBuf,
    package_logs: PathBuf,
    package: String,
    version: String,
}

impl Places {
    /// From SKYHOOK_ROOT_DIR, SKYHOOK_LOG_DIR, and a package's name and version, which are each one name in a folder.
    pub fn new(root_dir: &Path, log_dir: &Path, package: &str, version: &str) -> Result<Self> {
        require_name("package name", package, NAME_BYTES_MAX - HISTORY_SUFFIX_BYTES)?;
        require_name("package version", version, NAME_BYTES_MAX)?;
        Ok(Self {
            root_dir: root_dir.to_owned(),
            package_logs: below(log_dir, &[package, version]),
            package: package.to_owned(),
            version: version.to_owned(),
        })
    }

    /// The package's name.
    pub fn package(&self) -> &str {
        &self.package
    }

    /// The package's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The folder of all flags.
    pub fn flags(&self) -> PathBuf {
        below(&self.root_dir, &["flags"])
    }

    /// The folder of the flags of this package's steps.
    pub fn step_flags(&self) -> PathBuf {
        below(&self.root_dir, &["flags", &self.package, &self.version])
    }

    /// The folder of the flags of the interrupts of one resource id, which is one name in a folder, shortened by a hash where
    /// it fits none: a run's id with a package's longest name and version does not.
    pub fn interrupt_flags(&self, resource_id: &str) -> Result<PathBuf> {
        require_name("resource id", resource_id, usize::MAX)?;
        let folder = below(&self.root_dir, &["interrupts", "flags"]);
        Ok(folder.join(shortened(OsStr::new(resource_id), NAME_BYTES_MAX)))
    }

    /// The folder of all histories.
    pub fn histories(&self) -> PathBuf {
        below(&self.root_dir, &["history"])
    }

    /// The package's history.
    pub fn history(&self) -> PathBuf {
        below(&self.root_dir, &["history", &format!("{}.json", self.package)])
    }

    /// The folder of the logs of this package's steps.
    pub fn logs(&self) -> &Path {
        &self.package_logs
    }
}

/// A path and more names below it, as text: what was given stays to the letter, as the reference shows it.
pub(crate) fn below(path: &Path, names: &[&str]) -> PathBuf {
    let mut text = path.as_os_str().to_owned();
    for name in names {
        text.push("/");
        text.push(name);
    }
    PathBuf::from(text)
}

fn require_name(what: &'static str, text: &str, bytes_max: usize) -> Result<()> {
    let refuse = |expected| Err(Error::bad_name(what, text, expected));
    if matches!(text, "" | "." | "..") || text.contains(['/', '\0']) {
        return refuse("one file name, without a slash");
    }
    if text.len() > bytes_max {
        return refuse("a text short enough for a file's name");
    }
    Ok(())
}

/// Refuses a step's path that does not stay below the folder of the package's steps, and with it below the folders of
/// its flags and logs.
pub fn require_step_path(path: &str) -> Result<()> {
    let refuse = |expected| Err(Error::bad_name("step path", path, expected));
    if path.contains('\0') {
        return refuse("no NUL byte");
    }
    let mut depth = 0_usize;
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." if depth == 0 => {
                return refuse("a path that does not leave the package's skyhook_dir by `..`");
            }
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    match path.rsplit('/').next() {
        None | Some("" | "." | "..") => refuse("the path of a file below the package's skyhook_dir"),
        Some(_) => Ok(()),
    }
}

/// A name as it is where it fits, else its beginning and the SHA-256 of all of it. The reference agent could never
/// have written the longer one.
pub(crate) fn shortened(name: &OsStr, bytes_max: usize) -> OsString {
    let bytes = name.as_bytes();
    if bytes.len() <= bytes_max {
        return name.to_owned();
    }
    let hash = Sha256Hex::of(bytes).to_string();
    let room = bytes_max - SHORTENED_MARK.len() - hash.len();
    // Not in the middle of a character: what begins one is no continuation byte.
    let cut = (0..=room).rev().find(|at| bytes[*at] & 0xc0 != 0x80).unwrap_or(0);
    let mut short = OsStr::from_bytes(&bytes[..cut]).to_owned();
    short.push(SHORTENED_MARK);
    short.push(hash);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_reference() {
        let places =
            Places::new(Path::new("/etc/skyhook"), Path::new("/var/log/skyhook"), "sample", "1.0.0").unwrap();
        assert_eq!(places.flags(), Path::new("/etc/skyhook/flags"));
        assert_eq!(places.step_flags(), Path::new("/etc/skyhook/flags/sample/1.0.0"));
        assert_eq!(places.history(), Path::new("/etc/skyhook/history/sample.json"));
        assert_eq!(places.logs(), Path::new("/var/log/skyhook/sample/1.0.0"));
        assert_eq!(
            places.interrupt_flags("c_sample_1.0.0").unwrap().as_os_str(),
            "/etc/skyhook/interrupts/flags/c_sample_1.0.0"
        );
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused_with_its_text() {
        let long = "x".repeat(300);
        for name in ["", ".", "..", "a/b", "../../x", "a\0b", &long] {
            for (package, version) in [(name, "1.0.0"), ("sample", name)] {
                let refused =
                    Places::new(Path::new("/etc/skyhook"), Path::new("/l"), package, version).unwrap_err();
                assert!(matches!(refused, Error::BadName { .. }), "{refused}");
            }
        }
        Places::new(Path::new("/etc/skyhook"), Path::new("/l"), "two\nlines", "1.0.0").unwrap();
    }

    #[test]
    fn flags_of_interrupts_have_a_folder_however_long_the_resource_id_is() {
        let places = Places::new(Path::new("/etc/skyhook"), Path::new("/l"), "sample", "1.0.0").unwrap();
        let folder =
            |version: &str| places.interrupt_flags(&format!("groundcrew-r-1-0_sample_{version}")).unwrap();
        let long = "1".repeat(255);
        let (one, other) = (folder(&long), folder(&format!("{long}2")));
        assert_ne!(one, other);
        for folder in [one, other] {
            assert_eq!(folder.parent(), Some(Path::new("/etc/skyhook/interrupts/flags")));
            let name = folder.file_name().unwrap().to_str().unwrap();
            assert!(name.len() <= NAME_BYTES_MAX && name.starts_with("groundcrew-r-1-0_sample_11"), "{name}");
        }
        for elsewhere in ["..", "a/../b", "", "a\0"] {
            assert!(places.interrupt_flags(elsewhere).is_err(), "{elsewhere:?}");
        }
    }

    #[test]
    fn a_step_path_stays_below_its_folder() {
        for path in ["", ".", "..", "../x", "a/../../x", "a/..", "a/", "a/.", "a\0"] {
            assert!(require_step_path(path).is_err(), "{path:?}");
        }
        for path in ["a.sh", "sub/a.sh", "sub/../a.sh", "./a.sh", "..a", "a..", "/a.sh", "a\nb"] {
            require_step_path(path).unwrap();
        }
    }

    #[test]
    fn a_long_name_is_cut_between_characters_and_told_apart() {
        let name = |last: char| OsString::from(format!("{}{last}", "é".repeat(200)));
        let (a, b) = (shortened(&name('a'), NAME_BYTES_MAX), shortened(&name('b'), NAME_BYTES_MAX));
        assert_ne!(a, b);
        assert!(a.len() <= NAME_BYTES_MAX && a.to_str().is_some(), "{a:?}");
        let fits = OsString::from("x".repeat(NAME_BYTES_MAX));
        assert_eq!(shortened(&fits, NAME_BYTES_MAX), fits);
        assert_eq!(
            shortened(&OsString::from("x".repeat(NAME_BYTES_MAX + 1)), NAME_BYTES_MAX).len(),
            NAME_BYTES_MAX
        );
    }
}
