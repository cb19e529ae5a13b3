//! Reports of iperf3 and ethtool, real ones and mangled ones, and what they say of a link.

use groundcrew_protocol::check::{Verdict, judge_stage};
use groundcrew_protocol::plan::planned_checks;
use groundcrew_protocol::profile::StageSpec;
use groundcrew_protocol::stage::Stage;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::vet::json_tool::Said;
use crate::vet::tests::leaves;
use crate::vet::tests::mangled::{mangle, manglings};

const SEND: &str = include_str!("../../../tests/fixtures/iperf3/send.json");
const RECEIVE: &str = include_str!("../../../tests/fixtures/iperf3/receive.json");
const REFUSED: &str = include_str!("../../../tests/fixtures/iperf3/refused.json");
const VIRTIO: &str = include_str!("../../../tests/fixtures/iperf3/ethtool-virtio.txt");
/// The streams of both recordings.
const STREAMS: u32 = 2;

fn sent(text: &str) -> Result<Flow, String> {
    iperf3::flow(text.as_bytes(), Way::Send, STREAMS)
}

fn over(speed: Option<u32>, is_virtual: bool) -> Link {
    Link::Of { name: "eno1".into(), is_virtual, speed }
}

fn peer(speed_mbps: Option<u32>) -> NetworkPeer {
    NetworkPeer { host: "192.0.2.9".into(), port: 5201, speed_mbps }
}

fn verdicts(flow: &Result<Flow, String>, link: &Link, peer: &NetworkPeer) -> [Verdict; 3] {
    let plan = planned_checks(&StageSpec::of(Stage::Network));
    observed(Way::Send, flow, link, peer, &NetworkSettings::default()).map(|(name, observed)| {
        let limit = plan.iter().find(|planned| planned.name == name).unwrap().limit.clone();
        let observed = match flow {
            Ok(flow) => flow.unless_busy(observed, &limit),
            Err(_) => observed,
        };
        judge_stage(&[], &[Check::of(name, None, observed, limit)]).verdict
    })
}

#[test]
fn recorded_reports_are_read() {
    let flow = sent(SEND).unwrap();
    assert_eq!(
        (flow.mbps.round(), flow.seconds, flow.local),
        (9798.0, 1.006929, "127.0.0.1".parse().unwrap())
    );
    // 3 of 1234698240 / 32768 segments.
    assert!((flow.retransmits_percent.unwrap() - 0.00796).abs() < 1e-4);
    assert!(iperf3::flow(RECEIVE.as_bytes(), Way::Receive, STREAMS).unwrap().mbps > 21_000.0);
    let why = sent(REFUSED).unwrap_err();
    assert!(why.contains("unable to connect to server: Connection refused"), "{why}");
    assert!(!iperf3::is_busy(&why));
    let busy = json!({"error": "error - the server is busy running a test. try again later"}).to_string();
    assert!(iperf3::is_busy(&sent(&busy).unwrap_err()));
}

#[test]
fn another_test_than_was_asked_for_is_none() {
    assert!(iperf3::flow(SEND.as_bytes(), Way::Receive, STREAMS).is_err());
    assert!(iperf3::flow(RECEIVE.as_bytes(), Way::Send, STREAMS).is_err());
    assert!(iperf3::flow(SEND.as_bytes(), Way::Send, 4).is_err());
}

#[test]
fn a_flow_is_held_against_the_lesser_of_both_links() {
    use Verdict::{Fail, Inconclusive, Pass, Skipped, Warn};
    let of = |mbps: f64, retransmits: f64| {
        let (local, remote) = ([192, 0, 2, 1].into(), [192, 0, 2, 9].into());
        Ok(Flow { mbps, seconds: 10.0, retransmits_percent: Ok(retransmits), local, remote, busy: None })
    };
    let busy =
        |mbps: f64| of(mbps, 0.0).map(|flow| Flow { busy: Some("the peer's iperf3 ran out".into()), ..flow });
    let ten = || over(Some(10_000), false);
    let unknown = || Link::Unknown("nobody knows".into());
    for (flow, link, of_peer, expected) in [
        (of(8_000.0, 0.0), ten(), Some(10_000), [Pass, Pass, Pass]),
        (of(7_999.0, 0.0), ten(), Some(10_000), [Pass, Fail, Pass]),
        (of(9_000.0, 0.0), ten(), Some(25_000), [Pass, Pass, Pass]),
        (of(900.0, 0.0), ten(), Some(1_000), [Pass, Inconclusive, Pass]),
        // A peer of unknown speed may be the slower one, unless it was fast enough.
        (of(8_000.0, 0.0), ten(), None, [Pass, Pass, Pass]),
        (of(7_999.0, 0.0), ten(), None, [Pass, Inconclusive, Pass]),
        // So may an iperf3 that has no more CPU.
        (busy(8_000.0), ten(), Some(10_000), [Pass, Pass, Pass]),
        (busy(7_999.0), ten(), Some(10_000), [Pass, Inconclusive, Pass]),
        (of(9_000.0, 0.11), ten(), None, [Pass, Pass, Warn]),
        (of(9_000.0, 1.1), ten(), None, [Pass, Pass, Fail]),
        (of(9_000.0, 0.0), over(None, true), None, [Pass, Skipped, Pass]),
        (of(9_000.0, 0.0), over(None, false), None, [Pass, Inconclusive, Pass]),
        // A card carries no more than its link, the members of a bond together may.
        (of(10_500.0, 0.0), ten(), Some(10_000), [Pass, Pass, Pass]),
        (of(10_501.0, 0.0), ten(), Some(10_000), [Pass, Inconclusive, Pass]),
        (of(19_000.0, 0.0), over(Some(10_000), true), None, [Pass, Pass, Pass]),
        (of(9_000.0, 0.0), Link::Loopback, None, [Skipped; 3]),
        (of(9_000.0, 0.0), unknown(), None, [Pass, Inconclusive, Pass]),
        (Err("refused".to_owned()), unknown(), None, [Inconclusive; 3]),
    ] {
        assert_eq!(verdicts(&flow, &link, &peer(of_peer)), expected, "{flow:?} {link:?} {of_peer:?}");
    }
}

