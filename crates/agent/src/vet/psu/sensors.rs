//! What the kernel's own sensors say of supplies and fans, where there is no BMC: /sys/class/power_supply and hwmon.
//!
//! Which files there are: the kernel's Documentation/ABI/testing/sysfs-class-power and Documentation/hwmon/sysfs-interface. Few
//! machines without a BMC have a supply that tells anything of itself; what nobody tells is skipped with that reason.

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::{FAN_GOOD, SUPPLY_GOOD, names};
use groundcrew_protocol::time::WallMs;

use super::Finding;
use crate::probe::{Root, hwmon};

const SUPPLIES: &str = "/sys/class/power_supply";
const CHIPS: &str = "/sys/class/hwmon";

/// Reads the sensors.
pub(super) fn read(root: &Root) -> Vec<Finding> {
    let mut findings = supplies(root);
    let absent = |name: &'static str, why: &str| {
        Finding::of(name, None, Observation::Absent { why: why.to_owned() }, "")
    };
    findings.push(absent(names::REDUNDANCY, "without a BMC nobody tells whether supplies are redundant"));
    let power: Vec<Finding> = hwmon::read(root, WallMs(0))
        .into_iter()
        .filter(|sample| sample.kind == "power" && sample.key.to_lowercase().contains("psu"))
        .map(|sample| {
            let observed = Observation::measured(sample.value, "W");
            Finding::of(names::INPUT_POWER, Some(&sample.key), observed, CHIPS)
        })
        .collect();
    if power.is_empty() {
        findings.push(absent(names::INPUT_POWER, "no sensor tells what a supply takes in"));
    }
    findings.extend(power);
    findings.extend(fans(root));
    // The kernel's own are watched around every stage (`critical_temperature`).
    findings.push(absent(names::TEMPERATURES, "there is no BMC, which would have thresholds"));
    findings.push(absent(names::SYSTEM_POWER, "without a BMC nobody tells what the whole machine takes"));
    findings
}

/// Supplies that are on the mains. Batteries are none.
fn supplies(root: &Root) -> Vec<Finding> {
    let unreadable = |why: String| {
        let observed = || Observation::Unreadable { why: why.clone() };
        vec![
            Finding::of(names::SUPPLY, None, observed(), SUPPLIES),
            Finding::of(names::SUPPLIES, None, observed(), SUPPLIES),
        ]
    };
    let listed = match root.list(SUPPLIES) {
        Ok(listed) => listed.unwrap_or_default(),
        Err(error) => return unreadable(format!("{SUPPLIES}: {error}")),
    };
    let mut findings = Vec::new();
    let mut present = 0u32;
    for name in listed {
        let path = |file: &str| format!("{SUPPLIES}/{name}/{file}");
        if root.detail(&path("type")).as_deref() != Some("Mains") {
            continue;
        }
        let observed = match root.attribute(&path("online")) {
            Ok(Some(online)) if online == "1" => {
                present += 1;
                Observation::Found { text: SUPPLY_GOOD.to_owned() }
            }
            Ok(Some(online)) => Observation::Found { text: format!("online {online}") },
            Ok(None) => Observation::Unreadable { why: "it does not say whether it is online".to_owned() },
            Err(error) => Observation::Unreadable { why: format!("{}: {error}", path("online")) },
        };
        findings.push(Finding::of(names::SUPPLY, Some(&name), observed, &path("online")));
    }
    let observed = match findings.is_empty() {
        false => Observation::measured(f64::from(present), "present"),
        true => {
            let why = "the machine has no BMC, and no supply shows in /sys/class/power_supply";
            let absent = || Observation::Absent { why: why.to_owned() };
            findings.push(Finding::of(names::SUPPLY, None, absent(), ""));
            absent()
        }
    };
    findings.push(Finding::of(names::SUPPLIES, None, observed, SUPPLIES));
    findings
}

/// Fans by their alarms. One that stands without an alarm may be a plug that nothing is in.
fn fans(root: &Root) -> Vec<Finding> {
    let mut findings = Vec::new();
    for chip in root.list(CHIPS).ok().flatten().unwrap_or_default() {
        let folder = format!("{CHIPS}/{chip}");
        for file in root.list(&folder).ok().flatten().unwrap_or_default() {
            let Some(fan) = file.strip_suffix("_input").filter(|channel| channel.starts_with("fan")) else {
                continue;
            };
            let at = |suffix: &str| root.detail(&format!("{folder}/{fan}{suffix}"));
            let name = at("_label").unwrap_or_else(|| format!("{chip} {fan}"));
            let alarm = ["_alarm", "_fault", "_min_alarm"]
                .into_iter()
                .find(|alarm| at(alarm).as_deref() == Some("1"));
            let rpm = at("_input").and_then(|text| text.parse::<u64>().ok());
            let text = match (alarm, rpm) {
                (Some(alarm), _) => format!("{fan}{alarm}"),
                (None, Some(0) | None) => continue,
                (None, Some(_)) => FAN_GOOD.to_owned(),
            };
            let evidence = format!("{folder}/{file}");
            findings.push(Finding::of(names::FANS, Some(&name), Observation::Found { text }, &evidence));
        }
    }
    let absent = |name| {
        let why = "no sensor tells of a fan that turns".to_owned();
        Finding::of(name, None, Observation::Absent { why }, "")
    };
    match findings.is_empty() {
        true => vec![absent(names::FANS), absent(names::FAN_COUNT)],
        false => {
            findings.push(super::fan_count(&findings, CHIPS));
            findings
        }
    }
}
