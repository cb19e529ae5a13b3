//! The stage Network with the real iperf3, over loopback, and with stand-ins.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use groundcrew_protocol::profile::{NetworkPeer, NetworkSettings};

use super::*;

/// `iperf3 -s` on loopback, ended with this.
struct Server {
    child: Child,
    port: u16,
    /// Held open: the server goes on telling of itself.
    _said: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Server {
    fn start() -> Server {
        // A port that was free a moment ago; where somebody took it, the next is tried.
        for _try in 0..16 {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            let mut child = Command::new("iperf3")
                .args(["-s", "-B", "127.0.0.1", "--forceflush", "-p", &port.to_string()])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
            if said.by_ref().map_while(Result::ok).any(|line| line.contains("Server listening")) {
                return Server { child, port, _said: said };
            }
            child.wait().unwrap();
        }
        panic!("no port for iperf3");
    }

    fn peer(&self) -> NetworkPeer {
        NetworkPeer { host: "127.0.0.1".into(), port: self.port, speed_mbps: None }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn network(root: &Root, peers: Vec<NetworkPeer>) -> Stage {
    let mut stage = stage("Network", root);
    let settings = NetworkSettings { peers, duration: 1_000, streams: 2, ..NetworkSettings::default() };
    stage.context.spec.network = Some(settings);
    stage
}

fn machine() -> Machine {
    let machine = Machine::empty();
    std::fs::create_dir_all(machine.root.path("/sys/class/net")).unwrap();
    machine
}

#[test]
fn a_peer_is_spoken_with_both_ways() {
    let (server, machine) = (Server::start(), machine());
    let outcome = run_stage(&network(&machine.root, vec![server.peer()]).context);
    // It went over no interface that has a link, and tells of none: not even that it lasted.
    assert_eq!(outcome.verdict, Verdict::Skipped, "{}", outcome.message);
    for name in
        ["send_rate", "send_share", "receive_rate", "receive_share", "duration", "link_speed", "duplex"]
    {
        assert_eq!(verdict(&outcome, name), Verdict::Skipped, "{name}");
    }
    let check = outcome.checks.iter().find(|check| check.name == "receive_rate").unwrap();
    assert_eq!(check.component.as_deref(), Some(&*format!("127.0.0.1:{}", server.port)));
    assert!(
        check.evidence.starts_with("iperf3 -J -c 127.0.0.1") && check.evidence.contains(" -R"),
        "{check:?}"
    );
    assert_eq!(outcome.artifacts.len(), 2);
    let share = outcome.checks.iter().find(|check| check.name == "send_share").unwrap();
    assert!(share.reason.contains("the peer is this machine"), "{share:?}");
}

#[test]
fn what_could_not_be_measured_is_inconclusive() {
    let machine = machine();
    assert_inconclusive(
        &run_stage(&network(&machine.root, Vec::new()).context),
        "names nobody to speak with",
    );
    // Nothing listens there.
    let nobody = NetworkPeer { host: "127.0.0.1".into(), port: 1, speed_mbps: None };
    let outcome = run_stage(&network(&machine.root, vec![nobody.clone()]).context);
    assert_inconclusive(&outcome, "iperf3 measured nothing: unable to connect to server");
    let mut without_tool = network(&machine.root, vec![nobody]);
    without_tool.context.search_path = without_tool.work.path().into();
    assert_inconclusive(&run_stage(&without_tool.context), "iperf3 is not installed");
    let nothing = Machine::empty();
    assert_inconclusive(
        &run_stage(&network(&nothing.root, Vec::new()).context),
        "list of interfaces could not be read",
    );
}

/// An interface that lost its cable was no check at all.
#[test]
fn an_interface_without_a_link_is_told_and_counts_where_the_profile_says_how_many() {
    let machine = fixture::server();
    let with = |links_min: Option<u32>, link_speed_min_mbps: Option<u32>| {
        let mut stage = network(&machine.root, Vec::new());
        let settings = stage.context.spec.network.as_mut().unwrap();
        (settings.links_min, settings.link_speed_min_mbps) = (links_min, link_speed_min_mbps);
        stage.put_tool("ethtool", "printf 'Settings\\n\\tSpeed: 10000Mb/s\\n\\tDuplex: Full\\n'");
        run_stage(&stage.context)
    };
    let outcome = with(None, None);
    let named =
        outcome.checks.iter().find(|of| of.name == "link_speed" && of.component.as_deref() == Some("eno2"));
    let named = named.expect("eno2 has a check of its own");
    assert_eq!(named.verdict, Verdict::Skipped);
    assert!(named.reason.contains("eno2 has no link (down)"), "{named:?}");
    let links = outcome.checks.iter().find(|of| of.name == "links").unwrap();
    let Observation::Measured { value: Some(count), .. } = links.observed else { panic!("{links:?}") };
    let linked =
        outcome.checks.iter().filter(|of| of.name == "duplex" && of.verdict == Verdict::Pass).count();
    assert_eq!((count, links.evidence.as_str()), (linked as f64, "without a link: eno2, eth9"));
    assert_eq!(verdict(&outcome, "links"), Verdict::Pass);
    assert_eq!(verdict(&with(Some(count as u32 + 1), None), "links"), Verdict::Fail);
    let worst = |outcome: &StageOutcome| {
        let speeds = outcome.checks.iter().filter(|of| of.name == "link_speed");
        Verdict::over(speeds.map(|of| of.verdict))
    };
    assert_eq!(worst(&with(None, Some(25_000))), Verdict::Fail);
    assert_eq!(worst(&with(None, Some(10_000))), Verdict::Pass);
    // A machine whose links are all gone.
    let bare = self::machine();
    let mut stage = network(&bare.root, Vec::new());
    stage.context.spec.network.as_mut().unwrap().links_min = Some(1);
    assert_eq!(verdict(&run_stage(&stage.context), "links"), Verdict::Fail);
}

/// A card that went away after the inventory was no check at all.
#[test]
fn interfaces_that_are_expected_are_counted_again() {
    let machine = fixture::server();
    let with = |nic_count: u32| {
        let profile = format!(
            "name = \"p\"\n[[stage]]\nname = \"Inventory\"\n[[stage]]\nname = \"Network\"\n[expected]\nnic_count = {nic_count}"
        );
        let profile = groundcrew_protocol::profile::Profile::parse(&profile).unwrap();
        let mut stage = network(&machine.root, Vec::new());
        stage.put_tool("ethtool", "printf 'Settings\\n\\tSpeed: 10000Mb/s\\n\\tDuplex: Full\\n'");
        stage.context.plan = groundcrew_protocol::plan::planned_of(&profile, &stage.context.spec);
        run_stage(&stage.context)
    };
    let outcome = with(1);
    let nics = outcome.checks.iter().find(|of| of.name == "nics").unwrap();
    let Observation::Measured { value: Some(count), .. } = nics.observed else { panic!("{nics:?}") };
    assert_eq!(verdict(&with(count as u32), "nics"), Verdict::Pass);
    assert_eq!(verdict(&with(count as u32 + 1), "nics"), Verdict::Fail);
}

/// What speaks over another's link may not know its speed, and is no unreadable one.
#[test]
fn an_interface_without_a_link_of_its_own_may_not_know_its_speed() {
    let machine = fixture::server();
    let with = |file: &str, text: &str| {
        machine.write(&format!("/sys/class/net/eno1/{file}"), text);
        let mut stage = network(&machine.root, Vec::new());
        stage.put_tool("ethtool", "printf 'Settings\\n\\tSpeed: Unknown!\\n\\tDuplex: Unknown! (255)\\n'");
        let outcome = run_stage(&stage.context);
        let of = |name: &str| {
            let mut checks = outcome.checks.iter();
            checks.find(|of| of.name == name && of.component.as_deref() == Some("eno1")).unwrap().verdict
        };
        [of("link_speed"), of("duplex")]
    };
    // An Ethernet card of its own must know.
    assert_eq!(with("type", "1\n"), [Verdict::Inconclusive; 2]);
    assert_eq!(with("type", "32\n"), [Verdict::Skipped; 2]);
    assert_eq!(with("type", "1\n"), [Verdict::Inconclusive; 2]);
    assert_eq!(with("device/physfn/vendor", "0x15b3\n"), [Verdict::Skipped; 2]);
}
