//! Whether a reboot that was asked for has come: decided from the flag, the record beside it and the boot that is now.
//!
//! Exit codes cannot tell: systemd's `reboot` exits 0 as soon as it has asked, also where nothing follows, and the
//! signal that a reboot delivers looks like any other end. What changes with a reboot, and with nothing else, is the
//! kernel's boot id.
//!
//! ```text
//!  no flag ──ask──▶ intended ──command started──▶ asked ──another boot──▶ proven
//!     ▲                │ same boot: ask again       │ same boot, in the grace: wait
//!     └──── failed ────┴────────── lapsed ◀─────────┘ same boot, after it
//! ```
//!
//! Pure: no file, no clock. [`super::perform`] reads what this needs and does what it says.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How far a reboot has got, as the record beside its flag says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// The command was about to be started. Whether it was, nobody knows.
    Intended,
    /// The command was started.
    Asked,
}

/// What stands beside a reboot's flag, as JSON in `{flag}.boot`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RebootRecord {
    /// The kernel's id of the boot that is to end.
    pub boot_id: String,
    /// When it was asked for, for people: RFC 3339, UTC.
    pub asked_at: String,
    /// How often it was asked for under this resource id, this time included.
    pub asks: u32,
    /// How far it has got.
    pub state: Progress,
    /// The text of the flag that this belongs to. A record beside a flag with another text belongs to none.
    pub flag: String,
    /// Seconds since the boot, suspended time included (CLOCK_BOOTTIME), when it was asked for. The grace is
    /// measured on this clock, because nobody sets it.
    pub boottime_s: f64,
}

/// The record as it was found.
#[derive(Debug, Clone, PartialEq)]
pub enum FoundRecord {
    /// There is none.
    None,
    /// There is a file that is no record; what is wrong with it.
    Malformed(String),
    /// There is one.
    Read(RebootRecord),
}

/// What lies on the node's disk.
#[derive(Debug, Clone, PartialEq)]
pub struct OnDisk {
    /// The flag's text, where there is a flag.
    pub flag: Option<String>,
    /// The record beside it.
    pub record: FoundRecord,
}

/// This boot.
#[derive(Debug, Clone, PartialEq)]
pub struct ThisBoot {
    /// The kernel's id; `None` where it cannot be trusted.
    pub boot_id: Option<String>,
    /// Seconds since the boot, on CLOCK_BOOTTIME.
    pub boottime_s: f64,
    /// systemd says that the machine is going down.
    pub stopping: bool,
}

/// How long and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long a reboot that was asked for may take to begin.
    pub grace: Duration,
    /// How often one resource id may ask.
    pub asks_max: u32,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Reboot {
    /// Ask, and write down that this is the so manieth time. `flagged`: the flag and record of an earlier intention
    /// stand already.
    Ask {
        /// Number of this ask under the resource id.
        asks: u32,
        /// Whether an earlier process got as far as the intention.
        flagged: bool,
    },
    /// It has been: skip.
    Done(Proof),
    /// It was asked for and may still come: skip, but it is not done.
    Pending {
        /// Since it was asked for.
        asked_s_ago: f64,
    },
    /// It was asked for and did not come: take the flag off and fail, so that the next pass asks again.
    Lapsed {
        /// Since it was asked for. Below 0 where this boot goes on from a snapshot that is older than the request.
        asked_s_ago: f64,
        /// How often it was asked for until now.
        asks: u32,
    },
    /// It was asked for too often: fail, ask no more.
    Exhausted {
        /// How often it was asked for.
        asks: u32,
    },
}

/// Why a reboot counts as done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The machine runs under another boot id than when it was asked for.
    OtherBoot,
    /// The flag has no record that says otherwise, like one of the reference agent's.
    FlagAlone,
    /// The record is of no use, so that the flag counts alone; what is wrong with it.
    FlagWithUselessRecord(String),
    /// The boot id cannot be read now, so that the flag counts alone.
    BootIdUnreadable,
}

