//! A self-test that a disk does by itself: asked for, waited for, and proved to have run.
//!
//! A disk that takes the order and does nothing keeps the result of an earlier test. So a result counts only where the
//! test was seen under way, or where the log of tests has changed. One that the stage cannot wait for is ended: a disk that
//! tests itself is slower for whatever comes next.

use std::time::{Duration, Instant};

use groundcrew_protocol::check::Observation;
use groundcrew_protocol::plan::{SELF_TEST_PASSED, names};
use groundcrew_protocol::profile::SelfTest;
use groundcrew_protocol::wire::LogLevel;
use serde_json::Value;

use super::judge::Finding;
use super::nvme_cli::{self, Ability, NvmeCli};
use super::report::{Kind, Report, exit, messages};
use super::smartctl::{Said, Smartctl};

/// The version from which on smartctl does self-tests of NVMe disks.
const SINCE_VERSION: (u64, u64) = (7, 4);
/// Time between two questions how far it is.
const POLL: Duration = Duration::from_secs(5);
/// A disk that is told to end its self-test does so in the next moment.
const ABORT_TIME: Duration = Duration::from_secs(30);
/// Time between two questions whether it has.
const ABORT_POLL: Duration = Duration::from_secs(1);
/// What a disk says of the time it needs is for an idle disk: it gets twice as long, and this.
const MARGIN: Duration = Duration::from_secs(120);
/// The short self-test of NVMe is over within two minutes (NVM Express base specification, "Device Self-test").
const NVME_SHORT: Duration = Duration::from_secs(120);

/// Where the self-tests of a disk stand.
#[derive(Debug, PartialEq)]
pub(super) struct State {
    /// The part that is left of the one under way, in percent, where one is; 100 where it does not say.
    pub running: Option<u64>,
    /// How the last one came out: the disk's code, 0 for good, and its words.
    pub last: Option<(u64, String)>,
    /// The log of tests as it stands.
    pub log: Value,
}

/// What does a disk's self-tests.
enum Hand<'a> {
    Smartctl(&'a Smartctl<'a>, Kind),
    /// For NVMe disks, where smartctl is older than 7.4.
    NvmeCli(&'a Smartctl<'a>),
}

impl<'a> Hand<'a> {
    fn of(smartctl: &'a Smartctl<'a>, report: &Report) -> Hand<'a> {
        let part = |at: usize| report.at(&format!("/smartctl/version/{at}")).and_then(Value::as_u64);
        let version = part(0).zip(part(1));
        match report.kind == Kind::Nvme && version.is_some_and(|version| version < SINCE_VERSION) {
            true => Hand::NvmeCli(smartctl),
            false => Hand::Smartctl(smartctl, report.kind),
        }
    }

    /// The order for people.
    fn command(&self, kind: &SelfTest) -> String {
        match self {
            Hand::Smartctl(smartctl, _) => smartctl.command(&["-t", kind.as_str()]),
            Hand::NvmeCli(smartctl) => NvmeCli(smartctl).order(code(kind)),
        }
    }

    fn look(&self) -> Result<State, String> {
        match self {
            Hand::Smartctl(smartctl, kind) => {
                let options: &[&str] = match kind {
                    Kind::Ata => &["-c", "-l", "selftest"],
                    Kind::Nvme | Kind::Scsi => &["-l", "selftest"],
                };
                read(&smartctl.ask(options)?, *kind)
            }
            Hand::NvmeCli(smartctl) => NvmeCli(smartctl).state(),
        }
    }

    fn begin(&self, kind: &SelfTest) -> Result<(), String> {
        match self {
            Hand::Smartctl(smartctl, _) => {
                let asked = smartctl.ask(&["-t", kind.as_str()])?;
                let refused = exit::COMMAND_LINE | exit::DEVICE | COMMAND_FAILED;
                if asked.exit & refused != 0 {
                    let said = messages(&asked.json);
                    return Err(format!(
                        "the self-test was not taken: smartctl exited with {}: {said}",
                        asked.exit
                    ));
                }
                Ok(())
            }
            Hand::NvmeCli(smartctl) => NvmeCli(smartctl).command(code(kind)),
        }
    }

    fn end(&self) -> Result<(), String> {
        match self {
            Hand::Smartctl(smartctl, _) => smartctl.ask(&["-X"]).map(|_| ()),
            Hand::NvmeCli(smartctl) => NvmeCli(smartctl).command(nvme_cli::END),
        }
    }
}

