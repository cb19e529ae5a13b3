//! Lines of log per second from many agents, each durable before it is acknowledged, beside a bare route of axum's
//! that takes the same messages under the same TLS and drops them.

use anyhow::{Context, Result, ensure};
use groundcrew_protocol::limits::LOG_CHUNK_BYTES;
use groundcrew_protocol::wire::LogRequest;
use serde_json::json;

use crate::bare_axum::BareAxum;
use crate::figures::Figure;
use crate::fleet::Member;
use crate::load::drive::Window;
use crate::load::{Answer, Connector, Lane, Work, run_round};

/// Bytes of text in a line.
const LINE_BYTES: usize = 100;
/// Lines of a chunk: as many as an agent puts into one when there is much to say.
const LINES: usize = LOG_CHUNK_BYTES / LINE_BYTES;
/// Stands where a message has its number.
const NUMBER: &[u8] = b"18446744073709551615";
const NUMBER_VALUE: u64 = u64::MAX;
/// Target: lines per second.
const LINES_PER_SECOND: f64 = 400_000.0;

/// One stream of chunks.
struct Stream {
    request: Vec<u8>,
    number_at: usize,
    next: u64,
}

impl Work for Stream {
    fn request(&mut self) -> Option<&[u8]> {
        // Blanks before a number are nothing in JSON, so that the message keeps its length.
        let number = format!("{:>width$}", self.next, width = NUMBER.len());
        self.request[self.number_at..self.number_at + NUMBER.len()].copy_from_slice(number.as_bytes());
        self.next += 1;
        Some(&self.request)
    }

    fn answered(&mut self, answer: Answer<'_>) -> Result<()> {
        let body = answer.good()?;
        let is_repeated = body.windows(8).any(|part| part == b"repeated");
        ensure!(!is_repeated, "a chunk was stored before: {}", String::from_utf8_lossy(body));
        Ok(())
    }
}

/// What a tool under load says: its words repeat, its numbers do not.
fn line(member: usize, index: usize) -> String {
    let seed = (member as u64 * 1_000_003 + index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (rate, degrees) = (seed >> 40, seed % 700);
    let text = format!(
        "stress-ng: info: [{}] cpu {:>3}: method matrixprod, pass {index:>6}, {rate:>8} bogo-ops/s, {}.{} C, ok",
        4000 + member,
        seed >> 32 & 127,
        30 + degrees / 10,
        degrees % 10
    );
    format!("{text:<LINE_BYTES$.LINE_BYTES$}")
}

fn message(member: usize) -> Result<Vec<u8>> {
    let lines: Vec<_> = (0..LINES)
        .map(|index| {
            let ts = format!("2026-01-01T12:{:02}:{:02}.{:03}Z", index / 60 % 60, index % 60, index % 1000);
            json!({ "ts": ts, "level": "info", "stage": "CPUStress", "text": line(member, index) })
        })
        .collect();
    let stream = format!("{member:032x}");
    let message = json!({ "claim": 1, "stream": stream, "seq": NUMBER_VALUE, "lines": lines });
    let message: LogRequest = serde_json::from_value(message).context("writing a log message")?;
    Ok(serde_json::to_vec(&message)?)
}

async fn lanes(connector: &Connector, members: &[Member]) -> Result<Vec<Lane<Stream>>> {
    let mut lanes = Vec::with_capacity(members.len());
    for (index, member) in members.iter().enumerate() {
        let request = member.caller.request("POST", &member.path("log"), &message(index)?);
        let number_at = request.windows(NUMBER.len()).position(|part| part == NUMBER);
        let number_at = number_at.context("the message has no number")?;
        let work = Stream { request, number_at, next: 0 };
        lanes.push(Lane { connection: connector.open().await?, work });
    }
    Ok(lanes)
}

/// Measures `rounds` windows of each in turns, with a connection for each of `members`.
pub async fn measure(
    server: &Connector,
    bare: &BareAxum,
    members: &[Member],
    rounds: usize,
    window: Window,
) -> Result<Figure> {
    let mut own_lanes = lanes(server, members).await?;
    let mut bare_lanes = lanes(&bare.connector, members).await?;
    let mut pairs = Vec::with_capacity(rounds);
    for _round in 0..rounds {
        let own = run_round(&mut own_lanes, window).await.context("sending logs")?;
        let limit = run_round(&mut bare_lanes, window).await.context("calling the bare route")?;
        pairs.push((own.per_second() * LINES as f64, limit.per_second() * LINES as f64));
    }
    let own: Vec<f64> = pairs.iter().map(|(own, _limit)| *own).collect();
    let name = format!("log lines of {LINE_BYTES} bytes from {} agents", members.len());
    Ok(Figure::new(&name, "per second", &own)
        .beside("bare axum route that drops them", &pairs)
        .at_least(LINES_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_length_and_differ() {
        let lines: std::collections::HashSet<String> =
            (0..4).flat_map(|member| (0..LINES).map(move |index| line(member, index))).collect();
        assert_eq!(lines.len(), 4 * LINES);
        assert!(lines.iter().all(|line| line.len() == LINE_BYTES));
    }

    #[test]
    fn a_message_keeps_its_length_and_counts() {
        let request = message(3).unwrap();
        let number_at = request.windows(NUMBER.len()).position(|part| part == NUMBER).unwrap();
        let mut stream = Stream { request, number_at, next: 0 };
        for seq in [0, 1, 2] {
            let message: LogRequest = serde_json::from_slice(stream.request().unwrap()).unwrap();
            assert_eq!((message.seq, message.lines.len()), (seq, LINES));
        }
    }
}
