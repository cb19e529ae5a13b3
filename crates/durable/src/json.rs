//! Updates of JSON files that several processes write, keeping what this one does not know.
//!
//! A file is read, changed and replaced whole under an advisory lock. The lock lies on a sibling,
//! `.NAME.lock`, because a rename puts another inode at the name and so defeats a lock on the file itself.
//! Whoever writes the file without that lock can still be overwritten, unless it is [shared](update_shared_json_at)
//! with such writers; readers need no lock.
//!
//! Unknown fields and the order of all fields are kept. Layout is not (two spaces, a newline at the end), a
//! key that stands twice keeps its last value, and a number beyond 64 bits its nearest double.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::fault;
use crate::folder::Place;
use crate::lock::{LOCK_MODE, Locked, try_lock};
use crate::points;
use crate::whole::{self, read_bounded, read_in, write_in_where};

/// The fields of a JSON object, in the order of the file.
pub type Fields = Map<String, Value>;

const EXPECTED: &str = "a JSON object";

/// The pause between two tries for a taken lock doubles from the first to the second of these: an update takes
/// about as long as two fsyncs, a few milliseconds.
const LOCK_PAUSE_MIN: Duration = Duration::from_millis(1);
const LOCK_PAUSE_MAX: Duration = Duration::from_millis(32);

/// Times that a shared file is read again because somebody without the lock was quicker. Such a writer comes every few
/// seconds; one that comes in each of these few milliseconds is out of order.
const SHARED_TRIES_MAX: u32 = 8;

/// The limits of an update.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The largest file that is read or written, in bytes.
    pub bytes_max: u64,
    /// How long to wait for the lock.
    pub lock_wait: Duration,
    /// The mode of a file that did not exist, as in [`whole::Options`].
    pub mode_for_new: u32,
}

impl Default for Options {
    /// 1 MiB, because such a file describes one machine or one agent; 5 s, after which a home counts as
    /// stalled; mode 0600.
    fn default() -> Self {
        Self { bytes_max: 1 << 20, lock_wait: Duration::from_secs(5), mode_for_new: 0o600 }
    }
}

/// Changes the JSON object in the file at `path`, durably, and returns what `edit` said.
///
/// `edit` gets the fields as they stand under the lock, none where there is no file, and says whether it
/// changed them; where it says no, nothing is written. Content that is no JSON object is
/// [`Error::Malformed`], a lock that stays taken [`Error::LockWait`], too much content, before or after,
/// [`Error::TooLarge`]; after each of them the file is as it was.
pub fn update_json(path: &Path, options: &Options, edit: impl FnOnce(&mut Fields) -> bool) -> Result<bool> {
    update_in(&Place::of(path)?, options, edit)
}

/// [`update_json`] of a file that others write too who do not know the lock, in a folder that the caller holds open for
/// reading, wherever a path to it may lead by now. The name there is the last component of `path`.
///
/// Before the new content takes the place of the old, that is compared with what was read, and where it is another,
/// `edit` gets that one. What goes on like this is [`Error::KeepsChanging`].
pub fn update_shared_json_at(
    folder: OwnedFd,
    path: &Path,
    options: &Options,
    mut edit: impl FnMut(&mut Fields) -> bool,
) -> Result<bool> {
    let place = Place::within(folder, path)?;
    let _lock = lock_beside(&place, options.lock_wait)?;
    fault::point(points::JSON_LOCKED);
    for _ in 0..SHARED_TRIES_MAX {
        let before = read_in(&place, options.bytes_max)?;
        let still = || Ok(read_in(&place, options.bytes_max)? == before);
        match replace(&place, options, before.as_deref(), &mut edit, still)? {
            Replaced::Unchanged => return Ok(false),
            Replaced::Written => return Ok(true),
            Replaced::Overtaken => {}
        }
    }
    Err(Error::KeepsChanging { path: path.to_owned(), tries: SHARED_TRIES_MAX })
}

fn update_in(place: &Place, options: &Options, edit: impl FnOnce(&mut Fields) -> bool) -> Result<bool> {
    let _lock = lock_beside(place, options.lock_wait)?;
    fault::point(points::JSON_LOCKED);
    let before = read_in(place, options.bytes_max)?;
    match replace(place, options, before.as_deref(), edit, || Ok(true))? {
        Replaced::Unchanged => Ok(false),
        Replaced::Written => Ok(true),
        Replaced::Overtaken => unreachable!("whoever holds the lock says that nothing overtakes it"),
    }
}

