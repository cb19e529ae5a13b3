//! Durable results per second, beside bare inserts of rows of the same size, committed in groups.
//!
//! Each result is the first of its attempt: it is judged, moves its run to the next stage, and is answered only once
//! all of that is committed.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::bare_inserts::BareInserts;
use crate::figures::{Figure, median};
use crate::fleet::Member;
use crate::load::drive::Window;
use crate::load::{Answer, Connector, Lane, Work, run_round};

/// What the answer to a result that counts has in it.
const FIRST: &[u8] = b"\"taken\":\"first\"";

/// Walks runs to their ends, one after the other.
struct Walks {
    members: VecDeque<Member>,
    bodies: Arc<Vec<Vec<u8>>>,
    at: usize,
    request: Vec<u8>,
}

impl Work for Walks {
    fn request(&mut self) -> Option<&[u8]> {
        if self.at == self.bodies.len() {
            self.members.pop_front();
            self.at = 0;
        }
        let member = self.members.front()?;
        member.caller.write(&mut self.request, "POST", &member.path("result"), &self.bodies[self.at]);
        self.at += 1;
        Some(&self.request)
    }

    fn answered(&mut self, answer: Answer<'_>) -> Result<()> {
        let body = answer.good()?;
        let is_first = body.windows(FIRST.len()).any(|part| part == FIRST);
        ensure!(is_first, "a result did not count: {}", String::from_utf8_lossy(body));
        Ok(())
    }
}

/// Measures `rounds` windows of each in turns. The runs of `members` end by it. `bodies` are those of one run's results.
pub async fn measure(
    server: &Connector,
    folder: &Path,
    members: Vec<Member>,
    bodies: Vec<Vec<u8>>,
    connections: usize,
    rounds: usize,
    window: Window,
) -> Result<Figure> {
    let lengths: Vec<f64> = bodies.iter().map(|body| body.len() as f64).collect();
    let row = "x".repeat(median(&lengths) as usize);
    let mut shares: Vec<VecDeque<Member>> = (0..connections).map(|_lane| VecDeque::new()).collect();
    for (index, member) in members.into_iter().enumerate() {
        shares[index % connections].push_back(member);
    }
    let bodies = Arc::new(bodies);
    let mut lanes = Vec::with_capacity(connections);
    for members in shares {
        let work = Walks { members, bodies: bodies.clone(), at: 0, request: Vec::new() };
        lanes.push(Lane { connection: server.open().await?, work });
    }
    let row_bytes = row.len();
    // No commit of the orchestrator's can hold more results than there are connections that wait for theirs.
    let mut bare = BareInserts::open(folder, row, connections).await?;
    let mut pairs = Vec::with_capacity(rounds);
    for _round in 0..rounds {
        let own = run_round(&mut lanes, window).await.context("sending results")?;
        let limit = bare.run_round(window).await?;
        pairs.push((own.per_second(), limit.per_second()));
    }
    bare.close().await?;
    let own: Vec<f64> = pairs.iter().map(|(own, _limit)| *own).collect();
    let beside = format!("bare inserts of {row_bytes} bytes, {connections} a commit");
    Ok(Figure::new("durable results", "per second", &own)
        .beside(&beside, &pairs)
        .at_least(3000.0)
        .at_least_of_limit(1.0 / 3.0, "a third"))
}
