//! Machines that boot the live image, walking real stages on real tools under an orchestrator on the host.

use std::net::SocketAddr;
use std::process::Command;

use groundcrew_protocol::check::{Check, Verdict};
use groundcrew_protocol::operator::RunView;
use groundcrew_protocol::report::{Report, StageReport};
use groundcrew_protocol::stage::State;
use groundcrew_protocol::wire::HomeKind;
use groundcrew_tests::guest::{Live, Parts, Relay, left_out};
use groundcrew_tests::harness::server::{Run, own_loopback};
use groundcrew_tests::harness::{Process, Server};

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
duration = "3s"
method = "flip"
size_mib_max = 32

[[stage]]
name = "Storage"
deadline = "10m"
[stage.storage]
sequential = "2s"
random = "2s"
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

fn report(server: &Server, run: &Run) -> Report {
    server.get(&format!("/api/v1/runs/{}/report", run.id))
}

fn stage<'r>(report: &'r Report, name: &str) -> &'r StageReport {
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
    let mut machine = Live::boot("live", &server, &run, &Parts::default());
    let stages = ["Inventory", "SpecValidate", "SMART", "CPUStress", "Memory", "Storage", "Network"];
    wait_for_stages(&server, &run, &stages);
    let view = server.wait_for_state(&run, State::Completed);
    assert_eq!(view.home, Some(HomeKind::Volatile));
    let report = report(&server, &run);
    for name in stages {
        let stage = stage(&report, name);
        assert_eq!((stage.verdict, stage.attempts), (Some(Verdict::Pass), 1), "{stage:#?}");
    }
    // What was asked of real disks was asked of each.
    let both = ["NVME-1", "SATA-1"];
    assert_eq!(passed(stage(&report, "SMART"), "health"), both, "{:#?}", stage(&report, "SMART"));
    machine.wait_for_power_off();
    assert_eq!(machine.boots().len(), 1);
    let console = machine.console();
    assert!(console.contains("the power goes now"), "{console}");
    assert!(!console.contains("groundcrew init: mounting"), "{console}");
}
