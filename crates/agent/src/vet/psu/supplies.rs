//! What a BMC says of its supplies: each by the events of its sensor, all together by the sensors of redundancy and of the power
//! unit, and what each takes in. Pure.

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::{SUPPLY_GOOD, names};

use super::Finding;
use super::events::{Event, Row, rows};

/// The entity of power supplies (IPMI 2.0, table 43-13).
const ENTITY: &str = "10.";
/// How texts on redundancy begin (IPMI 2.0, table 42-2, event type 0Bh).
const REDUNDANCY: [&str; 3] = ["Fully Redundant", "Redundancy", "Non-Redundant"];

fn unreadable(why: impl Into<String>) -> Observation {
    Observation::Unreadable { why: why.into() }
}

fn absent(why: &str) -> Observation {
    Observation::Absent { why: why.to_owned() }
}

/// What a sensor of the type Power Supply tells of.
enum Place {
    /// A supply, or what should be one.
    Supply(Observation),
    /// Nothing: no sensor reads there, or it says that nothing is there.
    Empty,
    /// No supply, but a number of one.
    Reading,
}

fn place(row: &Row<'_>) -> Place {
    if let Some(text) = row.failure() {
        return Place::Supply(Observation::Found { text });
    }
    if row.says_nothing() {
        return Place::Empty;
    }
    let events = row.events();
    let has = |wanted: Event| events.iter().any(|(event, _)| *event == wanted);
    let is_there = has(Event::Presence) || has(Event::DevicePresent);
    if events.is_empty() && !row.readings().is_empty() {
        return Place::Reading;
    }
    if let [(Event::DeviceAbsent, _)] = events.as_slice() {
        return Place::Empty;
    }
    if has(Event::Unknown) || has(Event::DeviceAbsent) || has(Event::Switched) {
        return Place::Supply(unreadable(format!(
            "the BMC says {:?} of it, which tells neither of a failure nor of none",
            row.said
        )));
    }
    match (row.status, is_there) {
        ("ok", true) => Place::Supply(Observation::Found { text: SUPPLY_GOOD.to_owned() }),
        ("ok", false) => Place::Supply(unreadable("the BMC does not even say that it is present")),
        (status, _) => Place::Supply(unreadable(format!("the BMC says {:?} with status {status}", row.said))),
    }
}

/// Which places are supplies, which are empty, and what was found of both.
pub(super) struct Supplies {
    pub findings: Vec<Finding>,
    /// Names of all sensors of the type.
    names: Vec<String>,
    /// Entities of places that are empty, and may be.
    empty: Vec<String>,
    /// Entities of supplies that are there, have no failure, and do not say that they rest.
    at_work: Vec<String>,
}

impl Supplies {
    /// Where the BMC could not be asked.
    pub fn unreadable(why: &str) -> Supplies {
        let of = |name| Finding::of(name, None, unreadable(why), "");
        Supplies {
            findings: vec![of(names::SUPPLIES), of(names::SUPPLY)],
            names: Vec::new(),
            empty: Vec::new(),
            at_work: Vec::new(),
        }
    }

