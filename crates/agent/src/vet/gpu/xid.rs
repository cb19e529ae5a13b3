//! Errors that NVIDIA's driver wrote into the kernel's log since the machine started: `NVRM: Xid (PCI:0000:17:00): 79, …`.
//!
//! Which are the hardware's is a table after NVIDIA's catalog (docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html, of
//! drivers up to R575); an
//! application's own faults warn, and so does what the table does not have. Reading is pure.

use std::collections::{BTreeMap, BTreeSet};

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::{NO_XIDS, names};

use super::{Ask, Finding};

/// Codes by which the hardware failed.
const HARDWARE: [(u32, &str); 31] = [
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
    (136, "a link of NVLink could not be trained"),
    (140, "an error of memory that nothing recovered"),
    (143, "the GPU could not be initialised"),
    (144, "an error of NVLink (SAW)"),
    (145, "an error of NVLink (RLW)"),
    (146, "an error of NVLink (TLW)"),
    (147, "an error of NVLink (TREX)"),
    (148, "an error of NVLink (NVLPW_CTRL)"),
    (149, "an error of NVLink (NETIR)"),
    (150, "an error of NVLink (MSE)"),
    (157, "a broken part could not be retired"),
    (158, "the GPU did not answer any more"),
    (161, "a channel of memory could not be retired"),
    (167, "PCIe did not answer any more"),
    (169, "an internal microcontroller halted"),
    (171, "an error of memory that nothing corrected (DRAM)"),
    (172, "an error of memory that nothing corrected (SRAM)"),
];

/// The kernel's log as it stands.
///
/// # Errors
/// Why nobody can read it.
pub(super) fn log(ask: &Ask<'_>) -> Result<Vec<u8>, String> {
    ask("dmesg", &["--kernel"])
}

/// What the kernel's log says, read again where a load was put on the GPUs: it has room for so many lines, and what stood in
/// it before may have gone.
pub(super) fn findings(
    before: Option<Vec<u8>>,
    after: Result<Vec<u8>, String>,
    artifacts: &mut Vec<(String, Vec<u8>)>,
) -> Vec<Finding> {
    const EVIDENCE: &str = "dmesg --kernel";
    let of = |component: Option<&str>, observed, evidence: &str| {
        Finding::of(names::XIDS, component, observed, evidence)
    };
    let unreadable = |why: String| of(None, Observation::Unreadable { why }, EVIDENCE);
    let mut text = String::from_utf8_lossy(&before.unwrap_or_default()).into_owned();
    let mut findings = match &after {
        Err(why) => vec![unreadable(why.clone())],
        Ok(log) if log.trim_ascii().is_empty() => vec![unreadable("the kernel's log is empty".to_owned())],
        Ok(_) => Vec::new(),
    };
    text.push('\n');
    text.push_str(&String::from_utf8_lossy(&after.unwrap_or_default()));
    let xids = xids(&text);
    if xids.is_empty() && findings.is_empty() {
        return vec![of(None, Observation::Found { text: NO_XIDS.to_owned() }, EVIDENCE)];
    }
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(SIGN)).collect();
    if !lines.is_empty() {
        artifacts.push(("dmesg-xid.txt".to_owned(), lines.join("\n").into_bytes()));
    }
    findings.extend(xids.into_iter().map(|((pci, code), (count, line))| {
        let times = format!("XID {code}, {count} times");
        let observed = match (code, HARDWARE.iter().find(|(of, _)| Some(*of) == code_of(code))) {
            (_, Some((_, what))) => Observation::Found { text: format!("{times}: {what}") },
            (Code::Unreadable, None) => Observation::Unreadable {
                why: "the driver wrote an error whose code cannot be read".to_owned(),
            },
            (Code::Is(_), None) => Observation::Unexpected { what: times },
        };
        of(Some(&pci), observed, line)
    }));
    findings
}

/// How the driver's lines begin.
const SIGN: &str = "NVRM: Xid";

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

/// Each code of each GPU: how often, and the first line of it. A line that was read twice counts once.
fn xids(text: &str) -> BTreeMap<(String, Code), (usize, &str)> {
    let mut xids: BTreeMap<(String, Code), BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines() {
        let Some((_, rest)) = line.split_once(SIGN) else { continue };
        let (pci, rest) = rest.split_once("):").unwrap_or(("?", ""));
        let code = rest.trim().split(|c: char| !c.is_ascii_digit()).next().and_then(|code| code.parse().ok());
        let code = code.map_or(Code::Unreadable, Code::Is);
        let pci = pci.trim_start_matches([' ', '(']).trim_start_matches("PCI:").to_owned();
        xids.entry((pci, code)).or_default().insert(line);
    }
    xids.into_iter().map(|(of, lines)| (of, (lines.len(), *lines.first().expect("one was put in")))).collect()
}