/// What became of an update.
enum Replaced {
    /// There was nothing to change.
    Unchanged,
    /// The new content is durable.
    Written,
    /// The file is not what it was when it was read; nothing was written.
    Overtaken,
}

/// Replaces the content under the lock.
fn replace(
    place: &Place,
    options: &Options,
    before: Option<&[u8]>,
    edit: impl FnOnce(&mut Fields) -> bool,
    still: impl FnOnce() -> Result<bool>,
) -> Result<Replaced> {
    let path = &place.path;
    let mut fields = match before {
        Some(bytes) => parse(path, bytes)?,
        None => Fields::new(),
    };
    fault::point(points::JSON_READ);
    if !edit(&mut fields) {
        return Ok(Replaced::Unchanged);
    }
    fault::point(points::JSON_EDITED);
    let mut bytes =
        serde_json::to_vec_pretty(&fields).expect("a map of JSON values with text keys is always JSON");
    bytes.push(b'\n');
    if bytes.len() as u64 > options.bytes_max {
        return Err(Error::TooLarge { path: path.clone(), bytes_max: options.bytes_max });
    }
    let written = whole::Options { mode_for_new: options.mode_for_new };
    if !write_in_where(place, &bytes, &written, still)? {
        return Ok(Replaced::Overtaken);
    }
    fault::point(points::JSON_WRITTEN);
    Ok(Replaced::Written)
}

/// Reads the JSON object in the file at `path`, without a lock; `None` where there is no file.
pub fn read_json(path: &Path, bytes_max: u64) -> Result<Option<Fields>> {
    read_bounded(path, bytes_max)?.map(|bytes| parse(path, &bytes)).transpose()
}

/// [`read_json`] in a folder that the caller holds open, wherever a path to it may lead by now.
pub fn read_json_at(folder: OwnedFd, path: &Path, bytes_max: u64) -> Result<Option<Fields>> {
    let place = Place::within(folder, path)?;
    read_in(&place, bytes_max)?.map(|bytes| parse(path, &bytes)).transpose()
}

