//! A report with something of everything, for tests.

use groundcrew_protocol::check::{Check, Limit, Observation, Verdict};
use groundcrew_protocol::ids::Attempt;
use groundcrew_protocol::inventory::{Dimm, Disk, Gpu, Inventory, Nic, Psu, Unread};
use groundcrew_protocol::report::{Report, SensorSeries, StageReport};
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::time::WallMs;
use groundcrew_protocol::wire::{LogLevel, LogLine};

/// 2026-03-01 12:00:00 UTC.
pub(crate) const BEGAN: i64 = 1_772_366_400_000;

/// A run that is held because its CPU load gave wrong results.
pub(crate) fn sample() -> Report {
    Report {
        run: Some("r-7f3k9q2m".parse().unwrap()),
        node: Some("rack1-node7".parse().unwrap()),
        profile: "storage-2s".parse().unwrap(),
        state: State::FailedHolding,
        verdict: Verdict::Fail,
        reason: "stage CPUStress failed: 2 miscompares, expected at most 0".to_owned(),
        began: WallMs(BEGAN),
        ended: None,
        made: WallMs(BEGAN + 700_000),
        version: "0.1.0".to_owned(),
        stages: stages(),
        inventory: Some(Box::new(inventory())),
        sensors: sensors(),
        gaps: vec!["stream 3f…: 12 chunks (640 KiB) let go, spool full".to_owned()],
    }
}

/// A stage with these seconds since the beginning and these checks.
pub(crate) fn stage(name: &str, began_s: i64, ended_s: i64, checks: Vec<Check>) -> StageReport {
    StageReport {
        stage: Stage::from(name),
        attempt: Attempt(1),
        attempts: 1,
        verdict: Some(Verdict::over(checks.iter().map(|check| check.verdict))),
        overridden: None,
        summary: String::new(),
        message: String::new(),
        began: Some(WallMs(BEGAN + began_s * 1000)),
        ended: Some(WallMs(BEGAN + ended_s * 1000)),
        checks,
        log_tail: Vec::new(),
    }
}

pub(crate) fn line(level: LogLevel, text: &str) -> LogLine {
    LogLine { ts: "2026-03-01T12:05:00.123Z".to_owned(), level, stage: None, text: text.to_owned() }
}

fn found(text: &str) -> Observation {
    Observation::Found { text: text.to_owned() }
}

fn inventory_checks() -> Vec<Check> {
    vec![
        Check::of("cpu", None, found("2 sockets, 64 cores"), Limit::default()),
        Check::of("memory", None, found("755.1 GiB"), Limit::default()),
        Check::of("dimms", None, found("24 modules"), Limit::default()),
        Check::of("disks", None, found("2 disks"), Limit::default())
            .with_evidence("/sys/block/nvme0n1\n/sys/block/nvme1n1"),
        Check::of(
            "psus",
            None,
            Observation::Absent { why: "the machine names no power supply".to_owned() },
            Limit::default(),
        ),
    ]
}

fn validate_checks() -> Vec<Check> {
    vec![
        Check::of("cpu.model", None, found("EPYC 9354 32-Core Processor"), Limit::containing("EPYC 9354")),
        Check::of(
            "memory.total",
            None,
            Observation::measured(755.1, "GiB"),
            Limit { warn_above: Some(806.4), ..Limit::at_least(729.6) },
        ),
        Check::of(
            "disk",
            Some("Y3C0A01XTKL8"),
            Observation::Unexpected { what: "disk Y3C0A01XTKL8".to_owned() },
            Limit::default(),
        )
        .with_evidence("nvme1n1, KIOXIA KCD8XRUG3T84, 3840 GB"),
    ]
}

fn stress_checks() -> Vec<Check> {
    vec![
        Check::of("miscompares", Some("cpu"), Observation::measured(2.0, "miscompares"), Limit::at_most(0.0))
            .with_evidence("stress-ng: fail: [4711] cpu: matrixprod error detected, failed modulo operation"),
        Check::of("duration", Some("cpu"), Observation::measured(600.2, "s"), Limit::at_least(540.0)),
        Check::of("rate", Some("cpu"), Observation::measured(118_234.5, "bogo-ops/s"), Limit::default()),
        Check::of(
            "throttling",
            Some("cpu"),
            Observation::measured(1.25, "%"),
            Limit { warn_above: Some(0.0), ..Limit::at_most(5.0) },
        ),
        Check::of(
            "frequency",
            Some("cpu"),
            Observation::Unreadable { why: "scaling_cur_freq of cpu7: input/output error".to_owned() },
            Limit::default(),
        ),
    ]
}

