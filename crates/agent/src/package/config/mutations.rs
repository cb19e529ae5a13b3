//! Configs that were tampered with: each is taken or refused, as the schema's library says, and never worse.

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Config;
use super::tests::{config, step};

/// The validator that the schema file gives at run time, which the one made of it at compile time must equal. It knows
/// the formats by their patterns.
static WITNESS: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let text = include_str!("schema_v1.json").replace("\"x-pattern\"", "\"pattern\"");
    jsonschema::draft202012::new(&serde_json::from_str(&text).unwrap()).unwrap()
});

fn valid() -> Value {
    let mut up = step("sub/up.sh");
    up["upgrade_step"] = json!(true);
    let mut apply = step("apply.sh");
    apply["arguments"] = json!(["one", "env:TWO"]);
    apply["env"] = json!({"A": "b"});
    apply["returncodes"] = json!([0, 3, 0.0]);
    config(json!({
        "apply": [apply, step("b.sh")], "apply-check": [step("apply_check.sh")],
        "upgrade": [up], "upgrade-check": [step("up_check.sh")],
    }))
}

/// Every place in a document, as a JSON pointer, the document itself first.
fn places(value: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    match value {
        Value::Object(keys) => {
            keys.iter().for_each(|(key, value)| places(value, &format!("{here}/{}", escaped(key)), found))
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| places(value, &format!("{here}/{index}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A key in a JSON pointer (RFC 6901).
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-5_i32..5).prop_map(|number| Value::from(f64::from(number))),
        any::<f64>().prop_map(Value::from),
        "(?s).{0,8}".prop_map(Value::from),
        prop::sample::select(vec!["v1", "v2", "..", "a/b", "1.2.3", "\0", "env:X", "step"])
            .prop_map(Value::from),
        Just(step("x.sh")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any_key(), inner), 0..4)
                .prop_map(|keys| Value::Object(keys.into_iter().collect())),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    let known = [
        "name",
        "path",
        "env",
        "arguments",
        "apply",
        "config",
        "config-check",
        "interrupt",
        "modes",
        "upgrade_step",
    ];
    prop_oneof![prop::sample::select(known.map(str::to_owned).to_vec()), "(?s).{0,4}"]
}

/// What is done at one place: replaced, removed, added to, or put twice.
fn tamper(document: &mut Value, at: prop::sample::Index, how: u8, key: String, value: Value) {
    let mut found = Vec::new();
    places(document, "", &mut found);
    let place = document.pointer_mut(&found[at.index(found.len())]).unwrap();
    match (how % 3, place) {
        (0, Value::Object(keys)) => drop(keys.insert(key, value)),
        (0, Value::Array(items)) => items.push(value),
        (1, Value::Object(keys)) if !keys.is_empty() => {
            let gone = keys.keys().nth(usize::from(how) % keys.len()).unwrap().clone();
            keys.remove(&gone);
        }
        (1, Value::Array(items)) if !items.is_empty() => drop(items.remove(usize::from(how) % items.len())),
        (_, place) => *place = value,
    }
}

/// Parses, and holds what must hold of every outcome.
fn outcome(bytes: &[u8]) -> Result<bool, TestCaseError> {
    match Config::parse(Path::new("config.json"), bytes) {
        Ok(config) => {
            prop_assert!(config.modes.iter().any(|(_, steps)| !steps.is_empty()));
            for step in config.modes.iter().flat_map(|(_, steps)| steps) {
                prop_assert!(!step.returncodes.is_empty());
                let under = Path::new("/steps").join(step.path.trim_start_matches('/'));
                prop_assert!(under.components().count() > 2, "{}", step.path);
            }
            config.missing_checks();
            Ok(true)
        }
        Err(error) => {
            let line = error.to_string();
            prop_assert!(line.starts_with("config.json: $"), "{}", line);
            prop_assert!(line.contains(": found ") && line.contains(", expected "), "{}", line);
            prop_assert!(!line.contains('\n') && line.chars().count() < 2000, "{}", line);
            Ok(false)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(1500)))]

    #[test]
    fn a_tampered_config_is_taken_or_refused_as_the_schema_says(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any_key(), any_value()), 1..4),
    ) {
        let mut document = valid();
        for (at, how, key, value) in changes {
            tamper(&mut document, at, how, key, value);
        }
        let taken = outcome(document.to_string().as_bytes())?;
        if taken {
            prop_assert!(WITNESS.is_valid(&document));
        }
        let ours = super::schema::check_v1(&document).is_ok();
        prop_assert_eq!(ours, WITNESS.is_valid(&document), "{}", document);
    }

    #[test]
    fn no_bytes_at_all_end_in_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(!outcome(&bytes)?);
    }

    #[test]
    fn a_text_that_was_cut_or_garbled_never_panics(
        at in any::<prop::sample::Index>(), garbage in prop::collection::vec(any::<u8>(), 0..3), cut in 0_usize..4,
    ) {
        let mut text = valid().to_string().into_bytes();
        let at = at.index(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, garbage);
        outcome(&text)?;
    }
}

#[test]
fn the_valid_one_is() {
    assert!(outcome(valid().to_string().as_bytes()).unwrap());
}
