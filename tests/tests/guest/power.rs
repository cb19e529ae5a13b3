//! A machine of the live image whose BMC tells of failures: what it logs in the middle of a stage, and a supply that fails. And
//! what is to be seen of such a machine while it is held: its network by the kernel command line, its first process, which no
//! signal ends, and the way in, which is closed with the hold.

use std::io::{Read, Write};
use std::process::Stdio;

use groundcrew_protocol::check::{Check, Verdict};
use groundcrew_protocol::report::StageReport;
use groundcrew_protocol::stage::State;
use groundcrew_tests::guest::bmc::{REDUNDANCY, SUPPLIES};
use groundcrew_tests::guest::{Bmc, Happening, Parts, left_out};
use groundcrew_tests::harness::eventually;

use crate::live::{Ward, found};

const PROFILE: &str = r#"name = "power"

[[stage]]
name = "CPUStress"
deadline = "10m"
[stage.cpu_stress]
duration = "3s"
method = "int64"

[[stage]]
name = "PSU"
[stage.psu]
supplies = 2
"#;

/// As the kernel documents it; the address is the one to which the way in leads.
const ADDRESS: &str = "ip=10.0.2.15::10.0.2.2:255.255.255.0:rack7:eth0:none:10.0.2.3";

/// What ends other processes, or stops them.
const SIGNALS: &str = "for signal in HUP QUIT ILL ABRT BUS FPE KILL SEGV PIPE ALRM STOP TSTP XCPU IO PWR SYS; do \
    kill -$signal 1; done; cat /proc/1/comm";

#[test]
fn a_machine_is_held_for_what_its_bmc_says_and_its_hold_ends_with_the_release() {
    if left_out() {
        return;
    }
    let bmc = Bmc::start();
    // The first to read the log is the stage that comes first, before its load.
    bmc.log_after_next_reading(Happening::MemoryUncorrectable);
    let parts = Parts { words: ADDRESS.to_owned(), more: bmc.devices(), ..Parts::default() };
    let mut ward = Ward::boot("power", PROFILE, &parts);
    a_failure_that_is_logged_meanwhile(&ward);
    bmc.fail_supply(1);
    ward.server.order(&ward.run, "override", "this module is replaced next week");
    a_supply_that_failed(&ward);
    an_address_by_the_command_line(&ward);
    a_first_process_that_no_signal_ends(&ward);
    a_reboot_that_the_operator_asks_for(&ward);
    a_release(&mut ward);
}

/// The checks of that name that failed.
fn failed<'s>(stage: &'s StageReport, name: &str) -> &'s Check {
    let failed: Vec<&Check> =
        stage.checks.iter().filter(|check| check.name == name && check.verdict == Verdict::Fail).collect();
    let [check] = failed[..] else { panic!("one {name} fails in {stage:#?}") };
    check
}

fn a_failure_that_is_logged_meanwhile(ward: &Ward) {
    let cpu = ward.held("CPUStress", 1);
    assert_eq!(found(&cpu, Verdict::Fail), ["sel_events Memory #0x53"]);
    let event = failed(&cpu, "sel_events");
    let record = "entry 7: 01/01/26 | 00:02:00 UTC | Memory #0x53 | Uncorrectable ECC | Asserted";
    assert!(event.evidence.starts_with(record), "{event:#?}");
    ward.expect_reason(&["sel_events of Memory #0x53"]);
}

fn a_supply_that_failed(ward: &Ward) {
    let psu = ward.held("PSU", 1);
    let lost = format!("redundancy {REDUNDANCY}");
    assert_eq!(found(&psu, Verdict::Fail), [format!("supply {}", SUPPLIES[1]), lost]);
    // The status of its sensor is no different from that of the other.
    let supply = failed(&psu, "supply");
    assert_eq!(
        supply.evidence.lines().next(),
        Some("PS2 Status | ok | 10.2 | Presence detected, Failure detected, Power Supply AC lost")
    );
    ward.expect_reason(&["supply of PS2 Status"]);
    assert!(found(&psu, Verdict::Pass).contains(&format!("supply {}", SUPPLIES[0])), "{psu:#?}");
    // What was logged before the stage is none of its own.
    assert!(found(&psu, Verdict::Pass).contains(&"sel_events -".to_owned()), "{psu:#?}");
}

fn an_address_by_the_command_line(ward: &Ward) {
    let said =
        ward.log_in("hostname; ip -4 -o address show dev eth0; ip route; cat /etc/resolv.conf; ls /run");
    for part in ["rack7\n", "inet 10.0.2.15/24 ", "default via 10.0.2.2 dev eth0", "nameserver 10.0.2.3"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.lines().any(|line| line == "lease"), "nobody asked a DHCP server: {said}");
    assert!(ward.machine.console().contains("eth0 has 10.0.2.15 by the kernel command line"));
}

fn a_first_process_that_no_signal_ends(ward: &Ward) {
    assert_eq!(ward.log_in(SIGNALS), "init");
    assert_eq!(ward.log_in("cat /proc/1/comm"), "init", "it lives on");
    assert_eq!(ward.machine.boots().len(), 1);
}

/// As `reboot` of busybox and sysvinit asks for it. The run is held as before, and its key is put in anew.
fn a_reboot_that_the_operator_asks_for(ward: &Ward) {
    let before = ward.machine.boots();
    // The connection may go with the machine.
    let _ended = ward.ssh("kill -TERM 1").output().expect("ssh can be started");
    eventually("another boot", || (ward.machine.boots().len() == 2).then_some(()));
    assert!(ward.machine.console().contains("asked to go down; the agent ends first"));
    let boot = ward.log_in("cat /proc/sys/kernel/random/boot_id");
    assert_eq!(ward.machine.boots(), [before[0].clone(), boot]);
    assert_eq!(ward.server.view(&ward.run).summary.state, State::FailedHolding);
    ward.expect_reason(&["supply of PS2 Status"]);
}

/// Whoever is in stays in, nobody else comes in, and the key is in no file.
fn a_release(ward: &mut Ward) {
    let own = format!("groundcrew-hold:{}", ward.run.id);
    let keys = ward.log_in("cat /root/.ssh/authorized_keys");
    assert_eq!(keys.matches(&own).count(), 1, "{keys}");
    let mut ssh = ward.ssh("echo in; read now; cat /root/.ssh/authorized_keys; echo end; kill -USR2 1");
    let mut session = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh can be started");
    let mut out = session.stdout.take().expect("it is a pipe");
    let mut said = [0; 3];
    out.read_exact(&mut said).expect("it can be read");
    assert_eq!(&said, b"in\n");
    ward.end_of_key(|| ward.server.order(&ward.run, "release", "it goes back to its maker"));
    assert_eq!(ward.server.view(&ward.run).summary.state, State::Cancelled);
    ward.expect_refusal();
    writeln!(session.stdin.take().expect("it is a pipe"), "now").expect("the session listens");
    let mut said = String::new();
    out.read_to_string(&mut said).expect("it can be read");
    assert!(said.ends_with("end\n") && !said.contains("groundcrew-hold"), "{said}");
    // As `poweroff` asks for it.
    ward.machine.wait_for_power_off();
    let _cut_off = session.wait().expect("it was started");
    assert_eq!(ward.machine.boots().len(), 2);
}
