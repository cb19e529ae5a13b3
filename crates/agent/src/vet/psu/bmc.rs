//! What a BMC says of supplies and fans, by ipmitool. Reading is pure; checked against ipmitool 1.8.19.
//!
//! Each line of `sdr type` is a sensor: name, number, status, entity, and its reading or the events that are asserted. Of a
//! supply the events count (IPMI 2.0 specification, table 42-3, sensor type 08h), and their absence is no good news: one that
//! does not even say that it is present is unreadable.

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::{FAN_GOOD, SUPPLY_GOOD, names};

use super::Finding;
use crate::vet::json_tool::Said;

const SUPPLIES: [&str; 3] = ["sdr", "type", "Power Supply"];
const FANS: [&str; 3] = ["sdr", "type", "Fan"];
const ALL: [&str; 2] = ["sdr", "elist"];
const POWER: [&str; 3] = ["dcmi", "power", "reading"];

/// The event by which a supply says that it is there.
const PRESENT: &str = "Presence detected";
/// One that is there and rests, as a reserve does.
const RESTS: &str = "Power Supply Inactive";
/// How texts on redundancy begin (IPMI 2.0, table 42-2, event type 0Bh).
const REDUNDANCY: [&str; 4] = ["Fully Redundant", "Redundancy", "Non-Redundant", "Sufficient"];
/// How readings end that a BMC puts among the events.
const UNITS: [&str; 5] = [" Watts", " percent", " Volts", " Amps", " degrees C"];
/// What ipmitool writes in place of both.
const NO_READING: [&str; 3] = ["No Reading", "Not Readable", "Disabled"];
/// The entity of power supplies (IPMI 2.0, table 43-13).
const ENTITY: &str = "10.";

/// Asks a question; the answer or why there is none.
pub(super) type Ask<'a> = dyn Fn(&[&str]) -> Result<Said, String> + 'a;

/// A line of `sdr elist` or `sdr type`.
#[derive(Debug, PartialEq, Eq)]
struct Row<'t> {
    name: &'t str,
    status: &'t str,
    entity: &'t str,
    said: &'t str,
}

/// Asks for everything.
pub(super) fn ask(ask: &Ask<'_>, artifacts: &mut Vec<(String, Vec<u8>)>) -> Vec<Finding> {
    let mut table = |arguments: &[&str]| {
        let said = ask(arguments)?;
        let name = format!("ipmitool-{}.txt", arguments.join("-").replace(' ', "-").to_lowercase());
        artifacts.push((name, said.stdout.clone()));
        text(arguments, said)
    };
    let mut findings = match table(&SUPPLIES).and_then(|text| supplies(&text)) {
        Ok(findings) => findings,
        Err(why) => all_unreadable(&[names::SUPPLIES, names::SUPPLY, names::REDUNDANCY], &why),
    };
    findings.extend(match table(&ALL).and_then(|text| input_power(&text)) {
        Ok(findings) => findings,
        Err(why) => all_unreadable(&[names::INPUT_POWER], &why),
    });
    findings.extend(match table(&FANS).and_then(|text| fans(&text)) {
        Ok(findings) => findings,
        Err(why) => all_unreadable(&[names::FANS], &why),
    });
    let observed = system_power(ask(&POWER), artifacts);
    findings.push(Finding::of(names::SYSTEM_POWER, None, observed, "ipmitool dcmi power reading"));
    findings
}

fn all_unreadable(names: &[&'static str], why: &str) -> Vec<Finding> {
    let unreadable = || Observation::Unreadable { why: why.to_owned() };
    names.iter().map(|name| Finding::of(name, None, unreadable(), "")).collect()
}

fn text(arguments: &[&str], said: Said) -> Result<String, String> {
    let command = format!("ipmitool {}", arguments.join(" "));
    if said.exit != 0 {
        let stderr = String::from_utf8_lossy(&said.stderr);
        return Err(format!("{command} ended with status {}: {}", said.exit, stderr.trim()));
    }
    String::from_utf8(said.stdout).map_err(|_| format!("{command} printed no text"))
}

/// The rows of a table.
///
/// # Errors
/// Where a line is none.
fn rows(text: &str) -> Result<Vec<Row<'_>>, String> {
    let row = |line| -> Result<Row<'_>, String> {
        // The text of events comes last and may hold anything.
        let fields: Vec<&str> = str::splitn(line, 5, '|').map(str::trim).collect();
        match fields.as_slice() {
            [name, _number, status, entity, said] if !name.is_empty() => {
                Ok(Row { name, status, entity, said })
            }
            _ => Err(format!("ipmitool printed {line:?}, expected a sensor in five columns")),
        }
    };
    text.lines().filter(|line| !line.trim().is_empty()).map(row).collect()
}

fn supplies(text: &str) -> Result<Vec<Finding>, String> {
    let rows = rows(text)?;
    let is_redundancy = |row: &&Row<'_>| REDUNDANCY.iter().any(|begins| row.said.starts_with(begins));
    let (redundancy, supplies): (Vec<&Row<'_>>, Vec<&Row<'_>>) = rows.iter().partition(is_redundancy);
    let mut findings = Vec::new();
    let mut present = 0u32;
    for row in supplies.iter().filter(|row| row.entity.starts_with(ENTITY)) {
        let observed = supply(row);
        if row.said.contains(PRESENT) {
            present += 1;
        }
        findings.push(Finding::of(names::SUPPLY, Some(row.name), observed, &evidence(row)));
    }
    let none = "the BMC tells of no power supply";
    let absent = |why: &str| Observation::Absent { why: why.to_owned() };
    if findings.is_empty() {
        findings.push(Finding::of(names::SUPPLY, None, absent(none), ""));
        findings.push(Finding::of(names::SUPPLIES, None, absent(none), ""));
    } else {
        let count = Observation::measured(f64::from(present), "present");
        findings.push(Finding::of(names::SUPPLIES, None, count, "ipmitool sdr type \"Power Supply\""));
    }
    for row in &redundancy {
        let found = Observation::Found { text: row.said.to_owned() };
        findings.push(Finding::of(names::REDUNDANCY, Some(row.name), found, &evidence(row)));
    }
    if redundancy.is_empty() {
        let why = absent("the BMC has no sensor for the redundancy of its supplies");
        findings.push(Finding::of(names::REDUNDANCY, None, why, ""));
    }
    Ok(findings)
}

