//! The keys of a hold in authorized_keys: put in once, taken out again by something that keeps trying.
//!
//! A line is ours by its comment, `groundcrew-hold:RUN`; every other line stays as it is, byte for byte. The
//! option `expiry-time` (sshd(8), AUTHORIZED_KEYS FILE FORMAT) ends the key even where nobody takes it out. Its time is
//! written in the machine's own zone: a `Z` for UTC is known to newer servers only, and older ones refuse the line.
//! What is made belongs to the user who is to log in: sshd reads the file as that user, and takes it from no third one.

use std::fs::DirBuilder;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use groundcrew_durable::Error;
use groundcrew_durable::whole::{Options, read_bounded, write_whole};
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::time::WallMs;
use jiff::tz::TimeZone;
use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use crate::settings::users::{self, User};

/// An authorized_keys over this size is left alone.
const KEYS_BYTES_MAX: u64 = 1024 * 1024;
/// Only its owner reads a new one, as sshd wants it.
const KEYS_MODE: u32 = 0o600;
/// How the comment of every line of ours begins.
const COMMENT: &str = "groundcrew-hold:";
/// And nobody but them looks into its folder.
const FOLDER_MODE: u32 = 0o700;

/// The machine's time zone, in which sshd reads a time.
const ZONE_FILE: &str = "/etc/localtime";
/// Larger than any zone.
const ZONE_BYTES_MAX: u64 = 256 * 1024;

/// Twice what a zone needs in a build without optimisation.
const ZONE_STACK_BYTES: usize = 4 * 1024 * 1024;

/// The files of an SSH server's public host keys.
const HOST_KEYS: [&str; 3] = ["ssh_host_ed25519_key.pub", "ssh_host_ecdsa_key.pub", "ssh_host_rsa_key.pub"];
const HOST_KEY_BYTES_MAX: u64 = 2_048;

