//! Machines that boot the live image, walking real stages on real tools under an orchestrator on the host.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use groundcrew_protocol::check::{Check, Verdict};
use groundcrew_protocol::operator::{RunView, StageView};
use groundcrew_protocol::report::{Report, StageReport};
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_protocol::wire::HomeKind;
use groundcrew_tests::guest::bmc::{FAN, REDUNDANCY, SUPPLIES};
use groundcrew_tests::guest::{Bmc, Live, OperatorKey, Parts, Relay, left_out};
use groundcrew_tests::harness::server::{Run, own_loopback};
use groundcrew_tests::harness::{Process, Server, eventually};
use serde_json::json;

/// What a guest can do in seconds. Its limits say what an emulated machine is good for, not what a real one must be.
const PROFILE: &str = r#"name = "guest"
at_end = "shutdown"

[expected]
disk_count = 2
nic_count = 1

[[expected.disk]]
serial = "NVME-1"

[[expected.disk]]
serial = "SATA-1"

[[stage]]
name = "Inventory"
deadline = "5m"

[[stage]]
name = "SMART"
deadline = "5m"
[stage.smart]
self_test = "none"

[[stage]]
name = "CPUStress"
deadline = "10m"
[stage.cpu_stress]
duration = "3s"
method = "int64"

[[stage]]
name = "Memory"
deadline = "10m"
[stage.memory]
duration = "10s"
method = "rand-sum"
size_mib_max = 16

[[stage]]
name = "Storage"
deadline = "10m"
[stage.storage]
sequential = "2s"
random = "2s"

[[stage]]
name = "GPU"

[[stage]]
name = "Soak"
deadline = "10m"
[stage.soak]
duration = "8s"
memory_mib_max = 16
[stage.psu]
supplies = 2
redundant = true

[[stage]]
name = "PSU"
[stage.psu]
supplies = 2
redundant = true
input_watts_min = 300
"#;

/// The network of an emulated machine carries what its processor has time for.
const NETWORK: &str = r#"
[[stage]]
name = "Network"
deadline = "10m"
[stage.network]
duration = "2s"
streams = 1
links_min = 1
throughput_percent_min = 0.1
retransmits_percent_warn = 100
retransmits_percent_max = 100
[[stage.network.peer]]
host = "10.0.2.2"
port = PORT
speed_mbps = 1000
"#;

/// Waits for the verdict of each stage, one after the other: each is something that has come of itself.
fn wait_for_stages(server: &Server, run: &Run, stages: &[&str]) {
    for name in stages {
        server.wait_for(run, &format!("a verdict of {name}"), |view| {
            assert!(!is_held(view), "held in the middle: {}", view.summary.reason);
            view.stages.iter().any(|stage| stage.stage.to_string() == *name && stage.verdict.is_some())
        });
    }
}

fn is_held(view: &RunView) -> bool {
    view.summary.state == State::FailedHolding
}

pub fn report(server: &Server, run: &Run) -> Report {
    server.get(&format!("/api/v1/runs/{}/report", run.id))
}

pub fn stage<'r>(report: &'r Report, name: &str) -> &'r StageReport {
    let found = report.stages.iter().find(|stage| stage.stage.to_string() == name);
    found.unwrap_or_else(|| panic!("{name} is no stage of {report:#?}"))
}

/// The checks of that name, in one stage.
fn checks<'r>(stage: &'r StageReport, name: &str) -> Vec<&'r Check> {
    stage.checks.iter().filter(|check| check.name == name).collect()
}

/// Components of the checks of that name that passed.
fn passed(stage: &StageReport, name: &str) -> Vec<String> {
    let passed = checks(stage, name).into_iter().filter(|check| check.verdict == Verdict::Pass);
    let mut components: Vec<String> = passed.filter_map(|check| check.component.clone()).collect();
    components.sort();
    components
}

