//! InfiniBand, from /sys/class/infiniband: which ports have a link, what it negotiated, and what it counted within the stage.
//!
//! After the kernel's Documentation/ABI/stable/sysfs-class-infiniband. A port of Ethernet (RoCE) is the stage Network's.

use std::collections::BTreeMap;

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::names;

use super::Finding;
use crate::probe::Root;

const FOLDER: &str = "/sys/class/infiniband";
/// What a counter of 8 bits, and one of 16, stops at (InfiniBand specification, volume 1, "PortCounters"; the kernel's
/// drivers/infiniband/core/sysfs.c has the width of each).
const FULL_8: u64 = 0xff;
const FULL_16: u64 = 0xffff;
const SYMBOL_ERRORS: [&str; 1] = ["symbol_error"];
const LINK_ERRORS: [&str; 2] = ["link_downed", "link_error_recovery"];

/// What a port says.
pub(super) struct Port {
    state: String,
    /// Whether the cable is up, whatever the subnet's manager makes of it.
    has_link: bool,
    /// `100 Gb/sec (4X EDR)`.
    rate: String,
    counters: BTreeMap<&'static str, Result<u64, Gap>>,
}

/// Why there is no count.
#[derive(Debug, Clone)]
enum Gap {
    NotKept,
    Unreadable(String),
}

/// Every InfiniBand port by its name, `mlx5_0/1`.
///
/// # Errors
/// Where the list of them cannot be read.
pub(super) fn read(root: &Root) -> Result<BTreeMap<String, Port>, String> {
    let list = |folder: &str| match root.list(folder) {
        Ok(names) => Ok(names.unwrap_or_default()),
        Err(error) => Err(format!("{folder}: {error}")),
    };
    let mut ports = BTreeMap::new();
    for device in list(FOLDER)? {
        for number in list(&format!("{FOLDER}/{device}/ports"))? {
            let folder = format!("{FOLDER}/{device}/ports/{number}");
            let text = |file: &str| root.detail(&format!("{folder}/{file}")).unwrap_or_default();
            if text("link_layer") == "Ethernet" {
                continue;
            }
            let count = |name: &'static str| {
                let path = format!("{folder}/counters/{name}");
                let count = match root.attribute(&path) {
                    Ok(None) => Err(Gap::NotKept),
                    Ok(Some(text)) => match text.parse() {
                        Ok(count) if count == full(name) => Err(Gap::Unreadable(format!("{path} is full"))),
                        Ok(count) => Ok(count),
                        Err(_) => Err(Gap::Unreadable(format!("{path} says {text:?}, expected a count"))),
                    },
                    Err(error) => Err(Gap::Unreadable(format!("{path}: {error}"))),
                };
                (name, count)
            };
            let counters = SYMBOL_ERRORS.into_iter().chain(LINK_ERRORS).map(count).collect();
            let (state, phys) = (text("state"), text("phys_state"));
            let has_link = state.ends_with("ACTIVE") || phys.ends_with("LinkUp");
            let state = format!("{state}, {phys}");
            ports
                .insert(format!("{device}/{number}"), Port { state, has_link, rate: text("rate"), counters });
        }
    }
    Ok(ports)
}

/// What a counter stops at.
fn full(name: &str) -> u64 {
    if LINK_ERRORS.contains(&name) { FULL_8 } else { FULL_16 }
}

type Ports = Result<BTreeMap<String, Port>, String>;