#[test]
fn an_iperf3_that_ran_out_of_cpu_is_told_from_a_slow_link() {
    let busy = |version: &str, here: f64, there: f64| {
        let mut report: Value = serde_json::from_str(SEND).unwrap();
        report["start"]["version"] = json!(version);
        report["end"]["cpu_utilization_percent"]["host_total"] = json!(here);
        report["end"]["cpu_utilization_percent"]["remote_total"] = json!(there);
        sent(&report.to_string()).unwrap().busy
    };
    for (version, here, there, expected) in [
        ("iperf 3.12", 21.8, 18.9, None),
        (
            "iperf 3.12",
            99.9,
            40.0,
            Some("this node's iperf3 ran out of CPU: it used 100 % of a CPU in one thread"),
        ),
        ("iperf 3.12", 40.0, 90.0, Some("the peer's")),
        ("iperf 3.15+", 99.0, 40.0, Some("this node's")),
        // Two streams in two threads.
        ("iperf 3.16", 99.0, 40.0, None),
        ("iperf 3.17.1+", 185.0, 40.0, Some("in 2 threads")),
        ("iperf 3.17.1", 40.0, 130.0, None),
        ("iperf 3.17.1", 40.0, 185.0, Some("the peer's")),
        ("iperf 4.0", 99.0, 40.0, None),
        ("", 99.0, 40.0, Some("this node's")),
    ] {
        let said = busy(version, here, there);
        let fits = match expected {
            None => said.is_none(),
            Some(part) => said.as_ref().is_some_and(|said| said.contains(part)),
        };
        assert!(fits, "{version} {here} {there}: {said:?}");
    }
}

#[test]
fn what_a_link_negotiated_is_read_or_missed() {
    let ethtool = |text: &str, exit: i32, is_virtual: bool| {
        let said = Said { exit, stdout: text.into(), stderr: b"No such device".to_vec() };
        ethtool::link(&said, is_virtual)
    };
    let found = |text: &str| Observation::Found { text: text.to_owned() };
    let text = "Settings for eno1:\n\tSpeed: 25000Mb/s\n\tDuplex: Full\n";
    let healthy = ethtool(text, 0, false);
    assert_eq!((healthy.speed, healthy.duplex), (Observation::measured(25_000.0, "Mb/s"), found("Full")));
    assert_eq!(healthy.held_back, None);
    assert_eq!(ethtool("\tSpeed: 100Mb/s\n\tDuplex: Half\n", 0, false).duplex, found("Half"));
    let virtual_one = ethtool(VIRTIO, 0, true);
    assert!(
        matches!(
            (&virtual_one.speed, &virtual_one.duplex),
            (Observation::Absent { .. }, Observation::Absent { .. })
        ),
        "{virtual_one:?}"
    );
    for (text, exit) in [(VIRTIO, 0), ("", 0), (text, 75), ("\tSpeed: fast\n\tDuplex: Both\n", 0)] {
        let Negotiated { speed, duplex, held_back } = ethtool(text, exit, false);
        assert!(matches!(speed, Observation::Unreadable { .. }), "{text} {speed:?}");
        assert!(matches!(duplex, Observation::Unreadable { .. }), "{text} {duplex:?}");
        assert_eq!(held_back, None, "{text}");
    }
}

