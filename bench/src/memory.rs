//! Memory of the orchestrator with many claimed runs and open connections, and what one connection costs.

use anyhow::{Context, Result};

use crate::figures::Figure;
use crate::fleet::{Member, heartbeat_body};
use crate::load::connection::Connection;
use crate::server::Server;

/// A megabyte as it is sold and as limits are meant here.
pub const MEGABYTE: f64 = 1e6;
/// Target: megabytes.
const MEGABYTES: f64 = 300.0;

/// What was measured.
pub struct Found {
    /// All of the memory, with the connections open.
    pub total: Figure,
    /// What one of them costs.
    pub each: Figure,
}

/// Opens a connection for each of `members`, with a heartbeat over each, and looks at the server before and after.
/// `runs` is how many it knows of; `when` ends the name of the figure.
pub async fn measure(server: &Server, members: &[Member], runs: usize, when: &str) -> Result<Found> {
    let before = server.memory()?;
    let mut connections: Vec<Connection> = Vec::with_capacity(members.len());
    let body = heartbeat_body()?;
    for member in members {
        let mut connection = server.connector.open().await?;
        let request = member.caller.request("POST", &member.path("heartbeat"), &body);
        connection.call(&request).await?.good().context("a heartbeat over a fresh connection")?;
        connections.push(connection);
    }
    let after = server.memory()?;
    let count = connections.len();
    let each = (after.anonymous as f64 - before.anonymous as f64) / count as f64;
    let name = format!("orchestrator's memory, {runs} claimed runs, {count} open connections{when}");
    Ok(Found {
        total: Figure::new(&name, "MB", &[after.resident as f64 / MEGABYTE]).under(MEGABYTES),
        each: Figure::new("memory of an open connection", "kB", &[each / 1e3]),
    })
}