/// What the ports say, and what they counted between two readings. `is_wanted`: the profile says how many must have a link.
pub(super) fn findings(before: &Ports, after: &Ports, is_wanted: bool) -> Vec<Finding> {
    let (before, after) = match (before, after) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(why), _) | (_, Err(why)) => {
            let why = why.clone();
            return vec![Finding::of(names::INFINIBAND_PORTS, None, Observation::Unreadable { why }, FOLDER)];
        }
    };
    let absent = |why: &str| Observation::Absent { why: why.to_owned() };
    let mut findings = Vec::new();
    // One that went away within the stage is there no more.
    for (name, port) in before.iter().filter(|(name, _)| !after.contains_key(*name)) {
        let what = format!("the port {name}, which was there before ({})", port.state);
        findings.push(Finding::of(
            names::INFINIBAND_PORTS,
            Some(name),
            Observation::Missing { what },
            FOLDER,
        ));
    }
    for (name, port) in after {
        let of =
            |check, observed| Finding::of(check, Some(name), observed, &format!("{FOLDER}: {}", port.rate));
        if !port.has_link {
            let why = format!(
                "{name} has no link ({}); infiniband_ports_min of the profile says how many must",
                port.state
            );
            findings.push(of(names::INFINIBAND_RATE, absent(&why)));
            continue;
        }
        if !port.state.contains("ACTIVE") {
            let what = format!("a link that no manager of a subnet made active ({})", port.state);
            findings.push(of(names::INFINIBAND_PORTS, Observation::Unexpected { what }));
        }
        let (rate, lanes) = rate(&port.rate);
        findings.push(of(names::INFINIBAND_RATE, rate));
        findings.push(of(names::INFINIBAND_WIDTH, lanes));
        let was = before.get(name);
        for (check, counters) in [
            (names::INFINIBAND_SYMBOL_ERRORS, &SYMBOL_ERRORS[..]),
            (names::INFINIBAND_LINK_ERRORS, &LINK_ERRORS),
        ] {
            findings.push(of(check, grown(was, port, counters)));
        }
    }
    let linked = after.values().filter(|port| port.has_link).count();
    let count = match is_wanted || linked > 0 {
        true => Observation::measured(linked as f64, "ports"),
        false if after.is_empty() => absent("the machine has no InfiniBand port"),
        false => absent("no InfiniBand port has a link"),
    };
    if linked == 0 {
        let owed = [
            names::INFINIBAND_RATE,
            names::INFINIBAND_WIDTH,
            names::INFINIBAND_SYMBOL_ERRORS,
            names::INFINIBAND_LINK_ERRORS,
        ];
        findings.extend(
            owed.map(|name| Finding::of(name, None, absent("no InfiniBand port has a link"), FOLDER)),
        );
    }
    findings.push(Finding::of(names::INFINIBAND_PORTS, None, count, FOLDER));
    findings
}

/// Gb/s and lanes of `100 Gb/sec (4X EDR)`.
fn rate(text: &str) -> (Observation, Observation) {
    let unreadable = || Observation::Unreadable {
        why: format!("the port's rate is {text:?}, expected one as \"100 Gb/sec (4X EDR)\""),
    };
    let number =
        |text: Option<&str>| text.and_then(|text| text.trim().parse::<f64>().ok()).filter(|n| *n > 0.0);
    let gbps = number(text.split_once(" Gb/sec").map(|(gbps, _)| gbps));
    let lanes = number(text.split_once('(').and_then(|(_, rest)| Some(rest.split_once('X')?.0)));
    (
        gbps.map_or_else(unreadable, |gbps| Observation::measured(gbps, "Gb/s")),
        lanes.map_or_else(unreadable, |lanes| Observation::measured(lanes, "lanes")),
    )
}

/// What some counters of a port grew by together.
fn grown(was: Option<&Port>, is: &Port, counters: &[&'static str]) -> Observation {
    let unreadable = |why: String| Observation::Unreadable { why };
    let Some(was) = was else { return unreadable("the port was not there before the stage".to_owned()) };
    let (mut grown, mut is_kept) = (0, false);
    for name in counters {
        match (&was.counters[name], &is.counters[name]) {
            (Ok(before), Ok(after)) if after >= before => (grown, is_kept) = (grown + (after - before), true),
            (Ok(before), Ok(after)) => {
                return unreadable(format!("{name} went back from {before} to {after}"));
            }
            (Err(Gap::Unreadable(why)), _) | (_, Err(Gap::Unreadable(why))) => {
                return unreadable(why.clone());
            }
            (Err(Gap::NotKept), Err(Gap::NotKept)) => {}
            (Err(Gap::NotKept), Ok(_)) | (Ok(_), Err(Gap::NotKept)) => {
                return unreadable(format!("{name} was counted at one end of the stage alone"));
            }
        }
    }
    match is_kept {
        true => Observation::measured(grown as f64, "errors"),
        false => Observation::Absent { why: "the port's driver does not count them".to_owned() },
    }
}
