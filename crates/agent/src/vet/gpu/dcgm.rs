//! `dcgmi diag -r LEVEL -j`: NVIDIA's own diagnosis, each of its tests judged by itself. Reading is pure.
//!
//! The report is that of DCGM 3 (`DCGM GPU Diagnostic`) or 4 (`DCGM Diagnostic`), as its documentation shows them. A test that
//! was skipped has shown nothing: it is inconclusive. So is a GPU on which no test put a load, whether the report leaves it out
//! or the level has no such test.

use std::time::Instant;

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::{GPU_DIAG_PASSED, names};
use groundcrew_protocol::profile::StageSpec;
use serde_json::Value;

use super::{Artifacts, DIAG_TIME, Finding, Named};
use crate::vet::StageContext;
use crate::vet::json_tool::Call;

/// The names of the report, by version.
const ROOTS: [&str; 2] = ["DCGM Diagnostic", "DCGM GPU Diagnostic"];
/// Categories of tests that put a load on a GPU; those of `Deployment` look at what is installed.
const LOADS: [&str; 3] = ["Integration", "Hardware", "Stress"];
/// The first level with tests of the category Stress, and the one of the category Hardware that comes with them.
const STRESS_LEVEL: u8 = 3;
const STRESS: &str = "Stress";
const DIAGNOSTIC: &str = "diagnostic";

/// What is asked for.
pub(super) struct Diagnosis {
    arguments: Vec<String>,
    /// The level that its load must have.
    level: u8,
}

impl Diagnosis {
    /// The one of a stage; none where its settings want none. Under a Soak it is the one test of what computes, which draws the
    /// most power, for as long as the others bear their loads (DCGM's documentation, "diagnostic.test_duration").
    pub fn of(spec: &StageSpec) -> Option<Diagnosis> {
        let level = spec.gpu.clone().unwrap_or_default().diag.level()?;
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Some(match &spec.soak {
            None => Diagnosis { arguments: words(&["diag", "-r", &level.to_string(), "-j"]), level },
            Some(soak) => {
                let time = format!("{DIAGNOSTIC}.test_duration={}", soak.duration.div_ceil(1000));
                let arguments = words(&["diag", "-r", DIAGNOSTIC, "-p", &time, "-j"]);
                Diagnosis { arguments, level: STRESS_LEVEL }
            }
        })
    }

    /// For people.
    pub fn command(&self) -> String {
        format!("dcgmi {}", self.arguments.join(" "))
    }
}

