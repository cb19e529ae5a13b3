//! The stage Network: what each link carries, both ways, to the peers of the profile, and what it negotiated.
//!
//! `iperf3 -J` speaks with one peer after the other, as a client ([`iperf3`]); `ethtool` says of each interface with a carrier
//! what its link is ([`ethtool`]). A peer that cannot be spoken with is a failure to measure: inconclusive. Damaged packets and
//! lost carriers are the counters' around every stage.

mod ethtool;
mod iperf3;
mod link;

use std::time::{Duration, Instant};

use groundcrew_protocol::check::{Check, Observation, PlannedCheck};
use groundcrew_protocol::inventory::Nic;
use groundcrew_protocol::plan::names;
use groundcrew_protocol::profile::{NetworkPeer, NetworkSettings, ORCHESTRATOR_PEER};
use groundcrew_protocol::wire::LogLevel;

use self::ethtool::Negotiated;
use self::iperf3::{Flow, Way};
use self::link::Link;
use super::json_tool::Call;
use super::{Done, StageContext, pcie, refused, stopped};
use crate::probe::{Root, Unreads, ip, nics};

/// A server speaks with one client at a time. Time between two questions of one that is busy.
const BUSY_PAUSE: Duration = Duration::from_secs(2);
/// iperf3 may take this long beside its load: to be answered, and to have what the server counted.
const MARGIN: Duration = Duration::from_secs(15);
/// Beside its load a flow takes about this: to begin, and to be summed up.
const FLOW_OVERHEAD: Duration = Duration::from_secs(2);
/// ethtool asks the driver, which may ask the card.
const ETHTOOL_TIME: Duration = Duration::from_secs(20);
/// Over this share of its link's speed, in percent, nothing arrives over a card: the rest is for clocks that differ, and for what
/// stood in buffers when the time began.
const SHARE_PERCENT_MAX: f64 = 105.0;
/// Why nobody can be spoken with where the profile names the orchestrator.
const NO_SERVER: &str = "the orchestrator says of no iperf3 server (groundcrewd serve --iperf3)";
/// Why a peer says nothing of a link.
const NO_LINK: &str = "the peer is this machine: it went over no link";

/// Looks at each link, then speaks with each peer.
pub(super) fn run(context: &StageContext, deadline: Instant) -> Done {
    let settings = context.spec.network.clone().unwrap_or_default();
    let mut unreads = Unreads::default();
    let interfaces = nics::read(&context.root, &mut unreads);
    if let Some(unread) = unreads.into_vec().first() {
        return refused(context, format!("the list of interfaces could not be read: {}", unread.why));
    }
    let mut done = Done::default();
    if context.owes(names::NICS) {
        let there: Vec<&str> =
            interfaces.iter().filter(|nic| !nic.is_virtual).map(|nic| nic.name.as_str()).collect();
        let count = Observation::measured(there.len() as f64, "interfaces");
        done.checks.push(context.check(names::NICS, count).with_evidence(there.join(", ")));
    }
    links(context, &interfaces, deadline, &mut done);
    let cards: Vec<String> = with_links(&interfaces).filter_map(|nic| nic.pci.clone()).collect();
    let load = || speak_with_all(context, &settings, &interfaces, deadline, &mut done);
    let (used, speeds) = pcie::fastest(&context.root, &cards, load);
    if settings.peers.is_empty() {
        let why = "the profile names nobody to speak with ([[stage.network.peer]])".to_owned();
        done.checks.extend(context.still_owed(&done.checks, &Observation::Unreadable { why }));
    } else {
        done.checks.extend(speed_checks(context, &interfaces, &used, &speeds));
    }
    done.stopped = stopped(context, deadline);
    done
}

/// Interfaces of cards whose link is up.
fn with_links(interfaces: &[Nic]) -> impl Iterator<Item = &Nic> {
    interfaces.iter().filter(|nic| nic.pci.is_some() && !nic.is_virtual && nic.state.as_deref() == Some("up"))
}

