//! iperf3 as a client, and what it says in JSON (`-J`), checked against iperf 3.12. Reading is pure.
//!
//! Its exit status tells nothing: it is 0 also where the connection was refused. Only a report without `error`, with both
//! sides' sums in it, is a measurement.

use std::ffi::OsString;
use std::net::IpAddr;

use groundcrew_protocol::check::{Limit, Observation};
use groundcrew_protocol::profile::{NetworkPeer, NetworkSettings};
use serde_json::Value;

/// How far bytes over time may be from the rate.
const CONTRADICTION: f64 = 0.02;

/// A thread that uses this much of a CPU has no more: the rest goes to the kernel's own work for it.
const CPU_BUSY_PERCENT: f64 = 90.0;
/// All of a CPU, and what its use may be rounded up by.
const CPU_FULL_PERCENT: f64 = 100.0;
const CPU_ROUNDING_PERCENT: f64 = 5.0;
/// The first version with a thread for each stream.
const FIRST_THREADED: (u32, u32) = (3, 16);

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From here to the peer.
    Send,
    /// From the peer to here.
    Receive,
}

impl Way {
    /// For names of files.
    pub fn word(self) -> &'static str {
        match self {
            Way::Send => "send",
            Way::Receive => "receive",
        }
    }
}

/// What went one way.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Flow {
    /// What arrived, in Mb/s.
    pub mbps: f64,
    /// How long, by the receiver's clock.
    pub seconds: f64,
    /// Segments that were sent again.
    pub retransmits_percent: Result<f64, String>,
    /// The address that was spoken from.
    pub local: IpAddr,
    /// The peer's.
    pub remote: IpAddr,
    /// Whose iperf3 had no more of a CPU to use.
    pub busy: Option<String>,
}

impl Flow {
    /// What was observed, unless it is a rate that fails and iperf3 itself may be why.
    pub fn unless_busy(&self, observed: Observation, limit: &Limit) -> Observation {
        let is_slow = |value: f64| limit.fail_below.is_some_and(|least| value < least);
        match (&self.busy, &observed) {
            (Some(busy), Observation::Measured { value: Some(value), unit, .. }) if is_slow(*value) => {
                Observation::Unreadable { why: format!("{value:.1} {unit}, but {busy}") }
            }
            _ => observed,
        }
    }
}

/// The command line.
pub(super) fn arguments(settings: &NetworkSettings, peer: &NetworkPeer, way: Way) -> Vec<OsString> {
    let seconds = settings.duration.div_ceil(1000).max(1).to_string();
    let (port, streams) = (peer.port.to_string(), settings.streams.to_string());
    // One interval: a report of each second of a day is more than anybody reads.
    let mut arguments: Vec<OsString> = [
        "-J",
        "-c",
        &peer.host,
        "-p",
        &port,
        "-t",
        &seconds,
        "-P",
        &streams,
        "--connect-timeout",
        "5000",
        "-i",
        "0",
    ]
    .map(OsString::from)
    .to_vec();
    if way == Way::Receive {
        arguments.push("-R".into());
    }
    arguments
}

/// True for the error by which a server says that it speaks with another client. It has no code of its own.
pub(super) fn is_busy(why: &str) -> bool {
    why.contains("the server is busy running a test")
}

/// Reads a report.
///
/// # Errors
/// Why nothing was measured, in iperf3's own words where it has some.
pub(super) fn flow(stdout: &[u8], way: Way, streams: u32) -> Result<Flow, String> {
    let json: Value =
        serde_json::from_slice(stdout).map_err(|error| format!("iperf3 printed no JSON: {error}"))?;
    match json.get("error") {
        None => {}
        Some(Value::String(error)) => return Err(format!("iperf3 measured nothing: {error}")),
        Some(other) => return Err(format!("iperf3 measured nothing: {other}")),
    }
    let number = |pointer: &str| {
        let number = json.pointer(pointer).and_then(Value::as_f64);
        number
            .filter(|number| number.is_finite() && *number >= 0.0)
            .ok_or_else(|| format!("iperf3 says no number under {pointer}"))
    };
    let is_reverse = number("/start/test_start/reverse")? > 0.0;
    if is_reverse != (way == Way::Receive) || number("/start/test_start/num_streams")? != f64::from(streams) {
        return Err("iperf3 tells of another test than it was asked for".to_owned());
    }
    let connected = json.pointer("/start/connected").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let address = |key: &str| connected.first().and_then(|first| first.get(key)?.as_str()?.parse().ok());
    let local = address("local_host").ok_or("iperf3 does not say which address it spoke from")?;
    let remote = address("remote_host").ok_or("iperf3 does not say which address it spoke with")?;
    let (bits, bytes) = (number("/end/sum_received/bits_per_second")?, number("/end/sum_received/bytes")?);
    let seconds = number("/end/sum_received/seconds")?;
    let expected = bytes * 8.0 / seconds;
    if bytes <= 0.0 || seconds <= 0.0 || (bits - expected).abs() > CONTRADICTION * expected.max(bits) {
        return Err(format!("iperf3 says {bytes} bytes in {seconds} s and {bits} bits per second"));
    }
    let retransmits_percent = number("/end/sum_sent/retransmits").and_then(|retransmits| {
        let segments = number("/end/sum_sent/bytes")? / number("/start/tcp_mss_default")?;
        match segments.is_finite() && segments > 0.0 {
            true => Ok((retransmits / segments * 100.0).min(100.0)),
            false => Err("iperf3 does not say how large its segments were".to_owned()),
        }
    });
    Ok(Flow { mbps: bits / 1e6, seconds, retransmits_percent, local, remote, busy: busy(&json, streams) })
}

/// Whose iperf3 ran out of CPU. Before 3.16 it serves all streams in one thread; from then on each has its own.
fn busy(json: &Value, streams: u32) -> Option<String> {
    let version = json.pointer("/start/version").and_then(Value::as_str).unwrap_or_default();
    let used = |whose: &str| {
        json.pointer(&format!("/end/cpu_utilization_percent/{whose}_total")).and_then(Value::as_f64)
    };
    // The peer's version is not said: more than one CPU can be used only by more than one thread.
    let (here, there) = (used("host"), used("remote"));
    let is_threaded_there = there.is_some_and(|percent| percent > CPU_FULL_PERCENT + CPU_ROUNDING_PERCENT);
    let sides = [("this node's", here, is_threaded(version)), ("the peer's", there, is_threaded_there)];
    sides.into_iter().find_map(|(whose, used, is_threaded)| {
        let threads = if is_threaded { streams.max(1) } else { 1 };
        let percent = used.filter(|percent| *percent >= CPU_BUSY_PERCENT * f64::from(threads))?;
        let of = if threads > 1 { format!("{threads} threads") } else { "one thread".to_owned() };
        Some(format!("{whose} iperf3 ran out of CPU: it used {percent:.0} % of a CPU in {of}"))
    })
}

/// True from `iperf 3.16` on.
fn is_threaded(version: &str) -> bool {
    let numbers = version.strip_prefix("iperf ").and_then(|rest| rest.split_once('.'));
    numbers.is_some_and(|(major, rest)| {
        let minor = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        let (major, minor) = (major.parse::<u32>().unwrap_or(0), minor.parse::<u32>().unwrap_or(0));
        (major, minor) >= FIRST_THREADED
    })
}
