//! The schema of a config, and what is said where a config breaks it.
//!
//! `schema_v1.json` becomes code when the agent is compiled: a validator that read it at run time would bring every
//! draft's own schema and a regular expression engine along, 4 MB of them, into a binary that is carried by the
//! thousand. So nothing can be fetched either, and the two patterns are formats with functions of their own.

use jsonschema::error::{TypeKind, ValidationError, ValidationErrorKind};
use jsonschema::paths::LocationSegment;
use serde_json::Value;

use super::Mode;
use super::error::{Fault, Place};
use crate::package::quoted::quoted;

#[jsonschema::validator(
    path = "src/package/config/schema_v1.json",
    validate_formats = true,
    ignore_unknown_formats = false,
    formats = {
        "semver" => crate::package::config::schema::is_semver,
        "step-name" => crate::package::config::schema::is_step_name,
    },
    methods = { is_valid = false, validate = true, iter_errors = false }
)]
struct SchemaV1;

/// Checks a document against the schema of version v1.
pub(super) fn check_v1(document: &Value) -> Result<(), Fault> {
    SchemaV1::validate(document).map_err(|error| fault(&error))
}

/// Whether a text is a version as Semantic Versioning 2.0.0 defines it.
fn is_semver(text: &str) -> bool {
    let (version, build) =
        text.split_once('+').map_or((text, None), |(version, build)| (version, Some(build)));
    let (core, pre) = version.split_once('-').map_or((version, None), |(core, pre)| (core, Some(pre)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|build| build.split('.').all(word))
}

fn is_step_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

fn fault(error: &ValidationError) -> Fault {
    let mut place = Place::top();
    for segment in error.instance_path() {
        place = match segment {
            LocationSegment::Property(key) => place.key(&key),
            LocationSegment::Index(index) => place.index(index),
        };
    }
    let instance = error.instance();
    let (found, expected) = match error.kind() {
        ValidationErrorKind::Required { property } => {
            (format!("no {property}"), format!("the key {property}"))
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let keys: Vec<String> = unexpected.iter().map(|key| quoted(key)).collect();
            (format!("the key {}", keys.join(", ")), format!("only {}", known_keys(&place)))
        }
        ValidationErrorKind::Type { kind: TypeKind::Single(kind) } => {
            (describe(instance), name_of(kind.as_str()))
        }
        ValidationErrorKind::Format { format } if format == "semver" => {
            (describe(instance), "a semantic version such as 1.2.3 or 1.2.3-rc.1+build".to_owned())
        }
        ValidationErrorKind::Format { .. } => {
            (describe(instance), "one or more of A-Z, a-z, 0-9, _, - and . alone".to_owned())
        }
        ValidationErrorKind::MinItems { limit } => (describe(instance), format!("{limit} item or more")),
        ValidationErrorKind::MinLength { limit } => {
            (describe(instance), format!("{limit} character or more"))
        }
        other => (describe(instance), format!("what the schema's {:?} allows", other.keyword())),
    };
    place.fault(found, expected)
}

/// The keys that are taken at a place where others are refused.
fn known_keys(place: &Place) -> String {
    if *place == Place::top().key("modes") {
        return Mode::ALL.map(Mode::name).join(", ");
    }
    "name, path, arguments, returncodes, on_host, idempotence, upgrade_step, env, requires_interrupt"
        .to_owned()
}

fn name_of(kind: &str) -> String {
    match kind {
        "integer" | "array" | "object" => format!("an {kind}"),
        other => format!("a {other}"),
    }
}

/// A value as an error shows it: in full where it is short, by its size otherwise.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(keys) => format!("an object of {} keys", keys.len()),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCHEMA: &str = include_str!("schema_v1.json");

    /// A validator of what the schema states as a regular expression, by the library's own engine.
    fn pattern(pointer: &str) -> jsonschema::Validator {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let pattern = schema.pointer(pointer).unwrap().get("x-pattern").unwrap();
        jsonschema::draft202012::new(&serde_json::json!({ "pattern": pattern })).unwrap()
    }

    #[test]
    fn the_schema_is_a_schema() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        jsonschema::draft202012::meta::validate(&schema).unwrap();
    }

    #[test]
    fn versions_and_names_by_table() {
        for version in [
            "0.0.0",
            "1.2.3",
            "10.20.30",
            "1.0.0-0",
            "1.0.0-alpha.1",
            "1.0.0--",
            "1.0.0-0a.01a",
            "1.0.0+01",
            "1.0.0-a-b+c-d.e",
        ] {
            assert!(is_semver(version), "{version}");
        }
        for version in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "01.2.3",
            "1.2.3-",
            "1.2.3-01",
            "1.2.3-a..b",
            "1.2.3+",
            "1.2.3+a+b",
            "v1.2.3",
            "1.2.3\n",
            " 1.2.3",
            "1.2.3-é",
            "-1.2.3",
            "1.2.latest",
        ] {
            assert!(!is_semver(version), "{version}");
        }
        for (name, expected) in [
            ("a", true),
            ("A_b-c.9", true),
            ("", false),
            ("a b", false),
            ("a/b", false),
            ("a\n", false),
            ("é", false),
        ] {
            assert_eq!(is_step_name(name), expected, "{name:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(1000)))]
        #[test]
        fn formats_are_what_their_patterns_say(
            version in "[0-9]{1,2}(\\.[0-9]{1,2}){2}([-+][0-9a-z-]{0,3}(\\.[0-9a-z]{0,2}){0,2}){0,2}|[0-9.a+-]{0,9}",
            name in "[a-z_.-]{0,5}|[ -~é\n]{0,3}",
        ) {
            thread_local! {
                static VERSION: jsonschema::Validator = pattern("/$defs/semantic_version");
                static NAME: jsonschema::Validator = pattern("/$defs/step/properties/name");
            }
            prop_assert_eq!(is_semver(&version), VERSION.with(|v| v.is_valid(&Value::String(version.clone()))));
            prop_assert_eq!(is_step_name(&name), NAME.with(|v| v.is_valid(&Value::String(name.clone()))));
        }
    }
}