/// The code of a self-test of NVMe disks.
fn code(kind: &SelfTest) -> &'static str {
    match kind {
        SelfTest::Long => nvme_cli::EXTENDED,
        SelfTest::Short | SelfTest::None | SelfTest::Unknown(_) => nvme_cli::SHORT,
    }
}

/// Asks for a self-test, waits for its end, and says how it came out.
pub(super) fn run(smartctl: &Smartctl<'_>, kind: &SelfTest, report: &Report) -> Finding {
    let hand = Hand::of(smartctl, report);
    let observed = match ask_and_wait(smartctl, &hand, kind, report) {
        Ok(observed) => observed,
        Err(why) => Observation::Unreadable { why },
    };
    Finding { name: names::SELF_TEST, observed, evidence: hand.command(kind) }
}

fn ask_and_wait(
    smartctl: &Smartctl<'_>,
    hand: &Hand<'_>,
    kind: &SelfTest,
    report: &Report,
) -> Result<Observation, String> {
    let ability = match hand {
        Hand::Smartctl(..) => Ability { has_self_tests: !says_no(report), extended: None },
        Hand::NvmeCli(smartctl) => NvmeCli(smartctl).ability()?,
    };
    if !ability.has_self_tests {
        return Ok(Observation::Absent { why: "the disk says that it has no self-tests".to_owned() });
    }
    let before = without_another(smartctl, hand)?;
    hand.begin(kind)?;
    let ended = wait(smartctl, hand, POLL, Instant::now() + allowed(kind, report, ability.extended));
    if ended.is_err() {
        // The stage's own time may be over, and its handle be asked.
        let over = smartctl.beyond_the_stage(|smartctl| Hand::of(smartctl, report).end());
        if let Err(why) = over {
            smartctl
                .context
                .say(LogLevel::Warn, format!("{}: its self-test runs on: {why}", smartctl.device));
        }
    }
    let (after, seen) = ended?;
    outcome(&before, &after, seen)
}

/// Where the self-tests stand once none is under way. One that is was begun by an attempt that was cut off, or by the machine's own
/// smartd: how it comes out is no answer to this stage, and a disk does one at a time.
fn without_another(smartctl: &Smartctl<'_>, hand: &Hand<'_>) -> Result<State, String> {
    let state = hand.look()?;
    if state.running.is_none() {
        return Ok(state);
    }
    let text =
        format!("{}: a self-test is under way that this stage did not begin: it is ended", smartctl.device);
    smartctl.context.say(LogLevel::Warn, text);
    hand.end()?;
    let ended = wait(smartctl, hand, ABORT_POLL, Instant::now() + ABORT_TIME);
    ended.map(|(state, _)| state).map_err(|why| format!("an earlier self-test could not be ended: {why}"))
}

/// Waits until no self-test is under way: where they stand then, and whether one was seen.
fn wait(
    smartctl: &Smartctl<'_>,
    hand: &Hand<'_>,
    poll: Duration,
    until: Instant,
) -> Result<(State, bool), String> {
    let mut seen = false;
    loop {
        let state = hand.look()?;
        let Some(left) = state.running else { return Ok((state, seen)) };
        seen = true;
        let text = format!("{}: self-test under way, {left} % left", smartctl.device);
        smartctl.context.say(LogLevel::Info, text);
        if Instant::now() >= until.min(smartctl.deadline) {
            return Err(format!("the self-test was not over in time; {left} % were left"));
        }
        if smartctl.context.cancel.wait(poll) {
            return Err("the stage was ended during the self-test".to_owned());
        }
    }
}

/// A command to the disk failed: in this call it can only be the order itself (smartctl(8), bit 2).
const COMMAND_FAILED: i32 = 1 << 2;

/// The disk's own word that it has no self-tests.
fn says_no(report: &Report) -> bool {
    let says_no = |pointer: &str| report.at(pointer).and_then(Value::as_bool) == Some(false);
    match report.kind {
        Kind::Ata => says_no("/ata_smart_data/capabilities/self_tests_supported"),
        Kind::Nvme => says_no("/nvme_optional_admin_commands/self_test"),
        Kind::Scsi => false,
    }
}

