//! The BMC's log of system events (SEL) around a stage: what came to it meanwhile. It is saved, and never cleared.
//!
//! `ipmitool sel elist` writes an entry a line, with its record id first: two entries are told apart by it alone. What happened
//! to the hardware fails, what is only said warns. A log that is full has lost the newest, and tells nothing. Reading is pure;
//! the lines are ipmitool 1.8.19's (`ipmi_sel_print_std_entry`), seen of a BMC that a test plays.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::order;
use groundcrew_protocol::plan::NO_EVENTS;

use super::super::StageContext;
use super::super::json_tool::{Call, Said};
use super::super::psu::{self, Bmc};
use super::Finding;
use super::read::Gap;

/// A BMC with thousands of entries needs most of it.
const CALL_TIME: Duration = Duration::from_secs(60);
/// Events that get a check of their own; the last says how many more there are.
const EVENTS_MAX: usize = 32;

/// The words, by how they begin, of events by which hardware says that it failed (IPMI 2.0 specification, tables 42-2 and 42-3,
/// as ipmitool writes them, in small letters). `non-critical` is a word of its own.
const FAILURES: [&str; 13] = [
    "uncorrectable",
    "fail",
    "critical",
    "non-recoverable",
    "fatal",
    "fault",
    "ierr",
    "serr",
    "perr",
    "parity",
    "frb",
    "non-redundant",
    "degraded",
];
/// The same, of more words than one.
const FAILURES_IN_WORDS: [&str; 7] = [
    "ac lost",
    "config error",
    "configuration error",
    "thermal trip",
    "machine check exception",
    "redundancy lost",
    "bus timeout",
];

/// The log at one moment: entries by their record id, and how it was printed.
pub(super) type Log = (BTreeMap<u32, String>, Vec<u8>);

/// Reads the log.
pub(super) fn read(context: &StageContext) -> Result<Log, Gap> {
    match psu::bmc_of(&context.root) {
        Bmc::Reachable => {}
        Bmc::Unreachable(why) => return Err(Gap::Unreadable(why)),
        Bmc::None => return Err(Gap::NotKept("the machine has no BMC (no /dev/ipmi0)".to_owned())),
    }
    let ask = |arguments: &[&str]| {
        let call = Call {
            context,
            program: "ipmitool",
            arguments: arguments.iter().map(Into::into).collect(),
            time: CALL_TIME,
            // The stage's own deadline may have passed, and the log is to be saved all the same.
            deadline: Instant::now() + CALL_TIME,
            about: "the BMC's log of events".to_owned(),
        };
        let said = call.run()?;
        match said.exit {
            0 => Ok(said),
            status => Err(format!("{} ended with status {status}", call.command())),
        }
    };
    let read = ask(&["sel", "info"]).and_then(|info| full(&text(&info)?).map_or(Ok(()), Err));
    let entries = read.and_then(|()| ask(&["sel", "elist"])).and_then(|said| {
        let entries = entries(&text(&said)?)?;
        Ok((entries, said.stdout))
    });
    entries.map_err(Gap::Unreadable)
}

fn text(said: &Said) -> Result<String, String> {
    String::from_utf8(said.stdout.clone()).map_err(|_| "ipmitool printed no text".to_owned())
}

/// Why the log tells nothing: it is full, or nobody says whether it is.
fn full(info: &str) -> Option<String> {
    let value = |key: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim())
    };
    let overflow = value("Overflow");
    let free: Option<u32> = value("Free Space").and_then(|free| free.split(' ').next()?.parse().ok());
    let is_full = overflow == Some("true") || value("Percent Used") == Some("100%") || free == Some(0);
    match (value("Entries"), is_full) {
        (None, _) => Some("ipmitool does not say how many entries the BMC's log has".to_owned()),
        (Some(count), true) => Some(format!(
            "the BMC's log of events is full with {count} entries, and what is newer is lost: save it and clear it"
        )),
        (Some(_), false) if overflow == Some("false") && free.is_some() => None,
        (Some(_), false) => Some("ipmitool does not say whether the BMC's log of events is full".to_owned()),
    }
}

