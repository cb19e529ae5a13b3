//! The peer `orchestrator` of a profile: the iperf3 that serves beside this server, at the address by which the node knows it.

use groundcrew_protocol::profile::{ORCHESTRATOR_PEER, StageSpec};
use http::HeaderMap;
use http::header::HOST;
use http::uri::Authority;

/// iperf3's own port.
pub const PORT: u16 = 5201;

/// The iperf3 that serves nodes beside this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Iperf3 {
    /// Its port.
    pub port: u16,
    /// Mb/s of the link that it serves over, where somebody said so.
    pub link_mbps: Option<u32>,
}

/// Puts the server's address in the place of the peer `orchestrator`. Without a server, or where the node does not say how it
/// knows this one, the peer stays as it is, and the agent says that it has nobody to speak with.
pub fn resolve(stages: &mut [StageSpec], headers: &HeaderMap, server: Option<Iperf3>) {
    let (Some(server), Some(host)) = (server, host_of(headers)) else { return };
    let peers =
        stages.iter_mut().filter_map(|spec| spec.network.as_mut()).flat_map(|network| &mut network.peers);
    for peer in peers.filter(|peer| peer.host == ORCHESTRATOR_PEER) {
        (peer.host, peer.port) = (host.clone(), server.port);
        // Written in the profile it counts: it may know of a slower link on the way.
        peer.speed_mbps = peer.speed_mbps.or(server.link_mbps);
    }
}

/// The name or address by which a request's sender knows this server.
fn host_of(headers: &HeaderMap) -> Option<String> {
    let authority: Authority = headers.get(HOST)?.to_str().ok()?.parse().ok()?;
    Some(authority.host().trim_start_matches('[').trim_end_matches(']').to_owned())
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::profile::Profile;

    use super::*;

    #[test]
    fn the_peer_is_where_the_node_knows_this_server() {
        let text = "name = \"p\"\n[[stage]]\nname = \"Network\"\ndeadline = \"5m\"\nnetwork.peer = [{ host = \"a\", port = 7 }, \
                    { host = \"orchestrator\" }]\n";
        let slow = text.replace("\"orchestrator\"", "\"orchestrator\", speed_mbps = 10");
        let (server, nameless) =
            (Iperf3 { port: 9, link_mbps: Some(100) }, Iperf3 { port: 9, link_mbps: None });
        for (text, host, server, wanted) in [
            (text, Some("gc.example:8443"), Some(server), ("gc.example", 9, Some(100))),
            (text, Some("[fe80::1]:8443"), Some(server), ("fe80::1", 9, Some(100))),
            (text, Some("10.0.0.1"), Some(nameless), ("10.0.0.1", 9, None)),
            (&*slow, Some("10.0.0.1"), Some(server), ("10.0.0.1", 9, Some(10))),
            (text, Some("10.0.0.1"), None, ("orchestrator", 5201, None)),
            (text, Some("no host"), Some(server), ("orchestrator", 5201, None)),
            (text, None, Some(server), ("orchestrator", 5201, None)),
        ] {
            let mut stages = Profile::parse(text).unwrap().stages;
            let headers = host.map(|host| (HOST, host.parse().unwrap())).into_iter().collect();
            resolve(&mut stages, &headers, server);
            let peers = &stages[0].network.as_ref().unwrap().peers;
            assert_eq!((&*peers[0].host, peers[0].port), ("a", 7));
            assert_eq!((&*peers[1].host, peers[1].port, peers[1].speed_mbps), wanted, "{host:?}");
        }
    }
}
