//! The file with the hooks of a node. What it names runs as the agent does, so nobody else may be able to write it.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use groundcrew_protocol::profile::{BadProfile, HOOKS_BYTES_MAX, Hooks};
use groundcrew_protocol::wire::HomeKind;

use crate::files::kind_of;

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
    /// The home would forget what is to be undone.
    #[error(
        "the hooks {}: found [drain] after, and the home {} on a file system that is lost with the machine's power: after a \
         reboot in a drain nobody would know that the node is to be given back. Expected a home on a disk (--home), or no hooks \
         of [drain]; those of [ready] are fine", path.display(), home.display()
    )]
    Forgotten {
        /// The file.
        path: PathBuf,
        /// The home.
        home: PathBuf,
    },
    /// Nobody can say whether it would.
    #[error("the hooks {}", path.display())]
    Home {
        /// The file.
        path: PathBuf,
        /// What the system says of the home.
        source: groundcrew_durable::Error,
    },
}

/// Reads the file of hooks, for an agent with this home.
///
/// # Errors
/// [`HooksError`].
pub(super) fn read(path: &Path, home: &Path) -> Result<Hooks, HooksError> {
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
    let hooks = Hooks::parse(&text).map_err(|source| HooksError::Bad { path: path.to_owned(), source })?;
    if hooks.after_drain.is_none() {
        return Ok(hooks);
    }
    match kind_of(home).map_err(|source| HooksError::Home { path: path.to_owned(), source })? {
        HomeKind::Durable => Ok(hooks),
        HomeKind::Volatile | HomeKind::Unknown(_) => {
            Err(HooksError::Forgotten { path: path.to_owned(), home: home.to_owned() })
        }
    }
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
        let read = |path: &Path| read(path, folder.path());
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

    #[test]
    fn a_home_in_memory_is_refused_where_it_would_forget_what_is_to_be_undone() {
        let memory = tempfile::tempdir_in("/dev/shm").expect("every Linux system has this tmpfs");
        let path = memory.path().join("hooks.toml");
        let hook = "{ argv = [\"true\"], deadline = \"1m\" }";
        let undone = format!("[drain]\nbefore = {hook}\nafter = {hook}\n");
        let cases = [
            (undone, false),
            (format!("[drain]\nbefore = {hook}\n"), true),
            (format!("[ready]\non_hold = {hook}\non_completed = {hook}\n"), true),
        ];
        for (text, may_forget) in cases {
            std::fs::write(&path, &text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            // Neither is made yet.
            let (lost, kept) = (memory.path().join("of/home"), Path::new("/proc/of/home"));
            assert!(read(&path, kept).is_ok(), "{text}");
            match read(&path, &lost) {
                Ok(_) => assert!(may_forget, "{text}"),
                Err(error) => {
                    let said = chain(&error);
                    assert!(!may_forget && matches!(error, HooksError::Forgotten { .. }), "{said}");
                    for part in [path.to_str().unwrap(), lost.to_str().unwrap(), "--home", "[ready]"] {
                        assert!(said.contains(part), "{part} in {said}");
                    }
                }
            }
        }
    }
}
