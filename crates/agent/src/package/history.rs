//! A package's history on this node: which version stands, which stood before, and since when.
//!
//! The file is the reference agent's: `{"current-version": …, "history": [{"version": …, "time": …}, …]}`, the newest
//! first, without a newline at its end. What else it holds is kept. A file that cannot be read as one is moved aside
//! to `NAME.backup`, and the history begins anew.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::ser::Formatter;
use serde_json::{Map, Serializer, Value, json};

use super::places::Places;
use super::rooted::{Error, Result, Root};

/// Bytes of a history that is read. At 80 bytes an entry that is more than the entries kept.
const BYTES_MAX: u64 = 4 << 20;

/// Entries that are kept, the oldest being dropped: a check each minute for a week.
const ENTRIES_MAX: usize = 10_000;

/// The mode of a history that is made.
const HISTORY_MODE: u32 = 0o644;

/// The key of the version that stands.
const CURRENT: &str = "current-version";

/// The key of the list of versions.
const ENTRIES: &str = "history";

/// The version of a package that has no history.
const UNKNOWN: &str = "unknown";

/// The version of a package that was taken off.
pub const UNINSTALLED: &str = "uninstalled";

/// Which version stood before this run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// The version, `unknown` without a history and empty after a corrupt one.
    pub version: String,
    /// The line for stdout, where there is something to say.
    pub message: Option<String>,
}

/// Reads which version stood before. To be called once in a run, so that every step sees the same; the folder of
/// histories is made, and a corrupt history moved aside.
pub fn previous_version(root: &Root, places: &Places) -> Result<Previous> {
    root.create_folders(&places.histories())?;
    let (found, message) = load(root, places)?;
    let version = match found {
        Found::Nothing => UNKNOWN.to_owned(),
        Found::Corrupt => String::new(),
        Found::History(history) => history.current().to_owned(),
    };
    Ok(Previous { version, message })
}

/// Records that `version` stands since `at` ([`UNINSTALLED`] for none). Returns the line for stdout, where there is
/// something to say.
pub fn record(root: &Root, places: &Places, version: &str, at: Timestamp) -> Result<Option<String>> {
    let (found, message) = load(root, places)?;
    let mut history = match found {
        Found::History(history) => history,
        Found::Nothing | Found::Corrupt => History::new(),
    };
    history.add(version, at);
    let path = places.history();
    let text = history.to_text().map_err(Error::io("forming", &root.host_path(&path)))?;
    root.write_whole(&path, text.as_bytes(), HISTORY_MODE)?;
    Ok(message)
}

/// Removes the temporary files that killed agents left among the histories.
pub fn sweep(root: &Root, places: &Places) -> Result<()> {
    root.sweep(&places.histories()).map(drop)
}

/// What stands in a history's place.
enum Found {
    Nothing,
    /// It was moved aside.
    Corrupt,
    History(History),
}

fn load(root: &Root, places: &Places) -> Result<(Found, Option<String>)> {
    let path = places.history();
    let history = match root.read(&path, BYTES_MAX) {
        Ok(None) => {
            let package = places.package();
            let message = format!("no existing history found for {package}, could be first installation...");
            return Ok((Found::Nothing, Some(message)));
        }
        Ok(Some(bytes)) => History::parse(&bytes),
        Err(Error::TooLarge { .. }) => None,
        Err(error) => return Err(error),
    };
    let Some(history) = history else {
        let aside = move_aside(root, &path)?;
        let aside = root.host_path(&aside);
        let message =
            format!("Failed to load existing history, corrupt history file moved to {}...", aside.display());
        return Ok((Found::Corrupt, Some(message)));
    };
    Ok((Found::History(history), None))
}

/// An earlier one that was moved aside is replaced, as the reference has it.
fn move_aside(root: &Root, path: &Path) -> Result<PathBuf> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".backup");
    let aside = PathBuf::from(aside);
    root.rename(path, &aside)?;
    Ok(aside)
}

/// A history of the right shape: an object, with a text as its current version and a list of entries.
#[derive(Debug, Clone, PartialEq)]
struct History(Map<String, Value>);

impl History {
    fn new() -> Self {
        let Value::Object(map) = json!({ CURRENT: "", ENTRIES: [] }) else {
            unreachable!("written as an object")
        };
        Self(map)
    }

    /// `None` for what is no UTF-8, no JSON or no history.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let Ok(Value::Object(map)) = serde_json::from_slice(bytes) else { return None };
        let is_history =
            map.get(CURRENT).is_some_and(Value::is_string) && map.get(ENTRIES).is_some_and(Value::is_array);
        is_history.then_some(Self(map))
    }

    fn current(&self) -> &str {
        self.0[CURRENT].as_str().expect("a history's current version is a text")
    }

    fn add(&mut self, version: &str, at: Timestamp) {
        self.0[CURRENT] = version.into();
        let time = format!("{:.6}+00:00", TimeZone::UTC.to_datetime(at));
        let entries = self.0[ENTRIES].as_array_mut().expect("a history's entries are a list");
        entries.insert(0, json!({ "version": version, "time": time }));
        entries.truncate(ENTRIES_MAX);
    }

    fn to_text(&self) -> io::Result<String> {
        let mut bytes = Vec::new();
        self.0.serialize(&mut Serializer::with_formatter(&mut bytes, AsPython))?;
        Ok(String::from_utf8(bytes).expect("JSON is UTF-8"))
    }
}

/// Writes JSON as Python's `json.dump` does: a space after commas and colons, and nothing but printable ASCII.
struct AsPython;

impl Formatter for AsPython {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.begin_array_value(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        let mut units = [0; 2];
        for character in text.chars() {
            if matches!(character, ' '..='~') {
                writer.write_all(&[character as u8])?;
                continue;
            }
            for unit in character.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
