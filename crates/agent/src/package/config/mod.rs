//! A package's `config.json`: what it must be, and what the agent reads from it.
//!
//! Bytes become a [`Config`] in four stages, each of which may refuse them: text and JSON within limits; the schema
//! of the version that it names; the latest version's form; the rules that a schema cannot state. Nothing here opens a
//! file: whether step files exist is asked through a function.
//!
//! As in the reference, a key that stands twice counts by its last value, and keys at the top that nobody knows
//! pass. Refused, where Python's reader takes them: NaN and infinities, half surrogate pairs, nesting beyond 128.

mod error;
mod mode;
mod read;
mod rules;
mod schema;
mod step;

use std::path::Path;

use serde_json::Value;

pub use error::BadConfig;
use error::{Fault, Place};
pub use mode::Mode;
use schema::describe;
pub use step::{Idempotence, ReturnCode, Step};

/// The longest config taken, in bytes: more than ten thousand steps with long arguments. A reader need not read on
/// past one byte more.
pub const CONFIG_BYTES_MAX: usize = 8 << 20;
/// The byte order mark, which some editors put before a text and JSON does not have.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The versions of the schema that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SchemaVersion {
    V1,
}

impl SchemaVersion {
    const ALL: [SchemaVersion; 1] = [SchemaVersion::V1];

    fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
        }
    }
}

/// What a package is and does.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Its name, which is the name of a folder.
    pub package_name: String,
    /// Its version, a semantic one.
    pub package_version: String,
    /// Files that must lie in its configmaps folder, as the config names them.
    pub expected_config_files: Vec<String>,
    /// The steps of each mode that the config lists, in its order.
    pub modes: Vec<(Mode, Vec<Step>)>,
}

impl Config {
    /// Reads a config. `file` is what errors call it.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(file: &Path, bytes: &[u8]) -> Result<Config, BadConfig> {
        parse(bytes).map_err(|fault| fault.of_file(file))
    }

    /// The steps of a mode; none where the config does not list it.
    pub fn steps(&self, mode: Mode) -> &[Step] {
        self.modes.iter().find(|(listed, _)| *listed == mode).map_or(&[], |(_, steps)| steps)
    }

    /// A warning, as a line for stderr, for each step that has no check by its name.
    pub fn missing_checks(&self) -> Vec<String> {
        rules::missing_checks(self)
    }

    /// Checks that the file of every step of every mode exists, of which `exists` is asked by its path beneath the
    /// step folder. `file` is what errors call the config.
    ///
    /// # Errors
    /// All files that do not.
    pub fn check_files(&self, file: &Path, exists: impl Fn(&str) -> bool) -> Result<(), BadConfig> {
        rules::files(self, exists).map_err(|fault| fault.of_file(file))
    }

    /// Checks that every config file that the package expects is there. `file` is what errors call the config.
    ///
    /// # Errors
    /// All that are missing.
    pub fn check_config_files(
        &self,
        file: &Path,
        is_missing: impl Fn(&str) -> bool,
    ) -> Result<(), BadConfig> {
        rules::config_files(self, is_missing).map_err(|fault| fault.of_file(file))
    }
}

/// A config as it was written, of a version that is known. Both forms say the same; the text keeps numbers as written.
struct Document<'a> {
    text: &'a str,
    value: Value,
}

fn parse(bytes: &[u8]) -> Result<Config, Fault> {
    let text = text(bytes)?;
    let value: Value = serde_json::from_str(text)
        .map_err(|error| Place::top().fault(format!("no JSON ({error})"), "a JSON object"))?;
    let version = schema_version(&value)?;
    match version {
        SchemaVersion::V1 => schema::check_v1(&value)?,
    }
    let config = read::config(migrate(version, Document { text, value }))?;
    rules::check(&config)?;
    Ok(config)
}

fn text(bytes: &[u8]) -> Result<&str, Fault> {
    let top = Place::top();
    if bytes.len() > CONFIG_BYTES_MAX {
        let found = format!("more than {CONFIG_BYTES_MAX} bytes");
        return Err(top.fault(found, format!("{CONFIG_BYTES_MAX} bytes or fewer")));
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        return Err(top.fault("a byte order mark", "JSON from the first byte on"));
    }
    let not_text = |error: std::str::Utf8Error| {
        format!("the byte 0x{:02x} at {}", bytes[error.valid_up_to()], error.valid_up_to())
    };
    std::str::from_utf8(bytes).map_err(|error| top.fault(not_text(error), "UTF-8"))
}

fn schema_version(value: &Value) -> Result<SchemaVersion, Fault> {
    let known = SchemaVersion::ALL.map(SchemaVersion::name).join(" or ");
    let Value::Object(keys) = value else { return Err(Place::top().fault(describe(value), "an object")) };
    let place = Place::top().key("schema_version");
    let Some(named) = keys.get("schema_version") else { return Err(place.fault("no such key", known)) };
    let version = SchemaVersion::ALL.into_iter().find(|version| named.as_str() == Some(version.name()));
    version.ok_or_else(|| place.fault(describe(named), known))
}

/// Brings a document to the form of the latest version: each version knows the step to the next one.
fn migrate(version: SchemaVersion, document: Document) -> Document {
    match version {
        SchemaVersion::V1 => document,
    }
}

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;