fn entries(text: &str) -> Result<BTreeMap<u32, String>, String> {
    let entry = |line: &str| {
        let (id, said) = line.split_once('|')?;
        let id = u32::from_str_radix(id.trim(), 16).ok()?;
        let said: Vec<&str> = said.split('|').map(str::trim).collect();
        // A record of the maker's own may have no time, sensor or event.
        let is_oem = said.len() == 2 && said[0].starts_with("OEM record");
        (said.len() >= 3 || is_oem).then(|| (id, said.join(" | ")))
    };
    let mut entries = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (id, said) =
            entry(line).ok_or_else(|| format!("ipmitool printed {line:?}, expected an entry of the log"))?;
        if entries.insert(id, said).is_some() {
            return Err(format!("ipmitool printed the entry {id:x} twice"));
        }
    }
    Ok(entries)
}

/// Whether an entry says that hardware failed: by its event alone, which stands after the sensor and before the word that says
/// whether it came or went. A sensor may be called `Critical Interrupt`, and a state `Deasserted` may come.
fn is_failure(said: &str) -> bool {
    let columns: Vec<&str> = said.split(" | ").collect();
    let Some(from_event) = columns.get(3..) else { return false };
    let at = from_event.iter().position(|column| matches!(*column, "Asserted" | "Deasserted"));
    if at.is_some_and(|at| from_event[at] == "Deasserted") {
        return false;
    }
    let event = from_event[..at.unwrap_or(from_event.len())].join(" ").to_lowercase();
    let is_of_a_word = |c: char| c.is_alphanumeric() || c == '-';
    let words: Vec<&str> = event.split(|c: char| !is_of_a_word(c)).filter(|word| !word.is_empty()).collect();
    let in_words = words.join(" ");
    // A drive's array reads itself over, and found nothing so far.
    if in_words.starts_with("parity check in progress") {
        return false;
    }
    // `Predictive Failure Deasserted` is a state, as is `Fault Status Deasserted`.
    words.last() != Some(&"deasserted")
        && (words.iter().any(|word| FAILURES.iter().any(|failure| word.starts_with(failure)))
            || FAILURES_IN_WORDS.iter().any(|failure| in_words.contains(failure)))
}

