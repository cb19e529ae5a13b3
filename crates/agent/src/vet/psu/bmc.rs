//! What a BMC says of supplies and fans, by ipmitool: what is asked, and of which answer what is made.
//!
//! Each line of `sdr type` is a sensor: name, number, status, entity, and its reading or the events that are asserted
//! ([`super::events`]). Of a supply the events count, and their absence is no good news ([`super::supplies`]). A BMC that tells of no
//! supply at all is one that was not understood: a machine that runs has one.

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::{FAN_GOOD, TEMPERATURE_GOOD, names};

use super::Finding;
use super::events::{Event, Row, rows};
use super::supplies::{self, Supplies};
use crate::vet::json_tool::Said;

const SUPPLIES: [&str; 3] = ["sdr", "type", "Power Supply"];
const UNIT: [&str; 3] = ["sdr", "type", "Power Unit"];
const FANS: [&str; 3] = ["sdr", "type", "Fan"];
const ALL: [&str; 2] = ["sdr", "elist"];
const POWER: [&str; 3] = ["dcmi", "power", "reading"];
/// How many questions that is: the stage's deadline has room for each.
#[cfg(test)]
pub(super) const CALLS: u32 = 5;

/// Asks a question; the answer or why there is none.
pub(super) type Ask<'a> = dyn Fn(&[&str]) -> Result<Said, String> + 'a;

/// Asks for everything; `expected` is how many supplies the profile wants.
pub(super) fn ask(
    ask: &Ask<'_>,
    expected: Option<u32>,
    artifacts: &mut Vec<(String, Vec<u8>)>,
) -> Vec<Finding> {
    let mut table = |arguments: &[&str]| {
        let said = ask(arguments)?;
        let name = format!("ipmitool-{}.txt", arguments.join("-").replace(' ', "-").to_lowercase());
        artifacts.push((name, said.stdout.clone()));
        text(arguments, said)
    };
    let (supply_text, unit_text) = (table(&SUPPLIES), table(&UNIT));
    let supply_rows = supply_text.as_deref().map_err(Clone::clone).and_then(rows);
    let unit_rows = unit_text.as_deref().map_err(Clone::clone).and_then(rows);
    let supplies = match &supply_rows {
        Ok(rows) => Supplies::of(rows, expected),
        Err(why) => Supplies::unreadable(why),
    };
    let all = table(&ALL);
    let input = all.as_deref().map_err(Clone::clone).and_then(|text| supplies.input_power(text));
    let mut findings = supplies.findings;
    findings.extend(match (&supply_rows, &unit_rows) {
        (Ok(supply_rows), Ok(unit_rows)) => {
            let mut of_unit = supplies::unit(unit_rows);
            of_unit.extend(supplies::redundancy(supply_rows, unit_rows));
            of_unit
        }
        (Err(why), _) | (Ok(_), Err(why)) => all_unreadable(&[names::REDUNDANCY], why),
    });
    findings.extend(input.unwrap_or_else(|why| all_unreadable(&[names::INPUT_POWER], &why)));
    findings.extend(match table(&FANS).and_then(|text| fans(&text)) {
        Ok(findings) => findings,
        Err(why) => all_unreadable(&[names::FANS, names::FAN_COUNT], &why),
    });
    findings.extend(match all.and_then(|text| temperatures(&text)) {
        Ok(findings) => findings,
        Err(why) => all_unreadable(&[names::TEMPERATURES], &why),
    });
    let observed = system_power(ask(&POWER), artifacts);
    findings.push(Finding::of(names::SYSTEM_POWER, None, observed, "ipmitool dcmi power reading"));
    findings
}