/// How fast the PCIe links of cards got while something was sent over them.
fn speed_checks(
    context: &StageContext,
    interfaces: &[Nic],
    used: &[String],
    speeds: &pcie::Speeds,
) -> Vec<Check> {
    let limit = context.limit(names::PCIE_SPEED);
    let check = |nic: &Nic| {
        let (observed, evidence) = match nic.pci.as_ref().filter(|_| used.contains(&nic.name)) {
            Some(pci) => speeds.get(pci)?.clone(),
            None => (absent(&format!("no peer is reached over {}", nic.name)), String::new()),
        };
        Some(Check::of(names::PCIE_SPEED, Some(&nic.name), observed, limit.clone()).with_evidence(evidence))
    };
    let checks: Vec<Check> = with_links(interfaces).filter_map(check).collect();
    if checks.is_empty() {
        let why = absent("no interface with a device on the PCI bus has a link");
        return vec![context.check(names::PCIE_SPEED, why)];
    }
    checks
}

/// Speaks with one peer after the other. The interfaces over which that went.
fn speak_with_all(
    context: &StageContext,
    settings: &NetworkSettings,
    interfaces: &[Nic],
    deadline: Instant,
    done: &mut Done,
) -> Vec<String> {
    let mut used = Vec::new();
    for (index, peer) in settings.peers.iter().enumerate() {
        context.show(index as f64 / settings.peers.len() as f64, format!("speaks with {}", peer.host));
        // How long a busy peer is asked again: the others are to have their time as well.
        let to_come = u32::try_from(settings.peers.len() - index).unwrap_or(u32::MAX);
        let patience = Patience { deadline, flows_to_come: 2 * to_come };
        match peer.host == ORCHESTRATOR_PEER {
            true => done.checks.extend(unheard(context)),
            false => used.extend(speak(context, settings, peer, interfaces, &patience, done)),
        }
    }
    used
}

/// What is owed of a peer with whom nobody can speak.
fn unheard(context: &StageContext) -> Vec<Check> {
    let why = || Observation::Unreadable { why: NO_SERVER.to_owned() };
    let of_peer = |planned: &PlannedCheck| {
        ![names::LINKS, names::LINK_SPEED, names::DUPLEX, names::PCIE_SPEED].contains(&&*planned.name)
    };
    let owed = context.plan().into_iter().filter(of_peer);
    owed.map(|planned| Check::of(&planned.name, Some(ORCHESTRATOR_PEER), why(), planned.limit)).collect()
}

/// How long a peer that is busy is asked again.
struct Patience {
    /// The stage's end.
    deadline: Instant,
    /// Flows of this peer and of those after it.
    flows_to_come: u32,
}

impl Patience {
    /// Until when: the rest of the time is what the flows need that are to come. `done` of this peer's are over.
    fn until(&self, settings: &NetworkSettings, done: u32) -> Instant {
        let needed = (Duration::from_millis(settings.duration) + FLOW_OVERHEAD) * (self.flows_to_come - done);
        self.deadline.checked_sub(needed).unwrap_or(self.deadline)
    }
}

/// What each interface with a device negotiated. One without a link may have no cable, or a broken one: the profile says how
/// many links there must be.
fn links(context: &StageContext, interfaces: &[Nic], deadline: Instant, done: &mut Done) {
    let (linked, others): (Vec<&Nic>, Vec<&Nic>) =
        interfaces.iter().filter(|nic| nic.pci.is_some()).partition(|nic| nic.state.as_deref() == Some("up"));
    for nic in &others {
        let state = nic.state.as_deref().unwrap_or("unknown");
        let why =
            format!("{} has no link ({state}), and links_min of the profile says how many must", nic.name);
        for name in [names::LINK_SPEED, names::DUPLEX] {
            let absent = Observation::Absent { why: why.clone() };
            done.checks.push(Check::of(name, Some(&nic.name), absent, context.limit(name)));
        }
    }
    let wanted = context.spec.network.as_ref().is_some_and(|settings| settings.links_min.is_some());
    let count = match linked.is_empty() && !wanted {
        true => {
            Observation::Absent { why: "no interface with a device on the PCI bus has a link".to_owned() }
        }
        false => Observation::measured(linked.len() as f64, "links"),
    };
    let without: Vec<&str> = others.iter().map(|nic| nic.name.as_str()).collect();
    let evidence = format!("without a link: {}", without.join(", "));
    done.checks.push(context.check(names::LINKS, count).with_evidence(evidence));
    for nic in &linked {
        let call = Call {
            context,
            program: "ethtool",
            arguments: vec![nic.name.clone().into()],
            time: ETHTOOL_TIME,
            deadline,
            about: nic.name.clone(),
        };
        let command = call.command();
        let said = call.run();
        let Negotiated { speed, duplex, held_back } = match &said {
            Ok(said) => {
                ethtool::link(said, nic.is_virtual || has_no_link_of_its_own(&context.root, &nic.name))
            }
            Err(why) => Negotiated::unreadable(why),
        };
        let of_link = [(names::LINK_SPEED, speed), (names::DUPLEX, duplex)];
        let slow = held_back.map(|observed| (names::LINK_HELD_BACK, observed));
        for (name, observed) in of_link.into_iter().chain(slow) {
            let check = Check::of(name, Some(&nic.name), observed, context.limit(name));
            done.checks.push(check.with_evidence(command.clone()));
        }
        done.artifacts.extend(said.ok().map(|said| (format!("ethtool-{}.txt", nic.name), said.stdout)));
    }
    if linked.is_empty() && others.is_empty() {
        let why = "no interface with a device on the PCI bus has a link";
        for name in [names::LINK_SPEED, names::DUPLEX] {
            done.checks.push(context.check(name, Observation::Absent { why: why.to_owned() }));
        }
    }
}

