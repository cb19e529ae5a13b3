//! `dcgmi diag -r LEVEL -j`: NVIDIA's own diagnosis, each of its tests judged by itself. Reading is pure.
//!
//! The report is that of DCGM 3 (`DCGM GPU Diagnostic`) or 4 (`DCGM Diagnostic`), as its documentation shows them. A test that
//! was skipped has shown nothing: it is inconclusive.

use std::time::Instant;

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::{GPU_DIAG_PASSED, names};
use serde_json::Value;

use super::{DIAG_TIME, Finding};
use crate::vet::StageContext;
use crate::vet::json_tool::Call;

/// The names of the report, by version.
const ROOTS: [&str; 2] = ["DCGM Diagnostic", "DCGM GPU Diagnostic"];

/// Asks for the diagnosis.
pub(super) fn run(
    context: &StageContext,
    level: u8,
    deadline: Instant,
    artifacts: &mut Vec<(String, Vec<u8>)>,
) -> Vec<Finding> {
    let level = level.to_string();
    let call = Call {
        context,
        program: "dcgmi",
        arguments: ["diag", "-r", &level, "-j"].iter().map(Into::into).collect(),
        time: DIAG_TIME,
        deadline,
        about: "dcgmi diag".to_owned(),
    };
    let command = call.command();
    // Its exit status is not 0 where a test failed: the report counts.
    let results = call.run().and_then(|said| {
        artifacts.push(("dcgmi-diag.json".to_owned(), said.stdout.clone()));
        results(&said.stdout).map_err(|why| format!("{why} (dcgmi ended with status {})", said.exit))
    });
    let finding = |component: Option<String>, observed| Finding {
        name: names::GPU_DIAG,
        component,
        observed,
        evidence: command.clone(),
    };
    match results {
        Ok(results) => results.into_iter().map(|(of, observed)| finding(Some(of), observed)).collect(),
        Err(why) => vec![finding(None, Observation::Unreadable { why })],
    }
}

/// Each result of each test, with what it is of.
///
/// # Errors
/// Where there is no report, or no result in it.
pub(super) fn results(stdout: &[u8]) -> Result<Vec<(String, Observation)>, String> {
    let begin = stdout.iter().position(|byte| *byte == b'{').ok_or("dcgmi printed no JSON")?;
    let json: Value = serde_json::from_slice(&stdout[begin..])
        .map_err(|error| format!("dcgmi printed no JSON: {error}"))?;
    let report =
        ROOTS.iter().find_map(|root| json.get(root)).ok_or("dcgmi printed no report of a diagnosis")?;
    let array = |value: &Value, key: &str| -> Result<Vec<Value>, String> {
        let array = value.get(key).and_then(Value::as_array);
        array.cloned().ok_or_else(|| format!("the report of dcgmi has no {key}"))
    };
    let mut found = Vec::new();
    for category in array(report, "test_categories")? {
        for test in array(&category, "tests")? {
            let name = test.get("name").and_then(Value::as_str).ok_or("a test of dcgmi has no name")?;
            for result in array(&test, "results")? {
                let of = ["gpu_id", "gpu_ids", "entity_id"].iter().find_map(|key| result.get(key)).map(plain);
                let of = of.map_or_else(|| name.to_owned(), |id| format!("{name}, GPU {id}"));
                found.push((of, observed(&result)));
            }
        }
    }
    match found.is_empty() {
        true => Err("the report of dcgmi has no result".to_owned()),
        false => Ok(found),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn observed(result: &Value) -> Observation {
    let words = |key: &str| result.get(key).map(plain).unwrap_or_default();
    let said = format!("{} {}", words("warnings"), words("info")).trim().to_owned();
    let with = |what: &str| if said.is_empty() { what.to_owned() } else { format!("{what}: {said}") };
    match result.get("status").and_then(Value::as_str) {
        // One that was passed and warns all the same has something to say.
        Some("Pass" | "PASS") if result.get("warnings").is_none() => {
            Observation::Found { text: GPU_DIAG_PASSED.to_owned() }
        }
        Some("Pass" | "PASS" | "Warn" | "WARN") => Observation::Unexpected { what: with("a warning") },
        Some("Fail" | "FAIL") => Observation::Found { text: with("Fail") },
        Some(other) => Observation::Unreadable { why: with(&format!("the test was not done ({other})")) },
        None => Observation::Unreadable { why: "dcgmi does not say how the test came out".to_owned() },
    }
}