/// Nothing is known of these.
pub(super) fn all_unreadable(names: &[&'static str], why: &str) -> Vec<Finding> {
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

fn fans(text: &str) -> Result<Vec<Finding>, String> {
    let rows = rows(text)?;
    // A place that has no fan says `ns`: no sensor reads there. So may one whose fan is gone: the profile knows how many there are.
    let (silent, others): (Vec<&Row<'_>>, Vec<&Row<'_>>) = rows.iter().partition(|row| row.status == "ns");
    let mut findings: Vec<Finding> = others
        .iter()
        .map(|row| Finding::of(names::FANS, Some(row.name), fan(row), &row.evidence()))
        .collect();
    if rows.is_empty() {
        let absent = || Observation::Absent { why: "the BMC tells of no fan".to_owned() };
        return Ok([names::FANS, names::FAN_COUNT].map(|name| Finding::of(name, None, absent(), "")).into());
    }
    let without: Vec<&str> = silent.iter().map(|row| row.name).collect();
    let count = super::fan_count(
        others.iter().zip(&findings).filter(|(row, _)| is_one_fan(&rows, row)).map(|(_, finding)| finding),
        &format!("without a reading: {}", without.join(", ")),
    );
    if findings.is_empty() {
        let why = format!("none of the BMC's {} sensors of fans reads", rows.len());
        findings.push(Finding::of(names::FANS, None, Observation::Unreadable { why }, ""));
    }
    findings.push(count);
    Ok(findings)
}

/// Each sensor of temperature that is beyond a threshold of the BMC's, and all others as one: within a critical one it warns.
fn temperatures(text: &str) -> Result<Vec<Finding>, String> {
    const UNIT: &str = "degrees C";
    /// Beyond a threshold that is not critical (`ipmi_sdr_get_thresh_status`).
    const WARN: [&str; 3] = ["nc", "lnc", "unc"];
    let rows = rows(text)?;
    let of =
        |row: &Row<'_>, observed| Finding::of(names::TEMPERATURES, Some(row.name), observed, &row.evidence());
    let mut findings = Vec::new();
    let mut good = 0_u32;
    for row in rows.iter().filter(|row| row.readings().iter().any(|(_, unit)| *unit == UNIT)) {
        let text = format!("status {}: {}", row.status, row.said);
        match (row.failure().is_some(), row.status) {
            (true, status) if WARN.contains(&status) => {
                findings.push(of(row, Observation::Unexpected { what: text }));
            }
            (true, _) => findings.push(of(row, Observation::Found { text })),
            (false, "ok") => good += 1,
            (false, _) => findings.push(of(row, Observation::Unreadable { why: text })),
        }
    }
    let rest = match (good, findings.is_empty()) {
        (0, false) => return Ok(findings),
        (0, true) => Observation::Absent { why: "no sensor of the BMC's reads a temperature".to_owned() },
        (_, _) => Observation::Found { text: TEMPERATURE_GOOD.to_owned() },
    };
    findings.push(Finding::of(
        names::TEMPERATURES,
        None,
        rest,
        &format!("{good} sensors of ipmitool sdr elist"),
    ));
    Ok(findings)
}

/// True for the row that counts for a fan: the one with its speed. Others say of it that it is there, or of all that they are enough;
/// they count where the BMC tells no speed at all.
fn is_one_fan(rows: &[Row<'_>], row: &Row<'_>) -> bool {
    match rows.iter().any(|row| !speeds(row).is_empty()) {
        true => !speeds(row).is_empty(),
        false => !supplies::is_redundancy(row),
    }
}

fn speeds(row: &Row<'_>) -> Vec<f64> {
    let of_fan = |(_, unit): &(f64, &str)| ["RPM", "percent"].contains(unit);
    row.readings().into_iter().filter(of_fan).map(|(speed, _)| speed).collect()
}

/// A fan turns where it says so: by a number over zero, or by an event that means it.
fn fan(row: &Row<'_>) -> Observation {
    let speeds = speeds(row);
    let stands = speeds.iter().any(|speed| *speed <= 0.0);
    let events = row.events();
    let is_good = |event: &Event| match event {
        Event::DevicePresent | Event::Works => true,
        Event::Presence
        | Event::DeviceAbsent
        | Event::Rests
        | Event::Failed
        | Event::Switched
        | Event::Unknown => false,
    };
    match row.failure() {
        Some(text) => Observation::Found { text },
        None if stands => Observation::Found { text: row.said.to_owned() },
        None if row.status == "ok"
            && !(speeds.is_empty() && events.is_empty())
            && events.iter().all(|(event, _)| is_good(event)) =>
        {
            Observation::Found { text: FAN_GOOD.to_owned() }
        }
        None => Observation::Unreadable {
            why: format!("the BMC says {:?} of it with status {}, not that it turns", row.said, row.status),
        },
    }
}

/// What the whole machine takes, where the BMC has DCMI.
fn system_power(said: Result<Said, String>, artifacts: &mut Vec<(String, Vec<u8>)>) -> Observation {
    const LINE: &str = "Instantaneous power reading:";
    const STATE: &str = "Power reading state is:";
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
    let value = |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim);
    let watts = value(LINE).and_then(|value| value.strip_suffix("Watts")?.trim().parse::<f64>().ok());
    match (value(STATE), watts) {
        (Some("activated"), Some(watts)) if watts > 0.0 => Observation::measured(watts, "W"),
        (Some("activated"), Some(watts)) => {
            unreadable(format!("the BMC says that a machine that runs takes {watts} Watts"))
        }
        (Some("activated"), None) => unreadable("ipmitool does not say the power of this moment".to_owned()),
        (Some("deactivated"), _) => {
            Observation::Absent { why: "the BMC measures no power: it is deactivated".to_owned() }
        }
        (Some(state), _) => unreadable(format!("ipmitool says {state:?} for whether the BMC measures power")),
        (None, _) => unreadable("ipmitool does not say whether the BMC measures power".to_owned()),
    }
}