/// The limit of the profile had nothing to judge where the card supports more than its link negotiated.
#[test]
fn a_link_under_its_limit_fails_whatever_its_card_supports() {
    let slow = "Settings for eno1:\n\tSupported ports: [ FIBRE ]\n\tSupported link modes:   1000baseKX/Full\n\t                        \
                10000baseCR/Full 25000baseCR/Full\n\tSupported pause frame use: Symmetric\n\tAdvertised link modes:  \
                100000baseCR4/Full\n\tSpeed: 10000Mb/s\n\tDuplex: Full\n";
    let verdicts = |text: &str, link_speed_min_mbps: Option<u32>| {
        let settings = NetworkSettings { link_speed_min_mbps, ..NetworkSettings::default() };
        let plan = planned_checks(&StageSpec { network: Some(settings), ..StageSpec::of(Stage::Network) });
        let said = Said { exit: 0, stdout: text.into(), stderr: Vec::new() };
        let Negotiated { speed, held_back, .. } = ethtool::link(&said, false);
        let check = |(name, observed)| Check::of(name, None, observed, Default::default());
        let held_back = held_back.map(|observed| (names::LINK_HELD_BACK, observed));
        let checks: Vec<Check> =
            [(names::LINK_SPEED, speed)].into_iter().chain(held_back).map(check).collect();
        let judged = judge_stage(&plan, &checks).checks;
        judged[..checks.len()].iter().map(|check| check.verdict).collect::<Vec<_>>()
    };
    for (text, least, expected) in [
        (slow, Some(25_000), vec![Verdict::Fail, Verdict::Warn]),
        // A cable or a switch that holds a card back warns.
        (slow, Some(10_000), vec![Verdict::Pass, Verdict::Warn]),
        (slow, None, vec![Verdict::Pass, Verdict::Warn]),
        (&slow.replace("10000Mb/s", "25000Mb/s"), Some(25_000), vec![Verdict::Pass]),
    ] {
        assert_eq!(verdicts(text, least), expected, "{least:?} of {text}");
    }
}

#[test]
fn a_report_that_breaks_off_gives_nothing() {
    for cut in (0..SEND.trim_end().len()).step_by(11) {
        assert!(sent(&SEND[..cut]).is_err(), "cut at {cut}");
    }
}

proptest! {
    /// A link that is too slow does not become fast by what happens to one leaf of its report.
    #[test]
    fn nothing_mangled_makes_a_slow_link_fast(
        leaf in any::<proptest::sample::Index>(),
        other in prop_oneof![
            Just(Value::Null), Just(json!("")), Just(json!("x")), Just(json!([])), Just(json!(false)), Just(json!(0)),
            Just(json!(1e12)), Just(json!(-1)),
        ],
    ) {
        let mut report: Value = serde_json::from_str(SEND).unwrap();
        let mut all = Vec::new();
        leaves(&report, "", &mut all);
        *report.pointer_mut(leaf.get(&all).as_str()).unwrap() = other;
        let link = over(Some(100_000), false);
        let [_, share, _] = verdicts(&sent(&report.to_string()), &link, &peer(Some(100_000)));
        prop_assert_ne!(share, Verdict::Pass);
    }

    /// A link that came up too slow, and one that cannot send and receive at a time.
    #[test]
    fn nothing_mangled_makes_a_link_that_came_up_badly_good(manglings in manglings(), may_have_none: bool) {
        let text = "Settings for eno1:\n\tSupported ports: [ TP ]\n\tSupported link modes:   100baseT/Half 100baseT/Full\n\
                    \t                        1000baseT/Full\n\tAuto-negotiation: on\n\tSpeed: 100Mb/s\n\tDuplex: Half\n\
                    \tPort: Twisted Pair\n\tLink detected: yes\n";
        let settings = NetworkSettings { link_speed_min_mbps: Some(1_000), ..NetworkSettings::default() };
        let plan = planned_checks(&StageSpec { network: Some(settings), ..StageSpec::of(Stage::Network) });
        let said = Said { exit: 0, stdout: mangle(text, &manglings), stderr: Vec::new() };
        let Negotiated { speed, duplex, .. } = ethtool::link(&said, may_have_none);
        for (name, observed) in [(names::LINK_SPEED, speed), (names::DUPLEX, duplex)] {
            let limit = plan.iter().find(|planned| planned.name == name).unwrap().limit.clone();
            let verdict = judge_stage(&[], &[Check::of(name, None, observed, limit)]).verdict;
            prop_assert!(matches!(verdict, Verdict::Fail | Verdict::Inconclusive), "{} {}", name, verdict);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(iperf3::flow(&bytes, Way::Send, 1).is_err());
    }
}

#[test]
fn a_busy_peer_is_asked_while_those_behind_it_keep_their_time() {
    let settings = NetworkSettings { duration: 10_000, ..NetworkSettings::default() };
    let now = Instant::now();
    for (left_s, flows_to_come, done, wanted_s) in [(120, 2, 0, 96), (120, 2, 1, 108), (120, 6, 0, 48)] {
        let patience = Patience { deadline: now + Duration::from_secs(left_s), flows_to_come };
        assert_eq!(patience.until(&settings, done) - now, Duration::from_secs(wanted_s));
    }
}
