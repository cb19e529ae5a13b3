//! Settings of the stage Network (`[stage.network]`): who is spoken with, for how long, and what the link must carry.

use serde::{Deserialize, Serialize};

use super::BadProfile;
use super::cpu_stress::LOAD_MS_MIN;
use super::parse::{NUMBER_MAX, SPAN_MS_MAX, SPEED_MBPS_MAX, percent};
use super::part::Field;
use crate::time::span;

const KEYS: [&str; 9] = [
    "peer",
    "links_min",
    "link_speed_min_mbps",
    "duration",
    "streams",
    "throughput_percent_min",
    "rate_min_mbps",
    "retransmits_percent_max",
    "retransmits_percent_warn",
];
const PEER_KEYS: [&str; 3] = ["host", "port", "speed_mbps"];
/// The peer that is the orchestrator's own iperf3: a claim puts address and port in its place.
pub const ORCHESTRATOR_PEER: &str = "orchestrator";
/// iperf3's own.
const PORT: u16 = 5201;
/// More interfaces than any machine has.
const LINKS_MAX: u32 = 1024;
/// iperf3 takes no more.
const STREAMS_MAX: u32 = 128;
/// Peers are spoken with one after the other.
const PEERS_MAX: usize = 64;
/// Longest name of a host.
const HOST_BYTES_MAX: usize = 253;

/// Settings of the stage Network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct NetworkSettings {
    /// Those that `iperf3 -s` runs on.
    #[serde(rename = "peer", skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<NetworkPeer>,
    /// How many interfaces with a device must have a link.
    pub links_min: Option<u32>,
    /// Mb/s that every link must have negotiated.
    pub link_speed_min_mbps: Option<u32>,
    /// How long each peer is spoken with, each way.
    #[serde(with = "span")]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub duration: u64,
    /// Connections at a time.
    pub streams: u32,
    /// Share of the link's speed, in percent, under which the throughput of either way fails.
    pub throughput_percent_min: f64,
    /// Mb/s under which the throughput of either way fails.
    pub rate_min_mbps: Option<f64>,
    /// Share of the segments, in percent, over which those that were sent again fail.
    pub retransmits_percent_max: f64,
    /// The same, over which they warn.
    pub retransmits_percent_warn: f64,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NetworkPeer {
    /// Its address or name; `orchestrator` is the iperf3 that serves beside the orchestrator.
    pub host: String,
    /// Where its iperf3 listens.
    #[serde(default = "port")]
    pub port: u16,
    /// Speed of its link: one slower than the node's own proves nothing of it, and where it is not said, neither does too little.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_mbps: Option<u32>,
}

fn port() -> u16 {
    PORT
}

impl Default for NetworkSettings {
    fn default() -> Self {
        NetworkSettings {
            peers: Vec::new(),
            links_min: None,
            link_speed_min_mbps: None,
            duration: 10_000,
            streams: 4,
            throughput_percent_min: 80.0,
            rate_min_mbps: None,
            retransmits_percent_max: 1.0,
            retransmits_percent_warn: 0.1,
        }
    }
}

/// Reads `[stage.network]`.
pub(super) fn network(field: Field<'_>) -> Result<NetworkSettings, BadProfile> {
    let part = field.table(&KEYS)?;
    let default = NetworkSettings::default();
    let share = |key: &str, by_default: f64| -> Result<f64, BadProfile> {
        Ok(part.optional(key, percent)?.unwrap_or(by_default))
    };
    Ok(NetworkSettings {
        peers: part.optional("peer", peers)?.unwrap_or_default(),
        links_min: part.optional("links_min", |field| field.whole(1..=LINKS_MAX))?,
        link_speed_min_mbps: part.optional("link_speed_min_mbps", |field| field.whole(1..=SPEED_MBPS_MAX))?,
        duration: part
            .optional("duration", |field| field.span_ms(LOAD_MS_MIN..=SPAN_MS_MAX))?
            .unwrap_or(default.duration),
        streams: part.optional("streams", |field| field.whole(1..=STREAMS_MAX))?.unwrap_or(default.streams),
        throughput_percent_min: share("throughput_percent_min", default.throughput_percent_min)?,
        rate_min_mbps: part.optional("rate_min_mbps", |field| field.number(0.0..=NUMBER_MAX))?,
        retransmits_percent_max: share("retransmits_percent_max", default.retransmits_percent_max)?,
        retransmits_percent_warn: share("retransmits_percent_warn", default.retransmits_percent_warn)?,
    })
}

fn peers(field: Field<'_>) -> Result<Vec<NetworkPeer>, BadProfile> {
    let mut peers: Vec<NetworkPeer> = Vec::new();
    for item in field.items("an array of tables", PEERS_MAX)? {
        let part = item.table(&PEER_KEYS)?;
        let host = part.needed("host", "the address or name of a peer")?.text_of(
            "an IP address or a name: 1 to 253 of a-z, A-Z, 0-9, '.', '-' and ':', no '-' first",
            is_host,
        )?;
        let port = part.optional("port", |field| field.whole(1..=u32::from(u16::MAX)))?;
        let peer = NetworkPeer {
            host,
            port: port.and_then(|port| u16::try_from(port).ok()).unwrap_or(PORT),
            speed_mbps: part.optional("speed_mbps", |field| field.whole(1..=SPEED_MBPS_MAX))?,
        };
        if peers.iter().any(|known| (&known.host, known.port) == (&peer.host, peer.port)) {
            return Err(part.refuse_at(
                "host",
                &format!("\"{}\" a second time", peer.host),
                "each peer once",
            ));
        }
        peers.push(peer);
    }
    Ok(peers)
}

/// One that no program can take for an option.
fn is_host(text: &str) -> bool {
    (1..=HOST_BYTES_MAX).contains(&text.len())
        && !text.starts_with('-')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte))
}