#[test]
fn a_machine_of_the_live_image_walks_its_stages_and_switches_itself_off() {
    if left_out() {
        return;
    }
    let server = Server::start();
    // A server of iperf3 of this test's own, which the machine reaches through a relay.
    let address = SocketAddr::from((own_loopback(), 5201));
    let way = Relay::to(address);
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let mut iperf3 = Command::new("iperf3");
    let iperf3 = Process::start("iperf3", iperf3.args(["-s", "--forceflush", "-B", &ip, "-p", &port]));
    iperf3.wait_for_line("Server listening");
    let network = NETWORK.replace("PORT", &way.port().to_string());
    let run = server.create_run("live", &format!("{PROFILE}{network}"));
    let bmc = Bmc::start();
    let parts = Parts { more: bmc.devices(), ..Parts::default() };
    let mut machine = Live::boot("live", &server, &run, &parts);
    let stages = [
        "Inventory",
        "SpecValidate",
        "SMART",
        "CPUStress",
        "Memory",
        "Storage",
        "GPU",
        "Soak",
        "PSU",
        "Network",
    ];
    wait_for_stages(&server, &run, &stages);
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!(view.home, Some(HomeKind::Volatile));
    let report = report(&server, &run);
    for name in stages {
        let stage = stage(&report, name);
        // The machine has no GPU, nobody expects one, and that is what is said.
        let verdict = if name == "GPU" { Verdict::Skipped } else { Verdict::Pass };
        assert_eq!((stage.verdict, stage.attempts), (Some(verdict), 1), "{stage:#?}");
    }
    assert_eq!(report.verdict, Verdict::Pass);
    // What was asked of real disks was asked of each.
    let both = ["NVME-1", "SATA-1"];
    assert_eq!(passed(stage(&report, "SMART"), "health"), both, "{:#?}", stage(&report, "SMART"));
    let (gpu, soak, psu) = (stage(&report, "GPU"), stage(&report, "Soak"), stage(&report, "PSU"));
    let why = checks(gpu, "gpu_driver")[0].observed.describe();
    assert_eq!(why, "the machine has no GPU on the PCI bus");
    // Of the BMC too: each supply by its name, under load and without, and its log beside every load.
    for (stage, prefix) in [(psu, ""), (soak, "psu.")] {
        let of = |name: &str| passed(stage, &format!("{prefix}{name}"));
        assert_eq!(
            (of("supply"), of("redundancy"), of("fans")),
            (names(&SUPPLIES), names(&[REDUNDANCY]), names(&[FAN]))
        );
    }
    for name in ["CPUStress", "Memory", "Storage", "Soak", "PSU", "Network"] {
        let [events] = checks(stage(&report, name), "sel_events")[..] else {
            panic!("{name} has one check of them")
        };
        assert_eq!(
            (events.verdict, events.observed.describe().as_str()),
            (Verdict::Pass, "none"),
            "{events:#?}"
        );
        assert!(events.evidence.contains("2 entries before the stage and after it"), "{events:#?}");
    }
    machine.wait_for_power_off();
    assert_eq!(machine.boots().len(), 1);
    let console = machine.console();
    assert!(console.contains("the power goes now"), "{console}");
    assert!(!console.contains("groundcrew init: mounting"), "{console}");
}

fn names(of: &[&str]) -> Vec<String> {
    of.iter().map(ToString::to_string).collect()
}

/// A profile for a machine that lacks three parts, and that is to be looked at while it is held.
const FAULTY: &str = r#"name = "faulty"

[expected]
disk_count = 3
nic_count = 2

[expected.memory]
dimms = 2

[[expected.disk]]
serial = "NVME-1"

[[expected.disk]]
serial = "SATA-9"

[[expected.nic]]
mac = "52:54:00:00:00:99"

[[stage]]
name = "Inventory"
deadline = "5m"

[[stage]]
name = "SMART"
deadline = "5m"
[stage.smart]
self_test = "none"

[[stage]]
name = "CPUStress"
deadline = "10m"
[stage.cpu_stress]
duration = "10s"
method = "int64"

[[stage]]
name = "Storage"
deadline = "10m"
[stage.storage]
sequential = "15s"
random = "1s"

[[stage]]
name = "Network"
deadline = "10m"
[[stage.network.peer]]
host = "10.0.2.2"
port = 9
"#;

/// Kills the agent in the middle of a load, and writes down what of that load lives on when the next agent's load runs.
const KILLER: &str = r#"cat >/run/killer <<'END'
until old=$(pgrep stress-ng); do sleep 0.1; done
kill -9 $(pgrep -f '^/proc/self/exe agent$')
while :; do
    for new in $(pgrep stress-ng); do
        echo "$old" | grep -qx "$new" || break 2
    done
    sleep 0.1
done
for one in $old; do
    [ -d /proc/$one ] && echo "$one lives on: $(cat /proc/$one/comm)"
