//! Errors that NVIDIA's driver wrote into the kernel's log since the machine started: `NVRM: Xid (PCI:0000:17:00): 79, …`.
//!
//! Which are the hardware's is a table after NVIDIA's catalog (docs.nvidia.com/deploy/xid-errors, of R535 and later); an
//! application's own faults warn, and so does what the table does not have. Reading is pure.

use std::collections::BTreeMap;

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::{NO_XIDS, names};

use super::{Ask, Finding};

/// Codes by which the hardware failed.
const HARDWARE: [(u32, &str); 17] = [
    (46, "the GPU stopped processing"),
    (48, "an error of two bits that nothing corrected"),
    (54, "auxiliary power is not connected"),
    (61, "an internal microcontroller broke off"),
    (62, "an internal microcontroller halted"),
    (64, "a row could not be remapped or a page not retired"),
    (74, "an error of NVLink"),
    (79, "the GPU has fallen off the bus"),
    (92, "a high rate of corrected errors"),
    (94, "a contained error of memory"),
    (95, "an uncontained error of memory"),
    (110, "a fault of the GPU's security"),
    (119, "the GPU's system processor did not answer"),
    (120, "an error of the GPU's system processor"),
    (140, "an error of memory that nothing recovered"),
    (143, "the GPU could not be initialised"),
    (145, "an error of NVLink's links"),
];

/// Reads the kernel's log.
pub(super) fn read(ask: &Ask<'_>, artifacts: &mut Vec<(String, Vec<u8>)>) -> Vec<Finding> {
    let of = |component: Option<String>, observed, evidence: String| Finding {
        name: names::XIDS,
        component,
        observed,
        evidence,
    };
    let log = match ask("dmesg", &["--kernel"]) {
        Ok(log) => log,
        Err(why) => return vec![of(None, Observation::Unreadable { why }, String::new())],
    };
    let text = String::from_utf8_lossy(&log).into_owned();
    let xids = xids(&text);
    if xids.is_empty() {
        let observed = match text.trim().is_empty() {
            true => Observation::Unreadable { why: "the kernel's log is empty".to_owned() },
            false => Observation::Found { text: NO_XIDS.to_owned() },
        };
        return vec![of(None, observed, "dmesg --kernel".to_owned())];
    }
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("NVRM: Xid")).collect();
    artifacts.push(("dmesg-xid.txt".to_owned(), lines.join("\n").into_bytes()));
    xids.into_iter()
        .map(|((pci, code), (count, line))| {
            let times = format!("XID {code}, {count} times");
            let observed = match (code, HARDWARE.iter().find(|(of, _)| Some(*of) == code_of(code))) {
                (_, Some((_, what))) => Observation::Found { text: format!("{times}: {what}") },
                (Code::Unreadable, None) => Observation::Unreadable {
                    why: "the driver wrote an error whose code cannot be read".to_owned(),
                },
                (Code::Is(_), None) => Observation::Unexpected { what: times },
            };
            of(Some(pci), observed, line)
        })
        .collect()
}

/// A code, or that there should be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Code {
    Is(u32),
    Unreadable,
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Code::Is(code) => write!(f, "{code}"),
            Code::Unreadable => f.write_str("?"),
        }
    }
}

fn code_of(code: Code) -> Option<u32> {
    match code {
        Code::Is(code) => Some(code),
        Code::Unreadable => None,
    }
}

/// Each code of each GPU: how often, and the first line of it.
fn xids(text: &str) -> BTreeMap<(String, Code), (u32, String)> {
    const SIGN: &str = "NVRM: Xid (";
    let mut xids = BTreeMap::new();
    for line in text.lines() {
        let Some((_, rest)) = line.split_once(SIGN) else { continue };
        let (pci, rest) = rest.split_once("):").unwrap_or(("?", ""));
        let code = rest.trim().split(|c: char| !c.is_ascii_digit()).next().and_then(|code| code.parse().ok());
        let code = code.map_or(Code::Unreadable, Code::Is);
        let pci = pci.trim_start_matches("PCI:").to_owned();
        let (count, _line) = xids.entry((pci, code)).or_insert_with(|| (0u32, line.to_owned()));
        *count = count.saturating_add(1);
    }
    xids
}
