//! The folder in which `groundcrew vet` keeps files of stages and the record of its children: its own, and for one vet
//! at a time.
//!
//! The record names processes to end, so a folder that somebody else could have written it into is refused.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use groundcrew_durable::lock::{HOME_LOCK_NAME, HomeLock};
use groundcrew_durable::whole::create_folder;

/// Nobody else reads what stages leave.
const MODE: u32 = 0o700;
/// The bits by which others may write.
const OTHERS_WRITE: u32 = 0o022;

/// An open work folder. It is locked until it is closed or dropped.
pub(super) struct WorkFolder {
    /// Where it is.
    pub(super) path: PathBuf,
    _lock: HomeLock,
}

impl WorkFolder {
    /// Opens or makes the work folder in the folder of the report.
    ///
    /// # Errors
    /// Where the report's folder belongs to another user, where the work folder is not this user's alone, or where
    /// another vet uses it.
    pub(super) fn open(report: &Path) -> anyhow::Result<WorkFolder> {
        std::fs::create_dir_all(report).with_context(|| format!("make the folder {}", report.display()))?;
        let user = rustix::process::geteuid().as_raw();
        let elsewhere = "take another folder with --report";
        let owner = std::fs::metadata(report).with_context(|| format!("look at {}", report.display()))?.uid();
        if owner != user && owner != 0 {
            let report = report.display();
            bail!(
                "the folder {report} belongs to user {owner}, who could change what a vet does; {elsewhere}"
            );
        }
        let path = report.join("work");
        create_folder(&path, MODE).with_context(|| format!("make the folder {}", path.display()))?;
        expect_own(&path, user).context(elsewhere)?;
        let lock = HomeLock::acquire(&path)
            .with_context(|| format!("use the folder {} (one vet at a time; {elsewhere})", path.display()))?;
        Ok(WorkFolder { path, _lock: lock })
    }

    /// Removes it. It holds nothing but what the stages left; what cannot be removed harms nobody.
    pub(super) fn close(self) {
        for entry in std::fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_name() != HOME_LOCK_NAME {
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let _ = if is_folder { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            }
        }
        // The lock goes last. A vet that comes in between makes a new one, and the folder then stays for it.
        let _ = std::fs::remove_file(self.path.join(HOME_LOCK_NAME));
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// Refuses what is no folder, is another user's, or may be written to by others.
fn expect_own(path: &Path, user: u32) -> anyhow::Result<()> {
    let found = std::fs::symlink_metadata(path).with_context(|| format!("look at {}", path.display()))?;
    let path = path.display();
    if !found.is_dir() {
        bail!("{path} is no folder");
    }
    if found.uid() != user {
        bail!("the folder {path} belongs to user {}, not to {user} who runs this vet", found.uid());
    }
    if found.mode() & OTHERS_WRITE != 0 {
        bail!("others may write to the folder {path} (mode {:03o})", found.mode() & 0o777);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn refusal(report: &Path) -> String {
        format!("{:#}", WorkFolder::open(report).err().expect("it is refused"))
    }

    #[test]
    fn one_vet_at_a_time_uses_a_folder_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let report = folder.path().join("report");
        let first = WorkFolder::open(&report).unwrap();
        let pid = std::process::id();
        let said = refusal(&report);
        assert!(
            said.contains("one vet at a time") && said.ends_with(&format!("held by process {pid}")),
            "{said}"
        );
        std::fs::create_dir(first.path.join("more")).unwrap();
        std::fs::write(first.path.join("more/file"), "x").unwrap();
        assert_eq!(std::fs::metadata(&first.path).unwrap().mode() & 0o777, MODE);
        first.close();
        assert!(std::fs::read_dir(&report).unwrap().next().is_none());
        WorkFolder::open(&report).unwrap();
    }

    #[test]
    fn a_folder_that_others_own_or_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let work = folder.path().join("work");
        std::os::unix::fs::symlink("/tmp", &work).unwrap();
        assert!(refusal(folder.path()).contains("work"));
        std::fs::remove_file(&work).unwrap();
        std::fs::create_dir(&work).unwrap();
        let user = std::fs::metadata(&work).unwrap().uid();
        expect_own(&work, user).unwrap();
        let said = expect_own(&work, user + 1).unwrap_err().to_string();
        assert!(said.contains(&format!("belongs to user {user}")), "{said}");
        for mode in [0o770, 0o777] {
            std::fs::set_permissions(&work, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(refusal(folder.path()).contains(&format!("mode {mode:03o}")));
        }
    }
}
