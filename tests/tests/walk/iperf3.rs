//! The orchestrator's own iperf3: kept up, spoken with by one node at a time, and gone with its server.

use std::process::Command;

use groundcrew_protocol::check::Check;
use groundcrew_protocol::operator::TaskView;
use groundcrew_protocol::report::Report;
use groundcrew_protocol::stage::{Stage, State};
use groundcrew_tests::harness::{Handle, Machine, Process, Server, eventually};

/// One peer, and nothing of the machine's own links, which are not the test's.
const PROFILE: &str = r#"
name = "network"
in_service = true
[[stage]]
name = "Network"
deadline = "10m"
[stage.network]
duration = "1s"
streams = 1
peer = [{ host = "orchestrator" }]
"#;

/// The iperf3 that the server says that it keeps up.
fn kept(server: &Server) -> Option<i32> {
    let tasks: Vec<TaskView> = server.get("/api/v1/tasks");
    let said = tasks.into_iter().find(|task| task.name == "iperf3" && task.healthy)?.said;
    said.rsplit_once("pid ")?.1.parse().ok()
}

/// By the kernel's table: whoever connects to find out is a client, and keeps the next one from being served.
fn listens(address: &str) -> Option<()> {
    const LISTENS: &str = "0A";
    let address: std::net::Ipv4Addr = address.parse().unwrap();
    let local = format!("{:08X}:{:04X}", u32::from_le_bytes(address.octets()), 5201);
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let is_it = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1) == Some(&local.as_str()) && fields.get(3) == Some(&LISTENS)
    };
    table.lines().any(is_it).then_some(())
}

fn of_peer(server: &Server, run: &str) -> Vec<Check> {
    let report: Report = server.get(&format!("/api/v1/runs/{run}/report"));
    let stage = report.stages.into_iter().find(|stage| stage.stage == Stage::Network).unwrap();
    stage.checks.into_iter().filter(|check| check.name == "duration").collect()
}

#[test]
fn a_node_measures_against_the_orchestrator_and_waits_while_another_does() {
    let server = Server::start_keeping_iperf3();
    let first = Handle::on(eventually("an iperf3 that is kept up", || kept(&server)));
    let address = server.url().trim_start_matches("https://").split(':').next().unwrap().to_owned();
    eventually("an iperf3 that listens", || listens(&address));

    // Somebody else speaks with it, for as long as it takes.
    let mut other = Command::new("iperf3");
    let mut other =
        Process::start("iperf3", other.args(["-c", &address, "-t", "3600", "-b", "1M", "--forceflush"]));
    other.wait_for_line("sec");
    let run = server.create_run("n1", PROFILE);
    let mut machine = Machine::new(&server, &run, "m1").with_tool("iperf3").with_tool("ethtool");
    machine.start();
    eventually("a node that waits", || {
        let waits = |text: &String| text.contains("the server is busy") && text.contains("asked again");
        server.log(&run, Some(&Stage::Network)).iter().any(waits).then_some(())
    });
    other.kill();
    // The machine is its own peer: no link was measured, and that is what each check says.
    server.wait_for(&run, "the end of the stage", |view| view.stages[0].verdict.is_some());
    let spoken = of_peer(&server, run.id.as_str());
    assert_eq!(spoken.len(), 1, "{spoken:?}");
    assert_eq!(spoken[0].component.as_deref(), Some(&*format!("{address}:5201")));
    assert!(spoken[0].reason.contains("the peer is this machine"), "{spoken:?}");

    first.signal(rustix::process::Signal::KILL);
    let second = eventually("another iperf3", || kept(&server).filter(|pid| *pid != first.pid()));
    let second = Handle::on(second);
    let mut server = server;
    server.kill();
    second.wait_gone();
}

#[test]
fn without_a_server_nobody_is_spoken_with_and_the_stage_says_so() {
    let server = Server::start();
    let run = server.create_run("n1", PROFILE);
    let mut machine = Machine::new(&server, &run, "m1").with_tool("iperf3").with_tool("ethtool");
    machine.start();
    server.wait_for_state(&run, State::FailedHolding);
    let spoken = of_peer(&server, run.id.as_str());
    assert!(spoken.len() == 1 && spoken[0].reason.contains("--iperf3"), "{spoken:?}");
}