/// True for a function of another card (SR-IOV), and for IP over InfiniBand: where these know no speed, the card itself does, and
/// what an InfiniBand port negotiated is the stage GPU's.
fn has_no_link_of_its_own(root: &Root, name: &str) -> bool {
    /// The kernel's number for it (include/uapi/linux/if_arp.h).
    const ARPHRD_INFINIBAND: &str = "32";
    let folder = format!("/sys/class/net/{name}");
    root.exists(&format!("{folder}/device/physfn"))
        || root.detail(&format!("{folder}/type")).as_deref() == Some(ARPHRD_INFINIBAND)
}

/// Speaks with a peer, each way once. The interfaces over which that went.
fn speak(
    context: &StageContext,
    settings: &NetworkSettings,
    peer: &NetworkPeer,
    interfaces: &[Nic],
    patience: &Patience,
    done: &mut Done,
) -> Vec<String> {
    let component = format!("{}:{}", peer.host, peer.port);
    let flows = [(Way::Send, 0), (Way::Receive, 1)].map(|(way, over)| {
        let call = Call {
            context,
            program: "iperf3",
            arguments: iperf3::arguments(settings, peer, way),
            time: Duration::from_millis(settings.duration) + MARGIN,
            deadline: patience.deadline,
            about: component.clone(),
        };
        let (flow, raw) = when_not_busy(&call, settings, way, patience.until(settings, over));
        let name = format!("iperf3-{}-{}.json", component.replace(':', "_"), way.word());
        done.artifacts.extend(raw.map(|bytes| (name, bytes)));
        (way, call.command(), flow)
    });
    let seconds = flows
        .iter()
        .map(|(_, _, flow)| flow.as_ref().map(|flow| flow.seconds))
        .try_fold(f64::INFINITY, |least, seconds| seconds.map(|seconds| least.min(seconds)));
    let links = flows.each_ref().map(|(_, _, flow)| match flow {
        Ok(flow) => link::link(&context.root, interfaces, flow, ip::interfaces_of),
        Err(why) => Link::Unknown(why.clone()),
    });
    let duration = match seconds {
        Ok(_) if links.contains(&Link::Loopback) => absent(NO_LINK),
        Ok(seconds) => Observation::measured(seconds, "s"),
        Err(why) => Observation::Unreadable { why: why.clone() },
    };
    let limit = |name| context.limit(name);
    done.checks.push(Check::of(names::DURATION, Some(&component), duration, limit(names::DURATION)));
    for ((way, command, flow), link) in flows.iter().zip(&links) {
        let over = match link {
            Link::Of { name, .. } => format!("\nover {name}"),
            Link::Loopback | Link::Unknown(_) => String::new(),
        };
        for (name, observed) in observed(*way, flow, link, peer, settings) {
            let observed = match flow {
                Ok(flow) => flow.unless_busy(observed, &limit(name)),
                Err(_) => observed,
            };
            let check = Check::of(name, Some(&component), observed, limit(name));
            done.checks.push(check.with_evidence(format!("{command}{over}")));
        }
    }
    let names = |link| match link {
        Link::Of { name, .. } => link::carriers(&context.root, interfaces, &name),
        Link::Loopback | Link::Unknown(_) => Vec::new(),
    };
    links.into_iter().flat_map(names).collect()
}

