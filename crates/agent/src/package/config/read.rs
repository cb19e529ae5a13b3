//! A document that keeps to its schema, as a [`Config`].

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::{Fault, Place};
use super::{Config, Document, Idempotence, Mode, ReturnCode, Step};

/// The keys of a config that are read.
#[derive(Deserialize)]
struct WrittenConfig {
    package_name: String,
    package_version: String,
    expected_config_files: Vec<String>,
    /// A [`Map`] keeps the order, which the order of error messages follows.
    modes: Map<String, Value>,
}

/// A step but for its return codes.
#[derive(Deserialize)]
struct WrittenStep {
    name: String,
    path: String,
    arguments: Vec<String>,
    on_host: bool,
    idempotence: bool,
    upgrade_step: bool,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    requires_interrupt: Value,
}

/// An object whose values were not looked into.
type Object<'a> = BTreeMap<String, &'a RawValue>;

/// Reads the latest version's form.
pub(super) fn config(document: Document) -> Result<Config, Fault> {
    // The schema was kept to, so that nothing here fails unless the schema and these types part ways.
    let unlike = |error: serde_json::Error| Place::top().fault(error.to_string(), "what the schema allows");
    let mut numbers = numbers(document.text).map_err(unlike)?;
    let written: WrittenConfig = serde_json::from_value(document.value).map_err(unlike)?;
    let mut modes = Vec::new();
    for (name, steps) in written.modes {
        let steps: Vec<WrittenStep> = serde_json::from_value(steps).map_err(unlike)?;
        let codes = numbers.remove(&name).unwrap_or_default();
        let Some(mode) = Mode::parse(&name) else {
            return Err(Place::top().key("modes").key(&name).fault("an unknown mode", "a mode"));
        };
        modes.push((mode, steps.into_iter().zip(codes).map(step).collect()));
    }
    Ok(Config {
        package_name: written.package_name,
        package_version: written.package_version,
        expected_config_files: written.expected_config_files,
        modes,
    })
}

fn step((written, codes): (WrittenStep, Vec<&RawValue>)) -> Step {
    Step {
        name: written.name,
        path: written.path,
        arguments: written.arguments,
        returncodes: codes.into_iter().map(|code| ReturnCode::from_json(code.get())).collect(),
        env: written.env,
        on_host: written.on_host,
        idempotence: if written.idempotence { Idempotence::Disabled } else { Idempotence::Auto },
        upgrade_step: written.upgrade_step,
        requires_interrupt: written.requires_interrupt == Value::Bool(true),
    }
}

/// Looks the return codes of each mode's steps up in the text. A number that became a value is no longer what was
/// written, and a parser told to keep numbers as written would do so for everything else in this binary.
fn numbers(text: &str) -> serde_json::Result<BTreeMap<String, Vec<Vec<&RawValue>>>> {
    let document: Object = serde_json::from_str(text)?;
    let modes = document.get("modes").map_or("{}", |modes| modes.get());
    let modes: BTreeMap<String, Vec<Object>> = serde_json::from_str(modes)?;
    let all =
        modes.into_iter().map(|(name, steps)| Ok((name, steps.iter().map(codes).collect::<Result<_, _>>()?)));
    all.collect()
}

fn codes<'a>(step: &Object<'a>) -> serde_json::Result<Vec<&'a RawValue>> {
    serde_json::from_str(step.get("returncodes").map_or("[]", |codes| codes.get()))
}