/// What came between two readings.
pub(super) fn compare(before: &Result<Log, Gap>, after: &Result<Log, Gap>) -> Vec<Finding> {
    let of = |observed, evidence: &str| Finding { component: None, observed, evidence: evidence.to_owned() };
    let unreadable = |why: &str| vec![of(Observation::Unreadable { why: why.to_owned() }, "")];
    let (before, after) = match (before, after) {
        (Ok((before, _)), Ok((after, _))) => (before, after),
        (Err(Gap::NotKept(why)), _) => return vec![of(Observation::Absent { why: why.clone() }, "")],
        (Err(Gap::Unreadable(why)), _) | (_, Err(Gap::Unreadable(why) | Gap::NotKept(why))) => {
            return unreadable(why);
        }
    };
    if before.iter().any(|(id, said)| after.get(id) != Some(said)) {
        return unreadable("the BMC's log of events was cleared or changed within the stage");
    }
    let new: Vec<(&u32, &String)> = after.iter().filter(|(id, _)| !before.contains_key(id)).collect();
    let mut findings: Vec<Finding> = new
        .iter()
        .map(|(id, said)| {
            let is_failure = is_failure(said);
            let observed = match is_failure {
                true => Observation::Found { text: (*said).clone() },
                false => Observation::Unexpected { what: format!("the event {said}") },
            };
            let component = said.split(" | ").nth(2).map(str::to_owned);
            Finding { component, observed, evidence: format!("entry {id:x}: {said}") }
        })
        .collect();
    // Failures first: what is cut is what matters least.
    order::sort_by_key(&mut findings, |finding| matches!(finding.observed, Observation::Unexpected { .. }));
    let more = findings.len().saturating_sub(EVENTS_MAX);
    findings.truncate(EVENTS_MAX);
    if let (true, Some(last)) = (more > 0, findings.last_mut()) {
        last.evidence = format!("{}\nand {more} more events", last.evidence);
    }
    if findings.is_empty() {
        let evidence = format!("{} entries before the stage and after it", before.len());
        return vec![of(Observation::Found { text: NO_EVENTS.to_owned() }, &evidence)];
    }
    findings
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::check::{Check, Verdict, judge_stage};
    use groundcrew_protocol::plan::{names, planned_checks};
    use groundcrew_protocol::profile::StageSpec;
    use proptest::prelude::*;

    use super::*;
    use crate::vet::tests::mangled::{mangle, manglings};

    const BEFORE: &str =
        "   1 | 11/20/26 | 19:52:50 UTC | Event Logging Disabled #0x72 | Log area reset/cleared | Asserted\n";

    fn log(text: &str) -> Result<Log, Gap> {
        entries(text).map(|entries| (entries, Vec::new())).map_err(Gap::Unreadable)
    }

    fn verdicts(before: &str, after: &str) -> Vec<(Option<String>, Verdict)> {
        let plan: Vec<_> = planned_checks(&StageSpec::of("PSU".into()))
            .into_iter()
            .filter(|planned| planned.name == names::SEL_EVENTS)
            .collect();
        let verdict = |finding: Finding| {
            let check = Check::of(
                names::SEL_EVENTS,
                finding.component.as_deref(),
                finding.observed,
                Default::default(),
            );
            (finding.component, judge_stage(&plan, &[check]).verdict)
        };
        compare(&log(before), &log(after)).into_iter().map(verdict).collect()
    }

    #[test]
    fn what_came_meanwhile_is_judged_and_what_was_there_is_not() {
        let after = |line: &str| format!("{BEFORE}{line}");
        assert_eq!(verdicts(BEFORE, BEFORE), [(None, Verdict::Pass)]);
        for (line, component, verdict) in [
            (
                "2 | 11/21/26 | 10:00:00 UTC | Power Supply PS2 Status | Failure detected | Asserted",
                "Power Supply PS2 Status",
                Verdict::Fail,
            ),
            (
                "a | 11/21/26 | 10:00:00 UTC | Memory #0x53 | Uncorrectable ECC (@DIMMA1) | Asserted",
                "Memory #0x53",
                Verdict::Fail,
            ),
            (
                "2 | 11/21/26 | 10:00:00 UTC | Memory #0x53 | Correctable ECC | Asserted",
                "Memory #0x53",
                Verdict::Warn,
            ),
            (
                "2 | 11/21/26 | 10:00:00 UTC | Temperature CPU1 Temp | Upper Critical going high | Asserted",
                "Temperature CPU1 Temp",
                Verdict::Fail,
            ),
            (
                "2 | 11/21/26 | 10:00:00 UTC | Temperature CPU1 Temp | Upper Non-critical going high | Asserted",
                "Temperature CPU1 Temp",
                Verdict::Warn,
            ),
            (
                "2 | 11/21/26 | 10:00:00 UTC | Power Supply PS2 Status | Failure detected | Deasserted",
                "Power Supply PS2 Status",
                Verdict::Warn,
            ),
        ] {
            assert_eq!(verdicts(BEFORE, &after(line)), [(Some(component.to_owned()), verdict)], "{line}");
        }
    }

    #[test]
    fn events_are_told_by_their_own_column() {
        for (sensor_and_event, expected) in [
            ("Critical Interrupt PCIe | Bus Correctable error | Asserted", false),
            ("Critical Interrupt #0x05 | PCI SERR | Asserted", true),
            ("Critical Interrupt #0x05 | PCI PERR | Asserted", true),
            ("Critical Interrupt #0x05 | Bus Fatal Error | Asserted", true),
            ("Critical Interrupt #0x05 | Bus Uncorrectable error | Asserted", true),
            ("Memory #0x53 | Parity | Asserted", true),
            ("Drive Slot HDD3 | Parity Check In Progress | Asserted", false),
            ("Memory #0x53 | Memory Scrub Failed | Asserted", true),
            ("Processor CPU1 | FRB2/Hang in POST failure | Asserted", true),
            ("Processor CPU1 | Thermal Trip | Asserted", true),
            ("Processor CPU1 | Correctable machine check error | Asserted", false),
            ("Processor CPU1 | Uncorrectable machine check exception | Asserted", true),
            ("Power Unit Pwr | Soft-power control failure | Asserted", true),
            ("Power Supply Fault PS2 | Presence detected | Asserted", false),
            ("Power Supply PS2 | Power Supply AC lost | Asserted", true),
            ("Fan Fault Sensor | State Deasserted | Asserted", false),
            ("Drive Slot HDD3 | Predictive Failure Deasserted | Asserted", false),
            ("Drive Slot HDD3 | Drive Fault | Asserted", true),
            ("Drive Slot HDD3 | Drive Fault | Deasserted", false),
            (
                "Temperature T | Upper Critical going high | Asserted | Reading 97 > Threshold 95 degrees C",
                true,
            ),
            (
                "Temperature T | Upper Critical going high | Deasserted | Reading 90 < Threshold 95 degrees C",
                false,
            ),
            ("Temperature T | Transition to Non-critical from OK | Asserted", false),
            ("Temperature T | Transition to Critical from less severe | Asserted", true),
            ("Unknown #0xff |  | Asserted", false),
        ] {
            assert_eq!(
                is_failure(&format!("11/21/26 | 10:00:00 UTC | {sensor_and_event}")),
                expected,
                "{sensor_and_event}"
            );
        }
        let oem = "2 | OEM record e0 | 0102030405060708090a0b0c0d\n";
        assert_eq!(verdicts(BEFORE, &format!("{BEFORE}{oem}")), [(None, Verdict::Warn)]);
    }

    #[test]
    fn a_log_that_was_cleared_or_cannot_be_read_holds() {
        for after in [
            "",
            "1 | 11/21/26 | 10:00:00 UTC | System Event | something else | Asserted",
            "x | y",
            "no entries",
        ] {
            assert_eq!(verdicts(BEFORE, after), [(None, Verdict::Inconclusive)], "{after}");
        }
    }

    #[test]
    fn a_full_log_tells_nothing() {
        let info = |free: &str, used: &str, overflow: &str| {
            format!(
                "SEL Information\nVersion          : 1.5 (v1.5, v2 compliant)\nEntries          : 3\nFree Space       : {free}\nPercent Used     : {used}\nOverflow         : {overflow}\n"
            )
        };
        assert_eq!(full(&info("16000 bytes", "1%", "false")), None);
        for (free, used, overflow) in
            [("0 bytes", "100%", "false"), ("10 bytes", "99%", "true"), ("0 bytes", "unknown", "false")]
        {
            assert!(full(&info(free, used, overflow)).unwrap().contains("full with 3 entries"));
        }
        assert!(full("").is_some());
        for (free, overflow) in
            [("", "false"), ("x bytes", "false"), ("16000 bytes", ""), ("16000 bytes", "tr")]
        {
            let why = full(&info(free, "1%", overflow)).unwrap();
            assert!(why.contains("does not say whether"), "{free} {overflow}: {why}");
        }
    }

    proptest! {
        /// Whatever is left of what ipmitool says of a full log, it is not taken for one that has room.
        #[test]
        fn nothing_mangled_makes_room_in_a_full_log(
            said in proptest::sample::select(vec![("0 bytes", "100%", "false"), ("10 bytes", "99%", "true"), ("0 bytes", "unknown", "true")]),
            manglings in manglings(),
        ) {
            let (free, used, overflow) = said;
            let info = format!(
                "SEL Information\nVersion          : 1.5 (v1.5, v2 compliant)\nEntries          : 3\nFree Space       : {free} \n\
                 Percent Used     : {used}\nLast Add Time    : 11/20/26 19:52:50 UTC\nLast Del Time    : Not Available\n\
                 Overflow         : {overflow}\nSupported Cmds   : 'Delete' 'Reserve' \n"
            );
            let said = Said { exit: 0, stdout: mangle(&info, &manglings), stderr: Vec::new() };
            let read = text(&said).and_then(|info| full(&info).map_or(Ok(()), Err));
            let after = read.map_err(Gap::Unreadable).and_then(|()| log(BEFORE));
            let plan: Vec<_> = planned_checks(&StageSpec::of("PSU".into()))
                .into_iter().filter(|planned| planned.name == names::SEL_EVENTS).collect();
            for finding in compare(&log(BEFORE), &after) {
                let check = Check::of(names::SEL_EVENTS, None, finding.observed, Default::default());
                prop_assert_eq!(judge_stage(&plan, &[check]).verdict, Verdict::Inconclusive);
            }
        }

        #[test]
        fn no_text_makes_it_panic_or_pass_where_an_entry_is_gone(text in "[ -~|\n]{0,120}") {
            let judged = verdicts(BEFORE, &text);
            prop_assert!(text.contains("Log area reset") || judged.iter().all(|(_, verdict)| *verdict != Verdict::Pass));
            let _ = full(&text);
        }
    }
}
