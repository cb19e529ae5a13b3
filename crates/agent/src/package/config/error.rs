//! What is wrong with a config: where, what was found, what was expected.

use std::fmt;
use std::path::Path;

use crate::package::quoted::quoted;

/// A config that is refused: one line, exit status 1, nothing done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {place}: found {found}, expected {expected}")]
pub struct BadConfig {
    /// The file, as the caller knows it.
    pub file: String,
    /// The place in it, as a JSON path: `$.modes.apply[0].name`.
    pub place: String,
    /// What stands there, shortened.
    pub found: String,
    /// What would have been taken.
    pub expected: String,
}

/// A [`BadConfig`] that does not know its file yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) found: String,
    pub(super) expected: String,
}

impl Fault {
    pub(super) fn of_file(self, file: &Path) -> BadConfig {
        let file = file.display().to_string();
        let file = if file.chars().any(char::is_control) { quoted(&file) } else { file };
        BadConfig { file, place: self.place.to_string(), found: self.found, expected: self.expected }
    }
}

/// A place in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(String);

impl Place {
    pub(super) fn top() -> Place {
        Place("$".to_owned())
    }

    pub(super) fn key(&self, key: &str) -> Place {
        let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let Place(base) = self;
        if plain && !key.is_empty() {
            Place(format!("{base}.{key}"))
        } else {
            Place(format!("{base}[{}]", quoted(key)))
        }
    }

    pub(super) fn index(&self, index: usize) -> Place {
        Place(format!("{}[{index}]", self.0))
    }

    pub(super) fn fault(self, found: impl Into<String>, expected: impl Into<String>) -> Fault {
        Fault { place: self, found: found.into(), expected: expected.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
