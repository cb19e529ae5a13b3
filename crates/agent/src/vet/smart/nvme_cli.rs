//! Self-tests of NVMe disks by nvme-cli: smartctl does them from version 7.4 on.
//!
//! What the disk says is read as it says it, in the layout of the NVM Express base specification (2.0: figure 275, "Identify
//! Controller", and figure 211, "Device Self-test"), which no version of the tool changes.

use std::time::Duration;

use serde_json::Value;

use super::self_test::State;
use super::smartctl::Smartctl;
use crate::vet::json_tool::{Call, Said};

const PROGRAM: &str = "nvme";
/// A call that only reads, or only starts something, is over in seconds.
const CALL_TIME: Duration = Duration::from_secs(60);
/// The log: what is under way, and the 20 last results of 28 bytes each.
const LOG_BYTES: usize = 4 + 20 * 28;
/// Where a controller says which optional commands it knows, and the bit of self-tests.
const OPTIONAL_COMMANDS: usize = 256;
const SELF_TEST: u8 = 1 << 4;
/// Where it says how many minutes its extended self-test takes.
const EXTENDED_MINUTES: usize = 316;
/// A place of the log that holds no result.
const UNUSED: u8 = 0xf;

/// Codes of the command: the short self-test, the extended one, and the end of the one under way.
pub(super) const SHORT: &str = "0x1";
pub(super) const EXTENDED: &str = "0x2";
pub(super) const END: &str = "0xf";

/// What a controller says of its self-tests.
#[derive(Debug, PartialEq)]
pub(super) struct Ability {
    pub has_self_tests: bool,
    /// How long the extended one takes.
    pub extended: Option<Duration>,
}

/// nvme-cli on one disk.
pub(super) struct NvmeCli<'a>(pub &'a Smartctl<'a>);

impl NvmeCli<'_> {
    /// What the controller says of its self-tests.
    ///
    /// # Errors
    /// Why it does not.
    pub fn ability(&self) -> Result<Ability, String> {
        ability(&self.ask(&["id-ctrl", &self.0.device, "--raw-binary"])?)
    }

    /// Where its self-tests stand.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn state(&self) -> Result<State, String> {
        let length = format!("--log-len={LOG_BYTES}");
        state(&self.ask(&["get-log", &self.0.device, "--log-id=6", &length, "--raw-binary"])?)
    }

    /// The order with a code, for people.
    pub fn order(&self, code: &str) -> String {
        format!("{PROGRAM} device-self-test {} --self-test-code={code}", self.0.device)
    }

    /// Gives an order by its code.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn command(&self, code: &str) -> Result<(), String> {
        let code = format!("--self-test-code={code}");
        self.ask(&["device-self-test", &self.0.device, &code]).map(|_| ())
    }

    fn ask(&self, arguments: &[&str]) -> Result<Vec<u8>, String> {
        let call = Call {
            context: self.0.context,
            program: PROGRAM,
            arguments: arguments.iter().map(Into::into).collect(),
            time: CALL_TIME,
            deadline: self.0.deadline,
            about: self.0.device.clone(),
        };
        let Said { exit, stdout, stderr } = call.run().map_err(|why| {
            format!("smartctl does no self-tests of NVMe disks before version 7.4, and nvme-cli cannot either: {why}")
        })?;
        match exit {
            0 => Ok(stdout),
            exit => {
                let said = String::from_utf8_lossy(&stderr);
                Err(format!("{} exited with {exit}: {}", call.command(), said.trim()))
            }
        }
    }
}

fn ability(identity: &[u8]) -> Result<Ability, String> {
    let two = |at: usize| Some([*identity.get(at)?, *identity.get(at + 1)?]);
    let (Some([commands, _]), Some(minutes)) = (two(OPTIONAL_COMMANDS), two(EXTENDED_MINUTES)) else {
        return Err(format!("nvme id-ctrl printed {} bytes, expected 4096", identity.len()));
    };
    let minutes = u64::from(u16::from_le_bytes(minutes));
    let extended = (minutes > 0).then(|| Duration::from_secs(minutes * 60));
    Ok(Ability { has_self_tests: commands & SELF_TEST != 0, extended })
}