/// Asks again while the server speaks with somebody else.
fn when_not_busy(
    call: &Call<'_>,
    settings: &NetworkSettings,
    way: Way,
    until: Instant,
) -> (Result<Flow, String>, Option<Vec<u8>>) {
    loop {
        let said = match call.run() {
            Ok(said) => said,
            Err(why) => return (Err(why), None),
        };
        let flow = iperf3::flow(&said.stdout, way, settings.streams);
        let Err(why) = &flow else { return (flow, Some(said.stdout)) };
        if !iperf3::is_busy(why) || Instant::now() >= until {
            return (flow, Some(said.stdout));
        }
        call.context.say(LogLevel::Info, format!("{}: {why}; asked again", call.about));
        if call.context.cancel.wait(BUSY_PAUSE) {
            return (flow, Some(said.stdout));
        }
    }
}

/// What one way says of the link that it went over.
fn observed(
    way: Way,
    flow: &Result<Flow, String>,
    link: &Link,
    peer: &NetworkPeer,
    settings: &NetworkSettings,
) -> [(&'static str, Observation); 3] {
    let [rate_name, share_name, retransmits_name] = match way {
        Way::Send => [names::SEND_RATE, names::SEND_SHARE, names::SEND_RETRANSMITS],
        Way::Receive => [names::RECEIVE_RATE, names::RECEIVE_SHARE, names::RECEIVE_RETRANSMITS],
    };
    let flow = match flow {
        Ok(flow) => flow,
        Err(why) => {
            let unreadable = || Observation::Unreadable { why: why.clone() };
            return [(rate_name, unreadable()), (share_name, unreadable()), (retransmits_name, unreadable())];
        }
    };
    let share = match link {
        // How fast a machine speaks with itself says nothing of its links.
        Link::Loopback => {
            return [rate_name, share_name, retransmits_name].map(|name| (name, absent(NO_LINK)));
        }
        Link::Unknown(why) => Observation::Unreadable { why: why.clone() },
        Link::Of { is_virtual: true, speed: None, .. } => absent("a virtual interface has no speed"),
        Link::Of { name, speed: None, .. } => {
            Observation::Unreadable { why: format!("{name} does not say its speed") }
        }
        Link::Of { name, is_virtual, speed: Some(speed) } => {
            match (is_virtual, flow.mbps / f64::from(*speed) * 100.0) {
                // Several streams may fill several members of a bond; a card carries no more than its link.
                (false, percent) if percent > SHARE_PERCENT_MAX => Observation::Unreadable {
                    why: format!(
                        "{:.0} Mb/s are more than the {speed} Mb/s of {name}: it went another way",
                        flow.mbps
                    ),
                },
                (true | false, _) => share(name, *speed, flow, peer, settings),
            }
        }
    };
    let retransmits = match flow.retransmits_percent {
        Ok(percent) => Observation::measured(percent, "% of the segments"),
        Err(ref why) => Observation::Unreadable { why: why.clone() },
    };
    [
        (rate_name, Observation::measured(flow.mbps, "Mb/s")),
        (share_name, share),
        (retransmits_name, retransmits),
    ]
}

fn absent(why: &str) -> Observation {
    Observation::Absent { why: why.to_owned() }
}

/// The share of a link's speed that a flow reached, unless the peer may be what held it back.
fn share(name: &str, speed: u32, flow: &Flow, peer: &NetworkPeer, settings: &NetworkSettings) -> Observation {
    let percent = flow.mbps / f64::from(speed) * 100.0;
    let is_slow = percent < settings.throughput_percent_min;
    let why = match peer.speed_mbps {
        Some(of_peer) if of_peer < speed => format!(
            "the peer's link has {of_peer} Mb/s and {name}'s {speed}: a slower peer proves nothing of it"
        ),
        None if is_slow => format!(
            "{:.0} Mb/s are {percent:.1} % of the {speed} Mb/s of {name}, and the profile does not say how fast the peer's link \
             is (speed_mbps)",
            flow.mbps
        ),
        Some(_) | None => return Observation::measured(percent, "% of the link's speed"),
    };
    Observation::Unreadable { why }
}

#[cfg(test)]
mod tests;
