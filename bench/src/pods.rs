//! How long it takes until an orchestrator knows the agents of a cluster's pods: listed in pages, brought together in one
//! pass, stored. Beside it, the same pages fetched and read as JSON by nobody who does anything with them.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bare_cluster::BareCluster;
use crate::figures::Figure;
use crate::memory::MEGABYTE;
use crate::server::{Place, Server};

/// Pods of agents.
const PODS: usize = 5_000;
/// Target, in seconds.
const SECONDS: f64 = 2.0;
/// How often the orchestrator is asked whether it is done: little beside what is measured.
const ASK_AGAIN: Duration = Duration::from_millis(5);
/// A round that takes longer has failed.
const ROUND_MAX: Duration = Duration::from_secs(60);

/// Measures as many rounds, each with an orchestrator that has never seen the cluster.
pub async fn measure(binary: &Path, folder: &Path, rounds: usize) -> Result<Vec<Figure>> {
    let cluster = BareCluster::start(PODS, folder)?;
    let (mut pairs, mut resident) = (Vec::with_capacity(rounds), Vec::with_capacity(rounds));
    for round in 0..rounds {
        let place = Place { binary: binary.to_owned(), folder: folder.join(format!("pods-{round}")) };
        std::fs::create_dir(&place.folder).context("making a folder for an orchestrator")?;
        let server = Server::start_with(&place, &["--kubernetes".into(), cluster.kubeconfig.clone().into()])?;
        let known = wait_until_known(&server).await?;
        let asked = cluster.take_asked().context("the cluster was never asked for its pods")?;
        resident.push(server.memory()?.resident as f64 / MEGABYTE);
        server.stop()?;
        pairs.push(((known - asked).as_secs_f64(), cluster.fetch_all().await?));
        cluster.take_asked();
    }
    let own: Vec<f64> = pairs.iter().map(|(own, _limit)| *own).collect();
    let name = format!("{PODS} pods, listed in pages, known after one pass");
    let time = Figure::new(&name, "s", &own).beside("their pages fetched and read as JSON", &pairs);
    let memory = format!("orchestrator's memory with {PODS} pods observed");
    Ok(vec![time.under(SECONDS), Figure::new(&memory, "MB", &resident)])
}

/// Waits until a pass has taken all of them and stored them. When that was seen.
async fn wait_until_known(server: &Server) -> Result<Instant> {
    let began = Instant::now();
    let mut connection = server.connector.open().await?;
    let request = server.operator.request("GET", "/api/v1/tasks", b"");
    let wanted = format!("{PODS} agents;");
    loop {
        let tasks: Value = serde_json::from_slice(connection.call(&request).await?.good()?)?;
        let now = Instant::now();
        let tasks = tasks.as_array().context("tasks are a list")?;
        let agents = tasks.iter().find(|task| task["name"] == "agents").context("there is a task agents")?;
        if agents["said"].as_str().is_some_and(|said| said.starts_with(&wanted)) {
            // It is what one pass found, and there was none before that found a part of them.
            return Ok(now);
        }
        ensure!(began.elapsed() < ROUND_MAX, "the agents of {PODS} pods are not known: {tasks:?}");
        tokio::time::sleep(ASK_AGAIN).await;
    }
}