/// Asks for the diagnosis.
pub(super) fn run(
    context: &StageContext,
    diagnosis: &Diagnosis,
    gpus: &[Named<'_>],
    deadline: Instant,
    artifacts: &mut Artifacts,
) -> Vec<Finding> {
    let call = Call {
        context,
        program: "dcgmi",
        arguments: diagnosis.arguments.iter().map(Into::into).collect(),
        time: DIAG_TIME,
        deadline,
        about: "dcgmi diag".to_owned(),
    };
    let report = call.run().and_then(|said| {
        artifacts.push(("dcgmi-diag.json".to_owned(), said.stdout.clone()));
        let report = Report::read(&said.stdout);
        report
            .map(|report| (report, said.exit))
            .map_err(|why| format!("{why} (dcgmi ended with status {})", said.exit))
    });
    findings(report, diagnosis.level, gpus, &call.command())
}

/// What the diagnosis says, with the status that dcgmi ended with, or why it says nothing: of each test, and of each GPU that
/// none of them put a load on.
pub(super) fn findings(
    report: Result<(Report, i32), String>,
    level: u8,
    gpus: &[Named<'_>],
    command: &str,
) -> Vec<Finding> {
    let of = |component: &str, observed| Finding::of(names::GPU_DIAG, Some(component), observed, command);
    let (report, exit, why) = match report {
        Ok((report, exit)) => (report, exit, format!("{command} put no load on this GPU")),
        Err(why) => (Report::default(), 0, why),
    };
    let mut findings = Vec::new();
    for outcome in &report.outcomes {
        let mut component = outcome.test.clone();
        for id in &outcome.gpus {
            let named = gpus.iter().find(|named| report.is(named, id));
            component.push_str(", ");
            component.push_str(&named.map_or_else(|| format!("GPU {id}"), |named| named.component.clone()));
        }
        findings.push(of(&component, outcome.observed.clone()));
    }
    for named in gpus {
        let bears =
            |outcome: &&Outcome| outcome.is_load(level) && outcome.gpus.iter().any(|id| report.is(named, id));
        if !report.outcomes.iter().any(|outcome| bears(&outcome)) {
            findings.push(of(&named.component, Observation::Unreadable { why: why.clone() }));
        }
    }
    // Its exit status is not 0 where a test failed. Where none did, something did that the report does not tell.
    let is_good = |finding: &Finding| matches!(&finding.observed, Observation::Found { text } if text == GPU_DIAG_PASSED);
    if exit != 0 && findings.iter().all(is_good) {
        let why = format!("dcgmi ended with status {exit}, and its report says of no test that it failed");
        findings.push(of("dcgmi", Observation::Unreadable { why }));
    }
    findings
}

/// A result of a test.
#[derive(Debug)]
struct Outcome {
    test: String,
    category: String,
    /// DCGM's numbers of the GPUs that it is of.
    gpus: Vec<String>,
    observed: Observation,
}

impl Outcome {
    /// True where the test was done and put a load on its GPUs, as heavy as the level has it.
    fn is_load(&self, level: u8) -> bool {
        let is_done = !matches!(self.observed, Observation::Unreadable { .. });
        let is_stress = self.category == STRESS || self.test.eq_ignore_ascii_case(DIAGNOSTIC);
        is_done && LOADS.contains(&self.category.as_str()) && (level < STRESS_LEVEL || is_stress)
    }
}

/// A report.
#[derive(Debug, Default)]
pub(super) struct Report {
    outcomes: Vec<Outcome>,
    /// Serials of GPUs by DCGM's numbers, where it tells them.
    serials: Vec<(String, String)>,
}

impl Report {
    /// Reads one.
    ///
    /// # Errors
    /// Where there is no report, no result in it, or it says itself that it is not whole.
    pub fn read(stdout: &[u8]) -> Result<Report, String> {
        let begin = stdout.iter().position(|byte| *byte == b'{').ok_or("dcgmi printed no JSON")?;
        let json: Value = serde_json::from_slice(&stdout[begin..])
            .map_err(|error| format!("dcgmi printed no JSON: {error}"))?;
        let report =
            ROOTS.iter().find_map(|root| json.get(root)).ok_or("dcgmi printed no report of a diagnosis")?;
        if let Some(error) = [&json, report].iter().find_map(|of| of.get("runtime_error")) {
            return Err(format!("the diagnosis broke off: {}", plain(error)));
        }
        let array = |value: &Value, key: &str| -> Result<Vec<Value>, String> {
            let array = value.get(key).and_then(Value::as_array);
            array.cloned().ok_or_else(|| format!("the report of dcgmi has no {key}"))
        };
        let mut outcomes = Vec::new();
        for category in array(report, "test_categories")? {
            let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).map(str::to_owned);
            for test in array(&category, "tests")? {
                let name = text(&test, "name").ok_or("a test of dcgmi has no name")?;
                for result in array(&test, "results")? {
                    outcomes.push(Outcome {
                        test: name.clone(),
                        category: text(&category, "category").unwrap_or_default(),
                        gpus: gpus(&result),
                        observed: observed(&result),
                    });
                }
            }
        }
        match outcomes.is_empty() {
            true => Err("the report of dcgmi has no result".to_owned()),
            false => Ok(Report { outcomes, serials: serials(&json, report) }),
        }
    }

    /// Whether DCGM's number is that of a GPU: by the serial that the report has for it, else by the driver's number.
    fn is(&self, named: &Named<'_>, id: &str) -> bool {
        match self.serials.iter().find(|(of, _)| of == id) {
            Some((_, serial)) => *serial == named.component,
            None => named.index.as_deref() == Some(id),
        }
    }
}

/// The serials of GPUs by their numbers: in DCGM 3 as `GPU Device Serials`, in DCGM 4 with each entity. One that the driver
/// does not tell is none.
fn serials(json: &Value, report: &Value) -> Vec<(String, String)> {
    let listed = [json, report].into_iter().find_map(|of| of.get("GPU Device Serials")?.as_object());
    let listed = listed.into_iter().flatten().map(|(id, serial)| (id.clone(), plain(serial)));
    let groups = json.get("entity_groups").and_then(Value::as_array).into_iter().flatten();
    let entities =
        groups.filter(|group| is_of_gpus(group)).filter_map(|group| group.get("entities")?.as_array());
    let told = entities
        .flatten()
        .filter_map(|entity| Some((plain(entity.get("entity_id")?), plain(entity.get("serial_num")?))));
    listed
        .chain(told)
        .filter(|(_, serial)| serial.bytes().any(|byte| (b'1'..=b'9').contains(&byte)))
        .collect()
}

/// True for what is of GPUs; DCGM 4 tells of other things too.
fn is_of_gpus(of: &Value) -> bool {
    of.get("entity_group").is_none_or(|group| group == "GPU")
}

/// The numbers of the GPUs that a result is of; none where it is of all of them or of another thing.
fn gpus(result: &Value) -> Vec<String> {
    let ids = ["gpu_id", "gpu_ids", "entity_id"].iter().find_map(|key| result.get(key));
    let ids = ids.filter(|_| is_of_gpus(result)).map(plain).unwrap_or_default();
    ids.split(',').map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()).collect()
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