/// Decides what a call for a reboot does.
pub fn decide(disk: &OnDisk, now: &ThisBoot, patience: Patience) -> Reboot {
    let Some(flag) = &disk.flag else { return without_flag(&disk.record, patience) };
    let record = match &disk.record {
        FoundRecord::None => return Reboot::Done(Proof::FlagAlone),
        FoundRecord::Malformed(what) => return Reboot::Done(Proof::FlagWithUselessRecord(what.clone())),
        FoundRecord::Read(record) if record.flag != *flag => {
            let what = format!("it belongs to a flag with the text {:?}", record.flag);
            return Reboot::Done(Proof::FlagWithUselessRecord(what));
        }
        FoundRecord::Read(record) => record,
    };
    let Some(boot_id) = &now.boot_id else { return Reboot::Done(Proof::BootIdUnreadable) };
    if *boot_id != record.boot_id {
        return Reboot::Done(Proof::OtherBoot);
    }
    match record.state {
        // A second ask under one boot cannot reboot twice: whichever comes first ends this boot.
        Progress::Intended => Reboot::Ask { asks: record.asks, flagged: true },
        Progress::Asked => {
            let asked_s_ago = now.boottime_s - record.boottime_s;
            // This boot goes on from a snapshot of before the request, and has never heard it.
            let unheard = asked_s_ago < 0.0;
            let over = unheard || asked_s_ago >= patience.grace.as_secs_f64();
            match over && !now.stopping {
                true => Reboot::Lapsed { asked_s_ago, asks: record.asks },
                false => Reboot::Pending { asked_s_ago: asked_s_ago.max(0.0) },
            }
        }
    }
}

