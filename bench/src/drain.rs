//! How long it takes from a drain marker to an agent that drains. Nothing is asked of the agent meanwhile: a question would
//! have it look at once.

use std::io::{BufRead, BufReader, PipeReader};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use groundcrew_protocol::ids::TokenText;

use crate::figures::Figure;
use crate::process::Service;

/// Target of every single one, in milliseconds.
const LATENCY_MS: f64 = 1_500.0;
/// Markers that are written, each at another moment of the agent's second.
const MARKERS: u32 = 16;
/// What the agent looks every.
const SECOND: Duration = Duration::from_secs(1);

/// Writes markers for an agent that finds no orchestrator, and waits each time for its word. Blocks.
pub fn measure(agent: &Path, folder: &Path) -> Result<Figure> {
    let home = folder.join("drained");
    let (said, says) = std::io::pipe().context("making a pipe")?;
    let mut command = Command::new(agent);
    command
        .arg("agent")
        .args(["--url", "https://127.0.0.1:1", "--run", "r-7f3k9q2m"])
        .arg("--home")
        .arg(&home);
    command.args(["--fpr", &"0".repeat(64)]).stderr(says);
    command.env("GROUNDCREW_TOKEN", TokenText::boot([7; 32]).as_str());
    let (service, out) = Service::start(command, "groundcrew")?;
    // It prints nothing there; the pipe must not fill up all the same.
    let reader = std::thread::spawn(move || out.map_while(std::io::Result::ok).count());
    let mut said = BufReader::new(said);
    // Something that comes after the first look.
    wait_for_line(&mut said, "hello")?;
    let marker = home.join(".drain_request.json");
    let mut rounds = Vec::new();
    for round in 0..MARKERS {
        // The word before came with a look: from there on each round begins a little later.
        std::thread::sleep(SECOND * round / MARKERS);
        let began = Instant::now();
        std::fs::write(&marker, "{}").context("writing the marker")?;
        wait_for_line(&mut said, "drains, asked for by")?;
        rounds.push(began.elapsed().as_secs_f64() * 1000.0);
        std::fs::remove_file(&marker).context("removing the marker")?;
        wait_for_line(&mut said, "the drain is over")?;
    }
    service.stop()?;
    reader.join().ok().context("reading what the agent printed")?;
    Ok(Figure::new("from a drain marker to an agent that drains", "ms", &rounds).highest_under(LATENCY_MS))
}

fn wait_for_line(said: &mut BufReader<PipeReader>, part: &str) -> Result<()> {
    for line in said.lines() {
        if line.context("reading what the agent says")?.contains(part) {
            return Ok(());
        }
    }
    bail!("the agent ended without a line that holds {part:?}")
}