/// How long it may take.
fn allowed(kind: &SelfTest, report: &Report, extended: Option<Duration>) -> Duration {
    let minutes = |key: &str| {
        let minutes = report.at(&format!("/ata_smart_data/self_test/polling_minutes/{key}"))?.as_u64()?;
        Some(Duration::from_secs(minutes.saturating_mul(60).min(7 * 86_400)))
    };
    let said = match (report.kind, kind) {
        (Kind::Ata, SelfTest::Long) => minutes("extended"),
        (Kind::Ata, SelfTest::Short | SelfTest::None | SelfTest::Unknown(_)) => minutes("short"),
        (Kind::Nvme, SelfTest::Short | SelfTest::None | SelfTest::Unknown(_)) => Some(NVME_SHORT),
        (Kind::Nvme, SelfTest::Long) => extended,
        // They do not say: the stage's deadline bounds it.
        (Kind::Scsi, _) => None,
    };
    said.map_or(Duration::MAX / 4, |said| said * 2 + MARGIN).min(Duration::from_secs(30 * 86_400))
}

/// Reads where the self-tests stand.
///
/// # Errors
/// Where smartctl does not say it: before version 7.4 it does so for ATA disks alone.
pub(super) fn read(said: &Said, kind: Kind) -> Result<State, String> {
    let at = |pointer: &str| said.json.pointer(pointer);
    let number = |pointer: &str| at(pointer).and_then(Value::as_u64);
    let words = |pointer: &str| at(pointer).and_then(Value::as_str).unwrap_or("without words").to_owned();
    let result = |value: &str, string: &str| number(value).map(|code| (code, words(string)));
    match kind {
        Kind::Ata => {
            // The high half of the byte is the code, 15 while a test is under way; the low half counts tenths left.
            const STATUS: &str = "/ata_smart_data/self_test/status/value";
            let status = number(STATUS).ok_or("the disk does not say how its self-test stands")?;
            let running = (status >> 4 == 15).then(|| (status & 15) * 10);
            let last =
                (running.is_none()).then(|| (status >> 4, words("/ata_smart_data/self_test/status/string")));
            let log = at("/ata_smart_self_test_log").cloned().unwrap_or(Value::Null);
            Ok(State { running, last, log })
        }
        Kind::Nvme => {
            let log = at("/nvme_self_test_log").ok_or_else(|| not_told("an NVMe"))?;
            let operation = number("/nvme_self_test_log/current_self_test_operation/value")
                .ok_or("the disk does not say whether a self-test is under way")?;
            let done = number("/nvme_self_test_log/current_self_test_completion_percent").unwrap_or(0);
            let of_last = |key: &str| format!("/nvme_self_test_log/table/0/self_test_result/{key}");
            let table = log.pointer("/table").cloned().unwrap_or(Value::Null);
            let running = (operation != 0).then(|| 100_u64.saturating_sub(done));
            Ok(State { running, last: result(&of_last("value"), &of_last("string")), log: table })
        }
        Kind::Scsi => {
            let log = at("/scsi_self_test_0").ok_or_else(|| not_told("a SAS"))?;
            let last = result("/scsi_self_test_0/result/value", "/scsi_self_test_0/result/string");
            let running = last.as_ref().is_some_and(|(code, _)| *code == 15).then_some(100);
            Ok(State { running, last, log: log.clone() })
        }
    }
}

fn not_told(what: &str) -> String {
    format!(
        "smartctl says nothing of {what} disk's self-tests, which it does from version 7.4 on: install that, or set \
         self_test = \"none\" in the profile"
    )
}

/// How the test came out, once none is under way.
///
/// # Errors
/// Where it was not one that the disk did to its end, or nothing shows that it was done at all.
pub(super) fn outcome(before: &State, after: &State, seen: bool) -> Result<Observation, String> {
    if !seen && before.log == after.log {
        return Err(
            "nothing shows that the self-test ran: the disk's log of self-tests is as it was".to_owned()
        );
    }
    // Aborted or interrupted, by whoever: in ATA and SCSI 1 and 2, in NVMe 1 to 4, 8 and 9, all of which say so.
    match &after.last {
        None => Err("the disk does not say how the self-test came out".to_owned()),
        Some((0, _)) => Ok(Observation::Found { text: SELF_TEST_PASSED.to_owned() }),
        Some((_, words))
            if words.to_lowercase().contains("abort") || words.to_lowercase().contains("interrupt") =>
        {
            Err(format!("the self-test did not end: {words}"))
        }
        Some((code, words)) => Ok(Observation::Found { text: format!("{words} (code {code})") }),
    }
}