/// Without its flag a record proves nothing. It still says how often was asked, so that a machine that never reboots
/// is not asked for ever.
fn without_flag(record: &FoundRecord, patience: Patience) -> Reboot {
    let asks = match record {
        FoundRecord::None | FoundRecord::Malformed(_) => 0,
        FoundRecord::Read(record) => record.asks,
    };
    if asks >= patience.asks_max {
        return Reboot::Exhausted { asks };
    }
    Reboot::Ask { asks: asks + 1, flagged: false }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Patience = Patience { grace: Duration::from_secs(300), asks_max: 3 };

    fn record(boot_id: &str, state: Progress, asks: u32) -> RebootRecord {
        RebootRecord {
            boot_id: boot_id.to_owned(),
            asked_at: "2026-01-01T00:00:00Z".to_owned(),
            asks,
            state,
            flag: "1795203705.9".to_owned(),
            boottime_s: 1_000.0,
        }
    }

    fn disk(flag: Option<&str>, record: FoundRecord) -> OnDisk {
        OnDisk { flag: flag.map(str::to_owned), record }
    }

    fn boot(id: Option<&str>, boottime_s: f64, stopping: bool) -> ThisBoot {
        ThisBoot { boot_id: id.map(str::to_owned), boottime_s, stopping }
    }

    const FLAG: Option<&str> = Some("1795203705.9");

    fn assert_each<const N: usize>(table: [(&str, OnDisk, ThisBoot, Reboot); N]) {
        for (what, disk, now, expected) in table {
            assert_eq!(decide(&disk, &now, PATIENCE), expected, "{what}");
        }
    }

    #[test]
    fn a_flag_without_a_record_that_fits_it_counts_alone() {
        use FoundRecord::{Malformed, None as NoRecord, Read};
        use Progress::Asked;
        let other_text = RebootRecord { flag: "1.0".to_owned(), ..record("a", Asked, 1) };
        let useless = Proof::FlagWithUselessRecord("it belongs to a flag with the text \"1.0\"".to_owned());
        assert_each([
            (
                "nothing",
                disk(None, NoRecord),
                boot(Some("a"), 1.0, false),
                Reboot::Ask { asks: 1, flagged: false },
            ),
            (
                "the reference's flag",
                disk(FLAG, NoRecord),
                boot(Some("a"), 1.0, false),
                Reboot::Done(Proof::FlagAlone),
            ),
            (
                "a torn record",
                disk(FLAG, Malformed("x".to_owned())),
                boot(Some("a"), 1.0, false),
                Reboot::Done(Proof::FlagWithUselessRecord("x".to_owned())),
            ),
            (
                "a record of another flag",
                disk(FLAG, Read(other_text)),
                boot(Some("a"), 1e9, false),
                Reboot::Done(useless),
            ),
        ]);
    }

    #[test]
    fn a_record_that_fits_says_whether_the_reboot_came() {
        use FoundRecord::Read;
        use Progress::{Asked, Intended};
        assert_each([
            (
                "another boot, asked",
                disk(FLAG, Read(record("a", Asked, 1))),
                boot(Some("b"), 5.0, false),
                Reboot::Done(Proof::OtherBoot),
            ),
            (
                "another boot, only intended: a power cut is a reboot too",
                disk(FLAG, Read(record("a", Intended, 1))),
                boot(Some("b"), 5.0, false),
                Reboot::Done(Proof::OtherBoot),
            ),
            (
                "the same boot, intended",
                disk(FLAG, Read(record("a", Intended, 2))),
                boot(Some("a"), 1_001.0, false),
                Reboot::Ask { asks: 2, flagged: true },
            ),
            (
                "the same boot, asked, in the grace",
                disk(FLAG, Read(record("a", Asked, 1))),
                boot(Some("a"), 1_299.0, false),
                Reboot::Pending { asked_s_ago: 299.0 },
            ),
            (
                "the same boot, asked, after the grace",
                disk(FLAG, Read(record("a", Asked, 1))),
                boot(Some("a"), 1_300.0, false),
                Reboot::Lapsed { asked_s_ago: 300.0, asks: 1 },
            ),
            (
                "the same boot, after the grace, but going down",
                disk(FLAG, Read(record("a", Asked, 1))),
                boot(Some("a"), 9_000.0, true),
                Reboot::Pending { asked_s_ago: 8_000.0 },
            ),
            (
                "no boot id now",
                disk(FLAG, Read(record("a", Asked, 1))),
                boot(None, 9_000.0, false),
                Reboot::Done(Proof::BootIdUnreadable),
            ),
        ]);
    }

    /// Whatever became of the machine: the boot id alone says whether it rebooted, the clock since boot how long ago it was
    /// asked for. It was at 1,000 s of boot `a`.
    #[test]
    fn what_became_of_the_machine_is_what_its_boot_id_says() {
        let done = Reboot::Done(Proof::OtherBoot);
        let pending = |asked_s_ago| Reboot::Pending { asked_s_ago };
        let lapsed = |asked_s_ago| Reboot::Lapsed { asked_s_ago, asks: 1 };
        for (what, boot_id, boottime_s, stopping, expected) in [
            ("a reboot through the firmware", "b", 40.0, false, &done),
            ("a power cut", "b", 5.0, false, &done),
            ("a reboot by the watchdog, and up for long", "b", 90_000.0, false, &done),
            ("kexec: another kernel, which draws an id of its own", "b", 2.0, false, &done),
            ("kexec, and it is on its way down already", "b", 2.0, true, &done),
            ("a soft-reboot: the same kernel, all else is new", "a", 1_030.0, false, &pending(30.0)),
            ("a soft-reboot under way", "a", 1_400.0, true, &pending(400.0)),
            ("a soft-reboot, long ago", "a", 1_300.0, false, &lapsed(300.0)),
            ("a resumed snapshot of after the request", "a", 1_002.0, false, &pending(2.0)),
            ("a resumed snapshot of before the request", "a", 400.0, false, &lapsed(-600.0)),
            ("one of before the request, which goes down now", "a", 400.0, true, &pending(0.0)),
            ("a machine that slept, or was hibernated", "a", 40_000.0, false, &lapsed(39_000.0)),
            ("nothing", "a", 1_000.0, false, &pending(0.0)),
        ] {
            let asked = disk(FLAG, FoundRecord::Read(record("a", Progress::Asked, 1)));
            let now = boot(Some(boot_id), boottime_s, stopping);
            assert_eq!(decide(&asked, &now, PATIENCE), *expected, "{what}");
            // What was only intended is asked for again wherever it is the same boot.
            let intended = disk(FLAG, FoundRecord::Read(record("a", Progress::Intended, 1)));
            let again = Reboot::Ask { asks: 1, flagged: true };
            let expected = if boot_id == "a" { &again } else { &done };
            assert_eq!(decide(&intended, &now, PATIENCE), *expected, "{what}, only intended");
        }
    }

    #[test]
    fn without_a_flag_a_record_says_only_how_often_was_asked() {
        use FoundRecord::Read;
        use Progress::Asked;
        assert_each([
            (
                "unflagged after it lapsed",
                disk(None, Read(record("a", Asked, 1))),
                boot(Some("a"), 9_000.0, false),
                Reboot::Ask { asks: 2, flagged: false },
            ),
            (
                "unflagged, and too often",
                disk(None, Read(record("a", Asked, 3))),
                boot(Some("a"), 9_000.0, false),
                Reboot::Exhausted { asks: 3 },
            ),
        ]);
    }

    fn any_disk() -> impl Strategy<Value = OnDisk> {
        let flag = proptest::option::of("[ab]");
        let record = ("[ab]", any::<bool>(), 0u32..6, "[ab]", 0.0f64..2_000.0).prop_map(
            |(boot_id, asked, asks, flag, boottime_s)| {
                let state = if asked { Progress::Asked } else { Progress::Intended };
                FoundRecord::Read(RebootRecord {
                    boot_id,
                    asked_at: String::new(),
                    asks,
                    state,
                    flag,
                    boottime_s,
                })
            },
        );
        let record =
            prop_oneof![Just(FoundRecord::None), Just(FoundRecord::Malformed("x".to_owned())), record];
        (flag, record).prop_map(|(flag, record)| OnDisk { flag, record })
    }

    proptest! {
        /// Nobody asks while a flag stands, unless an intention of this very boot does.
        #[test]
        fn a_flag_is_asked_again_only_under_the_boot_that_intended_it(
            disk in any_disk(), id in proptest::option::of("[ab]"), at in 0.0f64..3_000.0, stopping: bool,
        ) {
            let now = ThisBoot { boot_id: id.clone(), boottime_s: at, stopping };
            if let (Some(flag), Reboot::Ask { .. }) = (&disk.flag, decide(&disk, &now, PATIENCE)) {
                let FoundRecord::Read(record) = &disk.record else { panic!("asked without a record") };
                prop_assert_eq!(&record.flag, flag);
                prop_assert_eq!(Some(&record.boot_id), id.as_ref());
                prop_assert_eq!(record.state, Progress::Intended);
            }
        }

        /// A machine that never reboots is asked so often and no more, whatever happens in between.
        #[test]
        fn asking_ends(times in proptest::collection::vec(0.0f64..1_000.0, 1..60)) {
            let mut disk = OnDisk { flag: None, record: FoundRecord::None };
            let (mut asked, mut at) = (0, 0.0);
            for time in times {
                at += time;
                match decide(&disk, &ThisBoot { boot_id: Some("a".to_owned()), boottime_s: at, stopping: false }, PATIENCE) {
                    Reboot::Ask { asks, .. } => {
                        asked += 1;
                        let flag = at.to_string();
                        let record = RebootRecord {
                            boot_id: "a".to_owned(), asked_at: String::new(), asks,
                            state: Progress::Asked, flag: flag.clone(), boottime_s: at,
                        };
                        disk = OnDisk { flag: Some(flag), record: FoundRecord::Read(record) };
                    }
                    Reboot::Lapsed { .. } => disk.flag = None,
                    Reboot::Pending { .. } | Reboot::Exhausted { .. } => {}
                    Reboot::Done(proof) => panic!("the boot never changed: {proof:?}"),
                }
            }
            prop_assert!(asked <= PATIENCE.asks_max);
        }
    }
}
