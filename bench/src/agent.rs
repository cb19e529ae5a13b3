//! An agent that has nothing to do: its memory, and the size of its binary.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use groundcrew_protocol::operator::RunView;
use groundcrew_protocol::stage::State;

use crate::figures::Figure;
use crate::fleet::{call, create_run_here};
use crate::memory::MEGABYTE;
use crate::process::{Memory, Service, memory_of};
use crate::server::Server;

/// Targets in megabytes.
const RESIDENT_MEGABYTES: f64 = 8.0;
const BINARY_MEGABYTES: f64 = 6.0;
/// Its run must hold or end within this: one inventory.
const IDLE_WITHIN: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Looks in a row that find the same, over more than one heartbeat.
const SAME_LOOKS: u32 = 15;
/// Looks after which it counts as unsettled, and the last one stands.
const LOOKS_MAX: u32 = 60;

/// Size of the binary as it is shipped.
pub fn size(binary: &Path) -> Result<Figure> {
    let bytes = std::fs::metadata(binary).with_context(|| format!("looking at {}", binary.display()))?.len();
    Ok(Figure::new("agent's release binary", "MB", &[bytes as f64 / MEGABYTE]).under(BINARY_MEGABYTES))
}

/// Memory of an agent whose run is held or has ended. The run is made for a node with this number.
pub async fn idle(server: &Server, binary: &Path, folder: &Path, index: usize) -> Result<Figure> {
    let mut connection = server.connector.open().await?;
    let created = create_run_here(server, &mut connection, index).await?;
    let log = std::fs::File::create(folder.join("groundcrew.log")).context("making the agent's log")?;
    let mut command = Command::new(binary);
    command.arg("agent").args(["--url", &server.url(), "--run", created.run.as_str()]);
    command.args(["--fpr", server.fingerprint.as_str()]).arg("--home").arg(folder.join("agent"));
    command.env("GROUNDCREW_TOKEN", created.boot_token.as_str()).stderr(log.try_clone()?);
    let (service, lines) = Service::start(command, "groundcrew")?;
    // What it prints is no part of the measurement; the pipe must not fill up.
    let reader = std::thread::spawn(move || lines.map_while(std::io::Result::ok).count());
    wait_until_idle(server, &mut connection, created.run.as_str()).await.with_context(|| said(folder))?;
    let settled = settle(service.pid()).await?;
    service.stop()?;
    ensure!(reader.join().is_ok(), "reading what the agent printed");
    let name = "idle agent's resident memory";
    Ok(Figure::new(name, "MB", &[settled.resident as f64 / MEGABYTE]).under(RESIDENT_MEGABYTES))
}

fn said(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join("groundcrew.log")).unwrap_or_default();
    format!("waiting for the agent to be idle; what it said is:\n{text}")
}

async fn wait_until_idle(
    server: &Server,
    connection: &mut crate::load::connection::Connection,
    run: &str,
) -> Result<()> {
    let (path, began) = (format!("/api/v1/runs/{run}"), Instant::now());
    loop {
        let view: RunView = call(connection, &server.operator, "GET", &path, b"").await?;
        match view.summary.state {
            State::FailedHolding | State::Completed | State::Cancelled => return Ok(()),
            State::At(stage) if began.elapsed() > IDLE_WITHIN => {
                bail!("its run still stands at {stage} after {} s", IDLE_WITHIN.as_secs())
            }
            State::At(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn settle(pid: u32) -> Result<Memory> {
    let mut last = memory_of(pid)?;
    let mut same = 0;
    for _look in 0..LOOKS_MAX {
        tokio::time::sleep(LOOK).await;
        let now = memory_of(pid)?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
        if same == SAME_LOOKS {
            break;
        }
    }
    Ok(last)
}