done >/run/orphans
mv /run/orphans /run/seen
END
setsid sh /run/killer >/dev/null 2>&1 </dev/null &"#;

/// A run whose machine is held for one fault after the other, and the operator who looks at each.
pub struct Ward {
    pub server: Server,
    pub run: Run,
    pub machine: Live,
    key: OperatorKey,
}

impl Ward {
    /// Boots the machine for a run of this profile.
    pub fn boot(name: &str, profile: &str, parts: &Parts) -> Ward {
        Ward::boot_after(|_server| {}, name, profile, parts)
    }

    /// The same, once the orchestrator was prepared.
    pub fn boot_after(prepare: impl FnOnce(&Server), name: &str, profile: &str, parts: &Parts) -> Ward {
        let server = Server::start();
        prepare(&server);
        let key = OperatorKey::registered(&server);
        let run = server.create_run(name, profile);
        let machine = Live::boot(name, &server, &run, parts);
        Ward { server, run, machine, key }
    }

    /// A command on the machine, over SSH with the operator's key.
    pub fn ssh(&self, command: &str) -> Command {
        self.machine.ssh(&self.key.path(), command)
    }

    /// Waits until the run is held in that stage, at that attempt, and says what its checks of that name say.
    pub fn held(&self, name: &str, attempts: u32) -> StageReport {
        let what = format!("hold in {name}, attempt {attempts}");
        self.server.wait_for(&self.run, &what, |view| {
            let is_there = |stage: &StageView| {
                stage.stage.to_string() == name && stage.attempts == attempts && stage.verdict.is_some()
            };
            is_held(view) && view.stages.iter().any(is_there)
        });
        stage(&report(&self.server, &self.run), name).clone()
    }

    /// Logs in, which an operator may do as long as the run is held. What the command says.
    pub fn log_in(&self, command: &str) -> String {
        self.key.log_in(&self.machine, command)
    }

    /// What the hold says of itself names all of these.
    pub fn expect_reason(&self, parts: &[&str]) {
        let reason = self.server.view(&self.run).summary.reason;
        for part in parts {
            assert!(reason.contains(part), "{part} in {reason}");
        }
    }

    /// Gives an order that ends the hold, and waits until the key of it is out of its file.
    pub fn end_of_key(&self, order: impl FnOnce() -> RunView) {
        // Each hold before has put its key in and taken it out.
        let outs = || self.machine.console().matches("the operator's key is out of").count();
        let before = outs();
        order();
        eventually("the end of the key", || (outs() > before).then_some(()));
    }

    /// The key opens nothing.
    pub fn expect_refusal(&self) {
        let output = self.ssh("true").output().expect("ssh can be started");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(255) && said.contains("Permission denied"), "{output:?}");
    }

    /// Nobody with the key gets in where its time is over, also while it lies in its file: the agent, which would take it out,
    /// stands still meanwhile.
    fn expect_refusal_after_the_hold(&self) {
        let script = "agent=$(pgrep -f '^/proc/self/exe agent$')\nkill -STOP $agent\ndate -s @4102444800 >/dev/null\n\
                      echo set; read now; date -s \"@$now\" >/dev/null\nkill -CONT $agent";
        let mut ssh = self.ssh(script);
        let mut session =
            ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh can be started");
        let mut said = String::new();
        let mut out = BufReader::new(session.stdout.take().expect("it is a pipe"));
        out.read_line(&mut said).expect("it can be read");
        assert_eq!(said, "set\n");
        self.expect_refusal();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the host's clock is right").as_secs();
        writeln!(session.stdin.take().expect("it is a pipe"), "{now}").expect("the session listens");
        assert!(session.wait().expect("it was started").success());
        assert_eq!(self.log_in("echo again"), "again");
    }
}

/// The checks of that verdict, each with its component.
pub fn found(stage: &StageReport, verdict: Verdict) -> Vec<String> {
    let found = stage.checks.iter().filter(|check| check.verdict == verdict);
    found.map(|check| format!("{} {}", check.name, check.component.as_deref().unwrap_or("-"))).collect()
}