fn state(log: &[u8]) -> Result<State, String> {
    if log.len() < LOG_BYTES {
        return Err(format!(
            "nvme get-log printed {} bytes of the self-tests, expected {LOG_BYTES}",
            log.len()
        ));
    }
    let running = (log[0] & 0xf != 0).then(|| 100_u64.saturating_sub(u64::from(log[1] & 0x7f)));
    let code = log[4] & 0xf;
    let last = (code != UNUSED && log[4] >> 4 != 0).then(|| (u64::from(code), words(code).to_owned()));
    // Only whether it changes counts.
    let results = log[4..LOG_BYTES].iter().map(|byte| Value::from(*byte)).collect();
    Ok(State { running, last, log: Value::Array(results) })
}

/// The results of a self-test.
fn words(code: u8) -> &'static str {
    match code {
        0 => "completed without error",
        1 => "aborted by a command",
        2 => "aborted by a reset of the controller",
        3 => "aborted, as its namespace was removed",
        4 => "aborted by a format",
        5 => "an error that is fatal or not known",
        6 => "a segment failed, and it is not known which",
        7 => "segments failed",
        8 => "aborted for a reason that is not known",
        9 => "aborted by a sanitize operation",
        _ => "a result that the specification does not name",
    }
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::check::{Limit, Observation, Verdict, judge};
    use groundcrew_protocol::plan::SELF_TEST_PASSED;
    use proptest::prelude::*;

    use super::super::self_test::outcome;
    use super::*;

    fn log(operation: u8, completion: u8, first: u8) -> Vec<u8> {
        let mut log = vec![0; LOG_BYTES];
        (log[0], log[1], log[4]) = (operation, completion, first);
        log
    }

    #[test]
    fn where_a_self_test_stands_is_read_by_the_specification() {
        let of = |bytes: &[u8]| state(bytes).map(|state| (state.running, state.last));
        let last = |code: u64, words: &str| Some((code, words.to_owned()));
        for (bytes, expected) in [
            (log(0, 0, 0x10), (None, last(0, "completed without error"))),
            (log(0, 0, 0x27), (None, last(7, "segments failed"))),
            (log(0, 0, 0x11), (None, last(1, "aborted by a command"))),
            (log(1, 30, 0x10), (Some(70), last(0, "completed without error"))),
            (log(2, 0xff, 0x10), (Some(0), last(0, "completed without error"))),
            (log(0, 0, 0x0f), (None, None)),
            // Nothing was ever tested: a page of zeros is no good result.
            (log(0, 0, 0), (None, None)),
        ] {
            assert_eq!(of(&bytes), Ok(expected), "{:?}", &bytes[..5]);
        }
        assert_ne!(state(&log(0, 0, 0x10)).unwrap().log, state(&log(0, 0, 0x20)).unwrap().log);
        assert!(state(&[0; LOG_BYTES - 1]).is_err());
    }

    #[test]
    fn what_a_controller_can_do_is_read_by_the_specification() {
        let mut identity = vec![0; 4096];
        assert_eq!(ability(&identity), Ok(Ability { has_self_tests: false, extended: None }));
        (identity[OPTIONAL_COMMANDS], identity[EXTENDED_MINUTES]) = (0x5f, 90);
        let extended = Some(Duration::from_secs(5400));
        assert_eq!(ability(&identity), Ok(Ability { has_self_tests: true, extended }));
        assert!(ability(&[]).is_err());
    }

    proptest! {
        /// Whatever the rest of the log becomes, and wherever it ends, a test that did not end well does not pass.
        #[test]
        fn nothing_mangled_makes_a_failed_self_test_good(
            header: [u8; 4],
            first in any::<u8>().prop_filter("it ended well", |first| first & 0xf != 0),
            rest in proptest::collection::vec(any::<u8>(), LOG_BYTES - 5),
            cut in prop_oneof![Just(LOG_BYTES), 0..LOG_BYTES],
            seen: bool,
        ) {
            let log = [&header[..], &[first], &rest].concat();
            let before = State { running: None, last: None, log: Value::Null };
            let observed = state(&log[..cut]).and_then(|after| match after.running {
                Some(_) => Err("it is under way".to_owned()),
                None => outcome(&before, &after, seen),
            });
            let observed = observed.unwrap_or_else(|why| Observation::Unreadable { why });
            let limit = Limit::equal_to(SELF_TEST_PASSED);
            prop_assert_ne!(judge(&observed, &limit, false).0, Verdict::Pass);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = (state(&bytes), ability(&bytes));
        }
    }
}
