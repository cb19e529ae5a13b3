//! Heartbeats per second, and how long one takes, beside a bare route of axum's under the same TLS.

use anyhow::{Context, Result};

use crate::bare_axum::BareAxum;
use crate::figures::Figure;
use crate::fleet::{Member, heartbeat_body};
use crate::load::drive::Window;
use crate::load::{Answer, Connector, Lane, Round, Work, run_round};

/// The same request again and again.
struct Beats {
    request: Vec<u8>,
}

impl Work for Beats {
    fn request(&mut self) -> Option<&[u8]> {
        Some(&self.request)
    }

    fn answered(&mut self, answer: Answer<'_>) -> Result<()> {
        answer.good().map(|_body| ())
    }
}

/// One connection for each of some members of the fleet.
async fn lanes(connector: &Connector, members: &[Member]) -> Result<Vec<Lane<Beats>>> {
    let body = heartbeat_body()?;
    let mut lanes = Vec::with_capacity(members.len());
    for member in members {
        let request = member.caller.request("POST", &member.path("heartbeat"), &body);
        lanes.push(Lane { connection: connector.open().await?, work: Beats { request } });
    }
    Ok(lanes)
}

/// What a heartbeat is answered.
pub async fn answer(connector: &Connector, member: &Member) -> Result<String> {
    let request = member.caller.request("POST", &member.path("heartbeat"), &heartbeat_body()?);
    let mut connection = connector.open().await?;
    let answer = connection.call(&request).await?;
    String::from_utf8(answer.good()?.to_vec()).context("the answer to a heartbeat is no text")
}

/// Measures `rounds` windows of each in turns, with a connection for each of `members`.
pub async fn measure(
    server: &Connector,
    bare: &BareAxum,
    members: &[Member],
    rounds: usize,
    window: Window,
) -> Result<Vec<Figure>> {
    let mut own_lanes = lanes(server, members).await?;
    let mut bare_lanes = lanes(&bare.connector, members).await?;
    let mut pairs = Vec::with_capacity(rounds);
    for _round in 0..rounds {
        let own = run_round(&mut own_lanes, window).await.context("sending heartbeats")?;
        let limit = run_round(&mut bare_lanes, window).await.context("calling the bare route")?;
        pairs.push((own, limit));
    }
    let figure = |name: &str, unit: &'static str, of: &dyn Fn(&Round) -> f64| {
        let pairs: Vec<(f64, f64)> = pairs.iter().map(|(own, limit)| (of(own), of(limit))).collect();
        let own: Vec<f64> = pairs.iter().map(|(own, _limit)| *own).collect();
        Figure::new(name, unit, &own).beside("bare axum route", &pairs)
    };
    Ok(vec![
        figure("heartbeats", "per second", &Round::per_second).at_least_of_limit(0.5, "half"),
        figure("heartbeat p50", "µs", &|round| round.percentile_us(0.5)),
        figure("heartbeat p99", "µs", &|round| round.percentile_us(0.99)),
    ])
}