#[test]
fn a_faulty_machine_is_held_for_each_fault_by_its_component() {
    if left_out() {
        return;
    }
    let parts = Parts { unreadable: Some(40_000), ..Parts::default() };
    let ward = Ward::boot("faulty", FAULTY, &parts);
    missing_parts(&ward);
    a_missing_tool(&ward);
    a_warning_of_a_disk(&ward);
    an_agent_that_is_killed(&ward);
    sectors_that_cannot_be_read(&ward);
    a_peer_that_refuses(&ward);
}

fn missing_parts(ward: &Ward) {
    let spec = ward.held("SpecValidate", 1);
    let missing = ["memory.dimms -", "disk_count -", "disk SATA-9", "nic_count -", "nic 52:54:00:00:00:99"];
    assert_eq!(found(&spec, Verdict::Fail), missing);
    ward.expect_reason(&[
        "1 modules, expected at least 2",
        "disk SATA-9 is missing",
        "52:54:00:00:00:99 is missing",
    ]);
    assert_eq!(ward.log_in("cat /proc/1/comm"), "init");
    ward.expect_refusal_after_the_hold();
}

fn a_missing_tool(ward: &Ward) {
    ward.log_in("mv /usr/sbin/smartctl /run/");
    ward.server.order(&ward.run, "override", "these parts come next week");
    let smart = ward.held("SMART", 1);
    assert_eq!(found(&smart, Verdict::Inconclusive), ["health NVME-1", "health SATA-1"]);
    assert_eq!(found(&smart, Verdict::Fail), ["health SATA-9"], "the missing disk, and no other");
    ward.expect_reason(&["health of NVME-1: smartctl is not installed"]);
    ward.log_in("mv /run/smartctl /usr/sbin/");
}

fn a_warning_of_a_disk(ward: &Ward) {
    let warning =
        json!({"path": "/machine/peripheral/nvme0", "property": "smart_critical_warning", "value": 4});
    ward.machine.tell("qom-set", &warning);
    ward.server.order(&ward.run, "retry", "");
    let smart = ward.held("SMART", 2);
    let warned = ["health NVME-1", "critical_warning NVME-1", "health SATA-9"];
    assert_eq!(found(&smart, Verdict::Fail), warned);
    ward.expect_reason(&["critical_warning of NVME-1: 4 (bits), expected at most 0"]);
    ward.log_in(KILLER);
    ward.server.order(&ward.run, "override", "the disk is replaced next week");
}

/// Killed in its stage it is started again, goes on there, and finds nothing of the load beside its own.
fn an_agent_that_is_killed(ward: &Ward) {
    ward.server.wait_for(&ward.run, "the end of CPUStress", |view| {
        view.stages.iter().any(|stage| stage.stage == Stage::CpuStress && stage.verdict.is_some())
    });
    ward.held("Storage", 1);
    let report = report(&ward.server, &ward.run);
    let cpu = stage(&report, "CPUStress");
    assert_eq!((cpu.verdict, cpu.attempts), (Some(Verdict::Pass), 2), "{cpu:#?}");
    assert_eq!(ward.server.count_of(&ward.run, "crashed"), 1);
    assert_eq!(
        ward.log_in("until [ -e /run/seen ]; do sleep 0.1; done; cat /run/seen"),
        "",
        "what a killed agent had started ran on"
    );
    assert_eq!(ward.machine.boots().len(), 1, "process 1 lives on");
}

fn sectors_that_cannot_be_read(ward: &Ward) {
    let storage = ward.held("Storage", 1);
    assert_eq!(found(&storage, Verdict::Fail), ["io_errors SATA-1", "io_errors SATA-9"]);
    ward.expect_reason(&["io_errors of SATA-1: "]);
    ward.server.order(&ward.run, "override", "these disks are replaced next week");
}

fn a_peer_that_refuses(ward: &Ward) {
    let network = ward.held("Network", 1);
    assert!(
        found(&network, Verdict::Inconclusive).contains(&"send_rate 10.0.2.2:9".to_owned()),
        "{network:#?}"
    );
    assert_eq!(
        found(&network, Verdict::Fail),
        ["nics -"],
        "a card is missing, and the link that is there is well"
    );
    ward.expect_reason(&["10.0.2.2:9: iperf3 measured nothing: unable to connect to server"]);
    assert_eq!(ward.log_in("echo in"), "in");
    ward.end_of_key(|| ward.server.order(&ward.run, "override", "nobody listens there"));
    assert_eq!(ward.server.view(&ward.run).summary.state, State::Completed);
    ward.expect_refusal();
}