    /// From `sdr type "Power Supply"`; `expected` is how many the profile wants.
    pub fn of(rows: &[Row<'_>], expected: Option<u32>) -> Supplies {
        let places: Vec<(&Row<'_>, Place)> =
            rows.iter().filter(|row| !is_redundancy(row)).map(|row| (row, place(row))).collect();
        let say = |wanted: Event| {
            let says = |row: &Row<'_>| row.events().iter().any(|(event, _)| *event == wanted);
            places.iter().filter(|(row, _)| says(row)).count()
        };
        // A supply may have a sensor of each kind, and counts once.
        let present = u32::try_from(say(Event::Presence).max(say(Event::DevicePresent))).unwrap_or(u32::MAX);
        let may_be_empty = expected.is_some_and(|expected| present >= expected);
        let (findings, names, empty, at_work) = Default::default();
        let mut supplies = Supplies { findings, names, empty, at_work };
        supplies.names.extend(rows.iter().map(|row| row.name.to_owned()));
        for (row, place) in places {
            let observed = match place {
                Place::Reading => continue,
                Place::Supply(observed) => {
                    let rests = row.events().iter().any(|(event, _)| *event == Event::Rests);
                    let is_good = matches!(&observed, Observation::Found { text } if text == SUPPLY_GOOD);
                    if is_good && !rests {
                        supplies.at_work.push(row.entity.to_owned());
                    }
                    observed
                }
                Place::Empty if may_be_empty => {
                    supplies.empty.push(row.entity.to_owned());
                    absent("no supply is in this place, and as many as the profile wants are in others")
                }
                Place::Empty => unreadable(format!(
                    "the BMC says {:?} of it: a supply that says nothing, or an empty place (write psu.supplies for that)",
                    row.said
                )),
            };
            supplies.findings.push(Finding::of(names::SUPPLY, Some(row.name), observed, &row.evidence()));
        }
        if supplies.findings.is_empty() {
            return Supplies {
                names: supplies.names,
                ..Supplies::unreadable("the BMC tells of no power supply")
            };
        }
        let count = Observation::measured(f64::from(present), "present");
        let evidence = "ipmitool sdr type \"Power Supply\"";
        supplies.findings.push(Finding::of(names::SUPPLIES, None, count, evidence));
        supplies
    }

    /// What each supply takes in, by the sensors of supplies that are in watts, from `sdr elist`.
    ///
    /// # Errors
    /// Where a line is no sensor.
    pub fn input_power(&self, text: &str) -> Result<Vec<Finding>, String> {
        let mut findings = Vec::new();
        let rows = rows(text)?;
        let is_output = |row: &Row<'_>| row.name.to_lowercase().contains("out");
        for row in rows.iter().filter(|row| row.entity.starts_with(ENTITY) && !is_output(row)) {
            let is_judged = self.names.iter().any(|name| name == row.name);
            let watts = row.readings().into_iter().find(|(_, unit)| *unit == "Watts");
            let observed = match watts {
                Some((watts, _)) => Observation::measured(watts, "W"),
                None if row.said.ends_with("Watts") => {
                    unreadable(format!("the BMC says {:?} of it", row.said))
                }
                None if row.says_nothing() && names_power(row.name) && !is_judged => {
                    if self.empty.iter().any(|entity| entity == row.entity) {
                        continue;
                    }
                    unreadable(format!("the BMC says {:?} of it", row.said))
                }
                None => continue,
            };
            // One without its cable, or a dead one, of which the BMC tells no event; some rest and do not say so.
            let takes_nothing = watts.is_some_and(|(watts, _)| watts <= 0.0) && names_power(row.name);
            if takes_nothing && !is_judged && self.at_work.iter().any(|entity| entity == row.entity) {
                let what = "a supply that is present and takes in nothing".to_owned();
                let observed = Observation::Unexpected { what };
                findings.push(Finding::of(names::SUPPLY, Some(row.name), observed, &row.evidence()));
            }
            // The number is the profile's to judge, its threshold the BMC's.
            if let (Some(text), false) = (row.failure(), is_judged) {
                let found = Observation::Found { text };
                findings.push(Finding::of(names::SUPPLY, Some(row.name), found, &row.evidence()));
            }
            findings.push(Finding::of(names::INPUT_POWER, Some(row.name), observed, &row.evidence()));
        }
        if findings.is_empty() {
            let why = absent("the BMC does not say what its supplies take in");
            findings.push(Finding::of(names::INPUT_POWER, None, why, ""));
        }
        Ok(findings)
    }
}

/// Whether a sensor is one of power, by its name: without a reading nothing else tells.
fn names_power(name: &str) -> bool {
    let rest = name.to_lowercase().replace("power supply", "");
    ["pin", "power", "pwr", "watt"].iter().any(|word| rest.contains(word))
}

pub(super) fn is_redundancy(row: &Row<'_>) -> bool {
    REDUNDANCY.iter().any(|begins| row.said.starts_with(begins)) || row.name.to_lowercase().contains("redun")
}

/// Whether one supply may fail, by the sensors of supplies and of the power unit: BMCs differ in where they have it.
pub(super) fn redundancy(supplies: &[Row<'_>], unit: &[Row<'_>]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for row in supplies.iter().chain(unit).filter(|row| is_redundancy(row)) {
        let observed = match row.failure() {
            Some(text) => Observation::Found { text },
            None if row.says_nothing() || row.said.is_empty() => absent("its sensor says nothing"),
            None if row.status == "ok" && REDUNDANCY.iter().any(|begins| row.said.starts_with(begins)) => {
                Observation::Found { text: row.said.to_owned() }
            }
            None => unreadable(format!("the BMC says {:?} of it with status {}", row.said, row.status)),
        };
        findings.push(Finding::of(names::REDUNDANCY, Some(row.name), observed, &row.evidence()));
    }
    if findings.is_empty() {
        let why = absent("the BMC has no sensor for the redundancy of its supplies");
        findings.push(Finding::of(names::REDUNDANCY, None, why, ""));
    }
    findings
}

/// What the power unit says of a failure; one that says of none is no news, as it tells nothing of a supply.
pub(super) fn unit(rows: &[Row<'_>]) -> Vec<Finding> {
    let judged = |row: &Row<'_>| {
        let unknown = row.events().into_iter().find(|(event, _)| *event == Event::Unknown);
        let observed = match (row.failure(), unknown) {
            (Some(text), _) => Observation::Found { text },
            (None, Some((_, text))) if !row.says_nothing() => unreadable(format!(
                "the BMC says {text:?} of it, which tells neither of a failure nor of none"
            )),
            (None, _) => return None,
        };
        Some(Finding::of(names::SUPPLY, Some(row.name), observed, &row.evidence()))
    };
    rows.iter().filter(|row| !is_redundancy(row)).filter_map(judged).collect()
}