fn stages() -> Vec<StageReport> {
    let mut smart = stage(
        "SMART",
        8,
        20,
        vec![Check::of("health", Some("S64GNE0R123456"), found("PASSED"), Limit::equal_to("OK"))],
    );
    smart.overridden = Some("known good, firmware words it otherwise (ops-1187)".to_owned());
    let mut load = stage("CPUStress", 20, 622, stress_checks());
    (load.attempt, load.attempts) = (Attempt(2), 2);
    load.summary = "2 miscompares".to_owned();
    load.message = "stress-ng ended with exit code 2".to_owned();
    load.log_tail = vec![
        line(LogLevel::Info, "stress-ng: info: [4711] dispatching hogs: 128 cpu"),
        line(LogLevel::Warn, "cpu7: throttled 3 times"),
        line(
            LogLevel::Error,
            "stress-ng: fail: [4711] cpu: matrixprod error detected, failed modulo operation",
        ),
    ];
    let reporting = StageReport {
        verdict: None,
        began: None,
        ended: None,
        attempt: Attempt(0),
        attempts: 0,
        ..stage("Reporting", 0, 0, Vec::new())
    };
    let inventory = stage("Inventory", 1, 6, inventory_checks());
    let validate = stage("SpecValidate", 6, 6, validate_checks());
    vec![inventory, validate, smart, load, reporting]
}

fn inventory() -> Inventory {
    let text = |text: &str| Some(text.to_owned());
    let mut inventory = Inventory::default();
    inventory.cpu.model = text("AMD EPYC 9354 32-Core Processor");
    (inventory.cpu.sockets, inventory.cpu.cores, inventory.cpu.logical) = (Some(2), Some(64), Some(128));
    inventory.cpu.microcode = text("0xa101148");
    inventory.memory.total_bytes = Some(810_781_048_832);
    inventory.memory.dimms = Some(
        ["A1", "B1"]
            .map(|slot| Dimm {
                locator: format!("DIMM_{slot}"),
                size_bytes: 34_359_738_368,
                speed_mts: Some(4800),
                kind: text("DDR5"),
                manufacturer: text("Micron"),
                part: text("MTC20F2085S1RC48BA1"),
                serial: text("3A5F00C1"),
            })
            .to_vec(),
    );
    inventory.disks = vec![Disk {
        name: "nvme0n1".to_owned(),
        model: text("SAMSUNG MZ7L3960"),
        serial: text("S64GNE0R123456"),
        size_bytes: 960_197_124_096,
        transport: text("nvme"),
        firmware: text("JXTC604Q"),
        ..Disk::default()
    }];
    inventory.nics = vec![Nic {
        name: "eth0".to_owned(),
        driver: text("mlx5_core"),
        mac: text("52:54:00:12:34:56"),
        speed_mbps: Some(25_000),
        mtu: Some(9000),
        state: text("up"),
        ..Nic::default()
    }];
    inventory.gpus = vec![Gpu {
        pci: "0000:17:00.0".to_owned(),
        vendor: "10de".to_owned(),
        device: "2335".to_owned(),
        class: "030200".to_owned(),
        driver: None,
    }];
    inventory.dmi.vendor = text("Supermicro");
    inventory.dmi.product = text("AS -2125HS-TNR");
    inventory.firmware.version = text("1.9");
    inventory.firmware.efi = true;
    inventory.psus =
        vec![Psu { name: "PSU1".to_owned(), model: text("PWS-1K63A"), serial: None, state: text("ok") }];
    inventory.kernel = text("6.1.0-31-amd64");
    inventory.unread = vec![Unread { part: "nics".to_owned(), why: "eth1: input/output error".to_owned() }];
    inventory
}

/// Readings every five seconds, with a minute of silence in the middle.
fn sensors() -> Vec<SensorSeries> {
    let series = |kind: &str, key: &str, unit: &str, value: fn(f64) -> f64| SensorSeries {
        kind: kind.to_owned(),
        key: key.to_owned(),
        unit: unit.to_owned(),
        points: (0..128)
            .filter(|n| !(60..72).contains(n))
            .map(|n| (WallMs(BEGAN + n * 5000), value(n as f64)))
            .collect(),
    };
    vec![
        series("temperature", "k10temp Tctl (socket 0)", "°C", |n| {
            41.0 + 38.0 * (1.0 - (-(n - 4.0).max(0.0) / 12.0).exp()) + (n * 1.7).sin()
        }),
        series("temperature", "k10temp Tctl (socket 1)", "°C", |n| {
            39.0 + 33.0 * (1.0 - (-(n - 4.0).max(0.0) / 14.0).exp()) + (n * 1.3).cos()
        }),
        series("temperature", "nvme Composite", "°C", |n| 34.0 + n / 20.0),
        series("fan", "fan1", "rpm", |n| (3200.0 + 45.0 * n.min(80.0)).round()),
        series("fan", "fan2", "rpm", |n| (3150.0 + 44.0 * n.min(80.0)).round()),
        series("power", "package-0", "W", |n| if n < 4.0 { 92.0 } else { 281.0 + (n * 2.1).sin() * 4.0 }),
    ]
}