/// Why a key could not be put in or taken out.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The file.
    #[error("changing the keys in {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: Error,
    },
    /// Its folder.
    #[error("making the folder {folder} for the key of a hold")]
    Folder {
        /// Which.
        folder: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The rights of the user who logs in.
    #[error("taking the rights of user {uid}, to whom the keys belong")]
    Rights {
        /// Whose.
        uid: u32,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The machine's time zone.
    #[error("starting a thread to read the time zone")]
    Zone {
        /// Why it did not start.
        #[source]
        source: std::io::Error,
    },
    /// The key that was offered is none.
    #[error("the key of the hold: found {found:?}, expected one line of an SSH public key without options")]
    BadKey {
        /// What was offered, cut to 40 characters.
        found: String,
    },
}

/// Puts the run's keys, a line each, into the file at `path`, in the place of earlier ones of the same run. True where that
/// changed it. A file that is made belongs to `user`, else to the owner of its folder.
///
/// # Errors
/// [`HoldError::BadKey`] where a key could hold options or a second line; [`HoldError::File`].
pub fn install(
    path: &Path,
    user: Option<&User>,
    run: &RunId,
    keys: &str,
    expires_at: WallMs,
) -> Result<bool, HoldError> {
    let zone = zone_in(Path::new(ZONE_FILE))?;
    let mut lines = String::new();
    for key in keys.split('\n') {
        lines.push_str(&line_of(run, key, expires_at, &zone)?);
        lines.push('\n');
    }
    as_owner(path, user, &|| {
        make_folder(path)?;
        change(path, |text| with_lines(text, |of| of != run.as_str(), &lines))
    })
}

/// Takes the run's keys out of the file at `path`. True where there was one.
///
/// # Errors
/// [`HoldError::File`].
pub fn remove(path: &Path, user: Option<&User>, run: &RunId) -> Result<bool, HoldError> {
    as_owner(path, user, &|| change(path, |text| with_lines(text, |of| of != run.as_str(), "")))
}

/// Takes out what agents without a memory have left: every key of a hold but those of the run `stays`. True where there was
/// one. A file belongs to one agent.
///
/// # Errors
/// [`HoldError::File`].
pub fn sweep(path: &Path, user: Option<&User>, stays: Option<&RunId>) -> Result<bool, HoldError> {
    let stays = |of: &str| stays.is_some_and(|run| of == run.as_str());
    as_owner(path, user, &|| change(path, |text| with_lines(text, stays, "")))
}

/// Who logs in by the file at `path`: `user`, else the owner of the nearest folder above it that there is.
pub fn login_of(path: &Path, user: Option<&User>) -> Option<String> {
    if let Some(user) = user {
        return Some(user.name.clone());
    }
    let (owner, _) = owner_of(path, None)?;
    users::find(Path::new(users::PASSWD), |user| user.uid == owner).map(|user| user.name)
}

/// Does it as the owner, and so with no more rights than theirs: where their folder leads elsewhere, nothing is done that they could
/// not do themselves. The rights are those of a thread, which ends with it.
///
/// Not generic: the agent is to be small, and a thread's start is code for each kind of work.
fn as_owner(
    path: &Path,
    user: Option<&User>,
    work: &(dyn Fn() -> Result<bool, HoldError> + Sync),
) -> Result<bool, HoldError> {
    let owner = owner_of(path, user).filter(|(uid, _)| *uid != 0 && rustix::process::geteuid().is_root());
    let Some((uid, gid)) = owner else { return work() };
    let failed = |source| HoldError::Rights { uid, source };
    let lower = move || -> rustix::io::Result<()> {
        set_thread_groups(&[Gid::from_raw(gid)])?;
        set_thread_gid(Gid::from_raw(gid))?;
        set_thread_uid(Uid::from_raw(uid))
    };
    std::thread::scope(|scope| {
        let all = move || {
            lower().map_err(|errno| failed(errno.into()))?;
            work()
        };
        let thread = std::thread::Builder::new().spawn_scoped(scope, all).map_err(failed)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// To whom the keys belong: `user`, else the owner of the nearest folder that there is; of a link it is the link's own.
fn owner_of(path: &Path, user: Option<&User>) -> Option<(u32, u32)> {
    let of_folder = || {
        let found = path.ancestors().skip(1).find_map(|place| std::fs::symlink_metadata(place).ok())?;
        Some((found.uid(), found.gid()))
    };
    user.map(|user| (user.uid, user.gid)).or_else(of_folder)
}

/// Makes the folder of the file where it is missing, as a live image's `.ssh` is; not those above it, which a mistyped path
/// would name.
fn make_folder(path: &Path) -> Result<(), HoldError> {
    let made = path.parent().map(|folder| (folder, DirBuilder::new().mode(FOLDER_MODE).create(folder)));
    match made {
        Some((folder, Err(source))) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(HoldError::Folder { folder: folder.display().to_string(), source })
        }
        Some(_) | None => Ok(()),
    }
}

fn change(path: &Path, edit: impl Fn(&[u8]) -> Vec<u8>) -> Result<bool, HoldError> {
    let failed = |source| HoldError::File { path: path.display().to_string(), source };
    let before = read_bounded(path, KEYS_BYTES_MAX).map_err(failed)?;
    let after = edit(before.as_deref().unwrap_or_default());
    if before.as_deref().unwrap_or_default() == after {
        return Ok(false);
    }
    write_whole(path, &after, &Options { mode_for_new: KEYS_MODE }).map_err(failed)?;
    Ok(true)
}

/// The zone in that file. The C library, and with it sshd, takes UTC where it is missing or says nothing; so does this.
///
/// The parser unfolds a zone on the stack, more than the agent's small threads have: it gets a thread of its own.
fn zone_in(path: &Path) -> Result<TimeZone, HoldError> {
    let read = || {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).ok()?;
        file.take(ZONE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        TimeZone::tzif("localtime", &bytes).ok()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(ZONE_STACK_BYTES).spawn_scoped(scope, read);
        let thread = thread.map_err(|source| HoldError::Zone { source })?;
        Ok(thread.join().unwrap_or_default().unwrap_or(TimeZone::UTC))
    })
}

fn line_of(run: &RunId, key: &str, expires_at: WallMs, zone: &TimeZone) -> Result<String, HoldError> {
    let bad = || HoldError::BadKey { found: key.chars().take(40).collect() };
    let mut words = key.split(' ');
    let (kind, blob) = (words.next().ok_or_else(bad)?, words.next().ok_or_else(bad)?);
    let known = ["ssh-", "ecdsa-", "sk-"].iter().any(|start| kind.starts_with(start));
    let is_base64 = blob.len() > 16 && blob.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
    if !known || !is_base64 || key.chars().any(char::is_control) {
        return Err(bad());
    }
    let until = jiff::Timestamp::from_millisecond(expires_at.0).map_err(|_| bad())?;
    let local = zone.to_datetime(until);
    let (date, time) = (local.date(), local.time());
    let stamp = format!("{:04}{:02}{:02}", local.year(), date.month(), date.day());
    let stamp = format!("{stamp}{:02}{:02}{:02}", time.hour(), time.minute(), time.second());
    Ok(format!("expiry-time=\"{stamp}\" {kind} {blob} {}", comment_of(run)))
}

fn comment_of(run: &RunId) -> String {
    format!("{COMMENT}{run}")
}

/// The run whose line this is, where it is one of ours. What only mentions a hold lets nobody in, and is somebody's note.
fn run_of(line: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(line).ok()?.trim_ascii();
    let (key, comment) = line.rsplit_once(' ')?;
    let run = comment.strip_prefix(COMMENT)?;
    (!key.starts_with('#')).then_some(run)
}

/// The file's bytes without those lines of ours whose run does not stay, and with `lines` at the end.
fn with_lines(text: &[u8], stays: impl Fn(&str) -> bool, lines: &str) -> Vec<u8> {
    let mut kept: Vec<u8> = Vec::with_capacity(text.len() + lines.len() + 1);
    for one in text.split_inclusive(|byte| *byte == b'\n') {
        if run_of(one).is_none_or(&stays) {
            kept.extend_from_slice(one);
        }
    }
    if !lines.is_empty() && kept.last().is_some_and(|byte| *byte != b'\n') {
        kept.push(b'\n');
    }
    kept.extend_from_slice(lines.as_bytes());
    kept
}

/// The public host keys of the SSH server whose folder that is; one that cannot be read is not told.
pub fn host_keys(folder: &Path) -> Vec<String> {
    let read = |name: &&str| {
        let bytes = read_bounded(&folder.join(name), HOST_KEY_BYTES_MAX).ok()??;
        String::from_utf8(bytes).ok().map(|text| text.trim().to_owned())
    };
    HOST_KEYS.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl admin@desk";

    fn run(text: &str) -> RunId {
        text.parse().unwrap()
    }

    #[test]
    fn a_key_goes_in_once_and_out_again_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authorized_keys");
        let others =
            b"ssh-rsa AAAA someone@else\n# groundcrew-hold:r-1 is mentioned here\nno newline at the end";
        std::fs::write(&path, others).unwrap();
        assert!(install(&path, None, &run("r-1"), KEY, WallMs(1_800_000_000_000)).unwrap());
        assert!(!install(&path, None, &run("r-1"), KEY, WallMs(1_800_000_000_000)).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("groundcrew-hold:r-1\n").count(), 1, "{text}");
        let line =
            line_of(&run("r-1"), KEY, WallMs(1_800_000_000_000), &zone_in(Path::new(ZONE_FILE)).unwrap());
        assert!(text.contains(&line.unwrap()), "{text}");
        assert!(remove(&path, None, &run("r-1")).unwrap());
        assert!(!remove(&path, None, &run("r-1")).unwrap());
        let after = std::fs::read(&path).unwrap();
        assert_eq!(after, [&others[..], b"\n"].concat());
    }

    #[test]
    fn the_time_at_which_a_key_ends_is_the_machines_own_and_without_a_z() {
        let stamp = |zone: &TimeZone| {
            let line = line_of(&run("r-1"), KEY, WallMs(1_800_000_000_000), zone).unwrap();
            line.split(' ').next().unwrap().to_owned()
        };
        assert_eq!(stamp(&TimeZone::UTC), "expiry-time=\"20270115080000\"");
        assert_eq!(stamp(&TimeZone::fixed(jiff::tz::offset(-9))), "expiry-time=\"20270114230000\"");
        // A file of tzfile(5), version 1: no transitions, one type, two hours east of Greenwich.
        let mut zone = b"TZif\0".to_vec();
        zone.extend([0; 15]);
        for count in [0_u32, 0, 0, 0, 1, 4] {
            zone.extend(count.to_be_bytes());
        }
        zone.extend(7200_i32.to_be_bytes());
        zone.extend(b"\0\0EET\0");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("localtime");
        std::fs::write(&path, zone).unwrap();
        assert_eq!(stamp(&zone_in(&path).unwrap()), "expiry-time=\"20270115100000\"");
        for other in ["missing", "."] {
            assert_eq!(zone_in(&folder.path().join(other)).unwrap(), TimeZone::UTC, "{other}");
        }
    }

    #[test]
    fn a_key_goes_in_from_a_thread_with_a_small_stack() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let install = move || install(&path, None, &run("r-1"), KEY, WallMs(0));
        // As the I/O thread has it.
        let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn(install).unwrap();
        assert!(thread.join().unwrap().unwrap());
    }

    #[test]
    fn the_folder_of_the_keys_is_made_and_those_above_it_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".ssh/authorized_keys");
        assert!(install(&path, None, &run("r-1"), KEY, WallMs(0)).unwrap());
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path.parent().unwrap()).unwrap());
        assert_eq!(mode & 0o777, FOLDER_MODE);
        let mistyped = folder.path().join("hmoe/root/.ssh/authorized_keys");
        let error = install(&mistyped, None, &run("r-1"), KEY, WallMs(0)).unwrap_err();
        assert!(error.to_string().contains("hmoe/root/.ssh"), "{error}");
    }

    #[test]
    fn several_keys_go_in_and_out_together_and_each_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let other = KEY.replace("admin@desk", "ben").replace("IOMq", "IOMr");
        assert!(install(&path, None, &run("r-1"), &format!("{KEY}\n{other}"), WallMs(0)).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches("expiry-time=").count(), 2, "{text}");
        assert_eq!(text.matches(" groundcrew-hold:r-1\n").count(), 2, "{text}");
        // One of them is taken back.
        assert!(install(&path, None, &run("r-1"), &other, WallMs(0)).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.matches("expiry-time=").count() == 1 && text.contains("IOMr"), "{text}");
        assert!(remove(&path, None, &run("r-1")).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    }

    #[test]
    fn what_agents_without_a_memory_have_left_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        assert!(!sweep(&path, None, None).unwrap());
        assert!(!path.exists(), "a sweep makes no file");
        let others = "ssh-rsa AAAA someone@else\n# was groundcrew-hold:r-1\n";
        std::fs::write(&path, others).unwrap();
        for name in ["r-1", "r-2"] {
            install(&path, None, &run(name), KEY, WallMs(0)).unwrap();
        }
        assert!(
            sweep(&path, None, Some(&run("r-2"))).unwrap() && !sweep(&path, None, Some(&run("r-2"))).unwrap()
        );
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with(" groundcrew-hold:r-2\n") && text.lines().count() == 3, "{text}");
        assert!(sweep(&path, None, None).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), others);
    }

    /// A home of somebody else's, where this is root: sshd reads the file as the user who logs in.
    fn home_of_ann(folder: &Path) -> User {
        let home = folder.join("home");
        std::fs::create_dir(&home).unwrap();
        // Whoever owns the home has a way to it.
        std::fs::set_permissions(folder, Permissions::from_mode(0o711)).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&home, Some(54_321), Some(54_322)).unwrap();
        }
        let found = std::fs::metadata(&home).unwrap();
        User { name: "ann".to_owned(), uid: found.uid(), gid: found.gid(), home }
    }

    #[test]
    fn what_is_made_belongs_to_the_user_who_logs_in() {
        let folder = tempfile::tempdir().unwrap();
        let ann = home_of_ann(folder.path());
        let owner = |path: &Path| std::fs::metadata(path).map(|found| (found.uid(), found.gid())).unwrap();
        for (name, user) in [(".ssh", None), ("keys", Some(&ann))] {
            let path = ann.home.join(name).join("authorized_keys");
            install(&path, user, &run("r-1"), KEY, WallMs(0)).unwrap();
            let all = (owner(&path), owner(path.parent().unwrap()));
            assert_eq!(all, ((ann.uid, ann.gid), (ann.uid, ann.gid)), "{name}");
            // It stays theirs when it is changed.
            remove(&path, user, &run("r-1")).unwrap();
            assert_eq!(owner(&path), (ann.uid, ann.gid), "{name}");
            assert_eq!(login_of(&path, Some(&ann)).as_deref(), Some("ann"));
        }
    }

    /// Nobody gets root to write where they could not.
    #[test]
    fn a_folder_that_leads_elsewhere_is_written_to_with_its_owners_rights() {
        let folder = tempfile::tempdir().unwrap();
        let ann = home_of_ann(folder.path());
        let elsewhere = folder.path().join("cron.daily");
        std::fs::create_dir(&elsewhere).unwrap();
        let ssh = ann.home.join(".ssh");
        std::os::unix::fs::symlink(&elsewhere, &ssh).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(&ssh, Some(ann.uid), Some(ann.gid)).unwrap();
            for user in [None, Some(&ann)] {
                let refused = install(&ssh.join("authorized_keys"), user, &run("r-1"), KEY, WallMs(0));
                assert!(matches!(refused, Err(HoldError::File { .. })), "{refused:?}");
            }
            assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
            assert_eq!(std::fs::metadata(&elsewhere).unwrap().uid(), 0);
        } else {
            // It is their own, and they may.
            assert!(install(&ssh.join("authorized_keys"), None, &run("r-1"), KEY, WallMs(0)).unwrap());
        }
    }

    #[test]
    fn who_logs_in_is_the_owner_of_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let ours = rustix::process::geteuid().as_raw();
        let name = users::find(Path::new(users::PASSWD), |user| user.uid == ours).map(|user| user.name);
        assert_eq!(login_of(&folder.path().join("none/.ssh/keys"), None), name);
    }

    #[test]
    fn another_runs_key_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        install(&path, None, &run("r-1"), KEY, WallMs(0)).unwrap();
        install(&path, None, &run("r-12"), KEY, WallMs(0)).unwrap();
        remove(&path, None, &run("r-1")).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("groundcrew-hold:r-12\n"));
    }

    #[test]
    fn what_is_no_key_is_refused_and_nothing_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        for bad in [
            "",
            "ssh-ed25519",
            "command=\"id\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnk",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA\nssh-rsa AAAA",
            "ssh-ed25519 \"AAAAC3NzaC1lZDI1NTE5AAAA",
        ] {
            assert!(
                matches!(install(&path, None, &run("r-1"), bad, WallMs(0)), Err(HoldError::BadKey { .. })),
                "{bad:?}"
            );
        }
        assert!(!path.exists());
    }

    #[test]
    fn a_link_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        std::fs::write(&target, "x\n").unwrap();
        let path = folder.path().join("keys");
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(install(&path, None, &run("r-1"), KEY, WallMs(0)).is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"x\n");
    }
}