/// Waits for the sibling lock by trying again and again: flock(2) knows no deadline, and a signal to interrupt
/// it would belong to the whole process.
pub(crate) fn lock_beside(place: &Place, wait: Duration) -> Result<Locked> {
    let mut name = OsString::from(".");
    name.push(&place.name);
    name.push(".lock");
    let started = Instant::now();
    let mut pause = LOCK_PAUSE_MIN;
    loop {
        if let Some(lock) = try_lock(place, &name, OFlags::RDONLY, LOCK_MODE)? {
            return Ok(lock);
        }
        let left = wait.saturating_sub(started.elapsed());
        if left.is_zero() {
            let waited_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            return Err(Error::LockWait { path: place.sibling(&name), waited_ms });
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(LOCK_PAUSE_MAX);
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Fields> {
    let malformed =
        |found: String, source| Error::Malformed { path: path.to_owned(), found, expected: EXPECTED, source };
    if bytes.is_empty() {
        return Err(malformed("an empty file".to_owned(), None));
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("text that is not JSON at line {}, column {}", error.line(), error.column());
        malformed(place, Some(error))
    })?;
    let found = match value {
        Value::Object(fields) => return Ok(fields),
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
    };
    Err(malformed(found.to_owned(), None))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use serde_json::json;

    use super::*;

    fn home() -> (tempfile::TempDir, std::path::PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("agent-info.json");
        (home, path)
    }

    fn set(path: &Path, key: &str, value: Value) -> Result<bool> {
        update_json(path, &Options::default(), |fields| {
            fields.insert(key.to_owned(), value);
            true
        })
    }

    #[test]
    fn unknown_fields_and_their_order_are_kept() {
        let (_home, path) = home();
        fs::write(
            &path,
            r#"{"zeta":{"b":1,"a":[null,423.20917087271323,"é\u0000"]},"phase":"running","alpha":18446744073709551615}"#,
        )
        .unwrap();
        set(&path, "phase", json!("stopped")).unwrap();
        set(&path, "new", json!(-1)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let compact: String = text.split_whitespace().collect();
        let expected = r#"{"zeta":{"b":1,"a":[null,423.20917087271323,"é\u0000"]},"phase":"stopped","alpha":18446744073709551615,"new":-1}"#;
        assert_eq!(compact, expected);
    }

    #[test]
    fn nothing_is_written_where_nothing_changed() {
        let (_home, path) = home();
        assert!(!update_json(&path, &Options::default(), |fields| !fields.is_empty()).unwrap());
        assert!(!path.exists());
        set(&path, "a", json!(1)).unwrap();
        let before = fs::metadata(&path).unwrap();
        assert!(!update_json(&path, &Options::default(), |_| false).unwrap());
        let after = fs::metadata(&path).unwrap();
        assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
    }

    #[test]
    fn what_is_no_object_is_named_and_left_alone() {
        let (_home, path) = home();
        let deep = "[".repeat(100_000);
        for (content, found) in [
            ("", "an empty file"),
            ("[1]", "an array"),
            ("null", "null"),
            ("true", "true or false"),
            ("7", "a number"),
            ("\"a\"", "a string"),
            ("{\"a\": 1", "text that is not JSON at line 1, column 7"),
            ("{}\n{}", "text that is not JSON at line 2, column 1"),
            (&deep, "text that is not JSON at line 1, column 128"),
        ] {
            fs::write(&path, content).unwrap();
            let error = set(&path, "a", json!(1)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("{}: found {found}, expected a JSON object", path.display())
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        fs::write(&path, b"{\"a\":\"\xff\"}").unwrap();
        assert!(matches!(set(&path, "a", json!(1)), Err(Error::Malformed { source: Some(_), .. })));
    }

    #[test]
    fn the_limit_holds_for_what_is_read_and_for_what_would_be_written() {
        let (_home, path) = home();
        let options = Options { bytes_max: 32, ..Options::default() };
        let fill = |length: usize| {
            update_json(&path, &options, |fields| {
                fields.insert("a".to_owned(), json!("x".repeat(length)));
                true
            })
        };
        // {, newline, two spaces, "a": "…", newline, }, newline: 14 bytes around the text.
        fill(18).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 32);
        assert!(matches!(fill(19), Err(Error::TooLarge { bytes_max: 32, .. })));
        assert_eq!(fs::metadata(&path).unwrap().len(), 32);
        fs::write(&path, format!("{{}}{}", " ".repeat(31))).unwrap();
        assert!(matches!(fill(1), Err(Error::TooLarge { bytes_max: 32, .. })));
    }

    #[test]
    fn what_somebody_without_the_lock_writes_meanwhile_is_not_lost() {
        let (home, path) = home();
        let update = |edit: &mut dyn FnMut(&mut Fields) -> bool| {
            let folder = crate::folder::open_folder(home.path()).unwrap();
            update_shared_json_at(folder, &path, &Options::default(), edit)
        };
        fs::write(&path, r#"{"phase":"running"}"#).unwrap();
        let mut calls = 0;
        let written = update(&mut |fields| {
            calls += 1;
            if calls == 1 {
                fs::write(&path, r#"{"phase":"running","theirs":1}"#).unwrap();
            }
            fields.insert("phase".to_owned(), json!("stopped")).is_some()
        });
        assert!(written.unwrap() && calls == 2);
        let fields = read_json(&path, 1024).unwrap().unwrap();
        assert_eq!(Value::Object(fields), json!({"phase": "stopped", "theirs": 1}));
        // One that never ceases is named, and its word stands.
        let mut calls = 0;
        let error = update(&mut |fields| {
            calls += 1;
            fs::write(&path, format!(r#"{{"theirs":{calls}}}"#)).unwrap();
            fields.insert("phase".to_owned(), json!("stopped"));
            true
        });
        assert!(matches!(error, Err(Error::KeepsChanging { tries: SHARED_TRIES_MAX, .. })));
        assert_eq!(read_json(&path, 1024).unwrap().unwrap().get("theirs"), Some(&json!(calls)));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 2, "a temporary file is left");
    }

    #[test]
    fn a_taken_lock_is_waited_for_and_then_named() {
        let (_home, path) = home();
        set(&path, "a", json!(1)).unwrap();
        let place = Place::of(&path).unwrap();
        let taken = lock_beside(&place, Duration::ZERO).unwrap();
        let short = Options { lock_wait: Duration::from_millis(3), ..Options::default() };
        let error = update_json(&path, &short, |_| unreachable!("the lock is taken")).unwrap_err();
        assert!(error.to_string().ends_with(".agent-info.json.lock was still taken after 3 ms"), "{error}");

        // Whoever waits gets it once it is free.
        let waiting = path.clone();
        let waiter = thread::spawn(move || set(&waiting, "b", json!(2)));
        drop(taken);
        assert!(waiter.join().unwrap().unwrap());
        assert_eq!(read_json(&path, 1024).unwrap().unwrap().get("b"), Some(&json!(2)));
    }
}
