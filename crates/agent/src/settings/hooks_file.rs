//! The file with the hooks of a node. What it names runs as the agent does, so nobody else may be able to write it.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use groundcrew_protocol::profile::{BadProfile, HOOKS_BYTES_MAX, Hooks};

/// Bits of a mode that let somebody write who is not the owner.
const OTHERS_WRITE: u32 = 0o022;

/// Why the hooks cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HooksError {
    /// The file cannot be read.
    #[error("reading the hooks {}", path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Somebody else can write it.
    #[error(
        "the hooks {}: found a file of user {owner} with mode {mode:04o}, expected one of root or of this user that nobody \
         else can write: what it names runs as this agent", path.display()
    )]
    Writable {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its mode.
        mode: u32,
    },
    /// It is no text.
    #[error("the hooks {}: found bytes that are no UTF-8, expected TOML", path.display())]
    NoText {
        /// The file.
        path: PathBuf,
    },
    /// What it says is refused.
    #[error("the hooks {}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What, and where.
        source: BadProfile,
    },
}

/// Reads the file of hooks.
///
/// # Errors
/// [`HooksError`].
pub(super) fn read(path: &Path) -> Result<Hooks, HooksError> {
    let unread = |source| HooksError::Unread { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unread)?;
    let found = file.metadata().map_err(unread)?;
    let (owner, mode) = (found.uid(), found.mode() & 0o7777);
    let is_ours = owner == 0 || owner == rustix::process::geteuid().as_raw();
    if !found.is_file() || !is_ours || mode & OTHERS_WRITE != 0 {
        return Err(HooksError::Writable { path: path.to_owned(), owner, mode });
    }
    // One byte more than there may be, so that a longer file is refused and not cut.
    let (mut bytes, bytes_max) = (Vec::new(), u64::try_from(HOOKS_BYTES_MAX).unwrap_or(u64::MAX));
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(unread)?;
    let text = String::from_utf8(bytes).map_err(|_| HooksError::NoText { path: path.to_owned() })?;
    Hooks::parse(&text).map_err(|source| HooksError::Bad { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::errors::chain;

    #[test]
    fn hooks_are_read_from_a_file_that_nobody_else_can_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hooks.toml");
        assert!(matches!(read(&path), Err(HooksError::Unread { .. })));
        std::fs::write(&path, "[ready]\non_hold = { argv = [\"true\"], deadline = \"1m\" }\n").unwrap();
        for (mode, is_taken) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let hooks = read(&path);
            assert_eq!(hooks.is_ok(), is_taken, "{mode:o}: {hooks:?}");
        }
        assert!(chain(&read(&path).unwrap_err()).contains("mode 0646"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "[ready]\non_hodl = 1\n").unwrap();
        let error = chain(&read(&path).unwrap_err());
        assert!(error.contains("line 2, ready.on_hodl: found an unknown key"), "{error}");
        std::fs::write(&path, b"\xff").unwrap();
        assert!(matches!(read(&path), Err(HooksError::NoText { .. })));
        std::fs::write(&path, "x".repeat(HOOKS_BYTES_MAX + 2)).unwrap();
        assert!(matches!(read(&path), Err(HooksError::Bad { .. })));
    }
}