fn evidence(row: &Row<'_>) -> String {
    let Row { name, status, entity, said } = row;
    format!("{name} | {status} | {entity} | {said}")
}

/// A supply by the events that its sensor asserts.
fn supply(row: &Row<'_>) -> Observation {
    // Some BMCs put a reading before the events: "110 Watts, Presence detected".
    let is_reading = |part: &&str| UNITS.iter().any(|unit| part.ends_with(unit));
    let events: Vec<&str> =
        row.said.split(", ").map(str::trim).filter(|part| !part.is_empty() && !is_reading(part)).collect();
    let is_good = |event: &&&str| **event == PRESENT || **event == RESTS;
    let others: Vec<&str> = events.iter().filter(|event| !is_good(event)).copied().collect();
    if NO_READING.contains(&row.said) {
        return Observation::Unreadable { why: format!("the BMC says {:?} of it", row.said) };
    }
    match (row.status, others.as_slice(), events.contains(&PRESENT)) {
        // A threshold that is passed (nc, cr, nr) is a failure whatever the events say.
        ("ok", [], true) => Observation::Found { text: SUPPLY_GOOD.to_owned() },
        ("ok" | "ns" | "na", [], false) => {
            Observation::Unreadable { why: "the BMC does not even say that it is present".to_owned() }
        }
        (status, [], _) => Observation::Found { text: format!("status {status}: {}", row.said) },
        (_, others, _) => Observation::Found { text: others.join(", ") },
    }
}

/// What each supply takes in, by the sensors of supplies that are in watts.
fn input_power(text: &str) -> Result<Vec<Finding>, String> {
    let rows = rows(text)?;
    let watts = |row: &Row<'_>| row.said.strip_suffix(" Watts")?.trim().parse::<f64>().ok();
    let is_output = |row: &Row<'_>| row.name.to_lowercase().contains("out");
    let mut findings: Vec<Finding> = rows
        .iter()
        .filter(|row| row.entity.starts_with(ENTITY) && !is_output(row))
        .filter_map(|row| {
            let observed = Observation::measured(watts(row)?, "W");
            Some(Finding::of(names::INPUT_POWER, Some(row.name), observed, &evidence(row)))
        })
        .collect();
    if findings.is_empty() {
        let why = "the BMC does not say what its supplies take in".to_owned();
        findings.push(Finding::of(names::INPUT_POWER, None, Observation::Absent { why }, ""));
    }
    Ok(findings)
}

fn fans(text: &str) -> Result<Vec<Finding>, String> {
    let rows = rows(text)?;
    // A place that has no fan says `ns`: no sensor reads there.
    let mut findings: Vec<Finding> = rows
        .iter()
        .filter(|row| row.status != "ns")
        .map(|row| {
            let stands = row.said.strip_suffix(" RPM").is_some_and(|rpm| rpm.trim().parse() == Ok(0.0));
            let is_bad_redundancy =
                row.said.starts_with("Redundancy") || row.said.starts_with("Non-Redundant");
            let observed = match row.status {
                "ok" if !stands && !is_bad_redundancy && !row.said.to_lowercase().contains("fail") => {
                    Observation::Found { text: FAN_GOOD.to_owned() }
                }
                status => Observation::Found { text: format!("{status}: {}", row.said) },
            };
            Finding::of(names::FANS, Some(row.name), observed, &evidence(row))
        })
        .collect();
    if findings.is_empty() {
        let why = "the BMC tells of no fan".to_owned();
        findings.push(Finding::of(names::FANS, None, Observation::Absent { why }, ""));
    }
    Ok(findings)
}

/// What the whole machine takes, where the BMC has DCMI.
fn system_power(said: Result<Said, String>, artifacts: &mut Vec<(String, Vec<u8>)>) -> Observation {
    const LINE: &str = "Instantaneous power reading:";
    /// The BMC's own word that it does not have the command (IPMI 2.0, table 5-2).
    const INVALID_COMMAND: &str = "(c1)";
    let unreadable = |why: String| Observation::Unreadable { why };
    let said = match said {
        Ok(said) => said,
        Err(why) => return unreadable(why),
    };
    let stderr = String::from_utf8_lossy(&said.stderr).into_owned();
    if said.exit != 0 {
        return match stderr.contains(INVALID_COMMAND) {
            true => Observation::Absent { why: "the BMC has no DCMI power reading".to_owned() },
            false => {
                unreadable(format!("ipmitool dcmi power reading: status {}: {}", said.exit, stderr.trim()))
            }
        };
    }
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    artifacts.push(("ipmitool-dcmi-power.txt".to_owned(), said.stdout));
    let watts = text.lines().find_map(|line| line.trim().strip_prefix(LINE)?.trim().strip_suffix("Watts"));
    match watts.and_then(|watts| watts.trim().parse::<f64>().ok()) {
        Some(watts) => Observation::measured(watts, "W"),
        None => unreadable("ipmitool does not say the power of this moment".to_owned()),
    }
}
