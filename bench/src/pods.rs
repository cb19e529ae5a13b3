//! How long it takes until an orchestrator knows the agents of a cluster's pods: listed in pages, brought together in one
//! pass, stored; then the same where it shares their homes, and the files of those that ended are to say so. Beside it, the
//! same pages fetched and read as JSON, and the same files read and replaced, by nobody who does anything else.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bare_cluster::{BareCluster, NAMESPACE, has_ended, name_of, uid_of};
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
    let (mut alone, mut sharing) = (Found::default(), Found::default());
    for round in 0..rounds {
        let place = |kind: &str| -> Result<Place> {
            let place =
                Place { binary: binary.to_owned(), folder: folder.join(format!("pods-{kind}-{round}")) };
            fs::create_dir(&place.folder).context("making a folder for an orchestrator")?;
            Ok(place)
        };
        alone.take(&cluster, &place("alone")?, None).await?;
        let place = place("sharing")?;
        let homes = Homes::make(&place.folder.join("homes"))?;
        sharing.take(&cluster, &place, Some(&homes)).await?;
    }
    let ended = (0..PODS).filter(|number| is_to_be_corrected(*number)).count();
    let mut figures = alone.figures(
        &format!("{PODS} pods, listed in pages, known after one pass"),
        "their pages fetched and read as JSON",
        &format!("orchestrator's memory with {PODS} pods observed"),
    );
    figures.extend(sharing.figures(
        &format!(
            "{PODS} pods, listed in pages, known after one pass that corrects the files of {ended} that ended"
        ),
        "their pages and files read as JSON, those files replaced and synced",
        &format!("orchestrator's memory with {PODS} pods observed, whose homes it shares"),
    ));
    Ok(figures)
}

/// What rounds of one kind found.
#[derive(Default)]
struct Found {
    /// Seconds, with those of the limit.
    pairs: Vec<(f64, f64)>,
    resident: Vec<f64>,
}

impl Found {
    async fn take(&mut self, cluster: &BareCluster, place: &Place, homes: Option<&Homes>) -> Result<()> {
        let mut more: Vec<OsString> = vec!["--kubernetes".into(), cluster.kubeconfig.clone().into()];
        if let Some(homes) = homes {
            more.extend(["--agent-homes".into(), homes.template()]);
        }
        let server = Server::start_with(place, &more)?;
        let known = wait_until_known(&server, homes).await?;
        let asked = cluster.take_asked().context("the cluster was never asked for its pods")?;
        self.resident.push(server.memory()?.resident as f64 / MEGABYTE);
        server.stop()?;
        let mut limit = cluster.fetch_all().await?;
        if let Some(homes) = homes {
            limit += homes.replace_those_that_ended()?;
        }
        self.pairs.push(((known - asked).as_secs_f64(), limit));
        cluster.take_asked();
        Ok(())
    }

    fn figures(&self, name: &str, limit: &str, memory: &str) -> Vec<Figure> {
        let own: Vec<f64> = self.pairs.iter().map(|(own, _limit)| *own).collect();
        let time = Figure::new(name, "s", &own).beside(limit, &self.pairs).under(SECONDS);
        vec![time, Figure::new(memory, "MB", &self.resident)]
    }
}

/// Whether the file of an agent that ended does not say so yet: one of ten did while nobody looked. Each costs two syncs
/// of the disk, whoever writes it.
fn is_to_be_corrected(number: usize) -> bool {
    has_ended(number) && number % 100 == 99
}

/// The homes of all agents, each with its file.
struct Homes {
    folder: PathBuf,
}

impl Homes {
    fn make(folder: &Path) -> Result<Homes> {
        let homes = Homes { folder: folder.to_owned() };
        for number in 0..PODS {
            let (phase, activity, detail) = match has_ended(number) && !is_to_be_corrected(number) {
                true => ("error", "", "OOMKilled: its container ended with exit status 137"),
                false => ("running", "executing", "47 % CPUStress: 64 workers"),
            };
            let said = json!({"phase": phase, "activity": activity, "detail": detail, "runtime": "kubernetes", "runtime_id": uid_of(number), "run": format!("r-{number:012}"),
                "stage": "CPUStress", "attempt": 1, "claim": 1, "session": format!("{number:032x}")});
            let path = homes.file(number);
            fs::create_dir_all(path.parent().context("a file lies in a home")?)?;
            fs::write(path, said.to_string()).context("writing an agent's file")?;
        }
        Ok(homes)
    }

    fn template(&self) -> OsString {
        self.folder.join("{namespace}/{agent}").into()
    }

    fn file(&self, number: usize) -> PathBuf {
        self.folder.join(NAMESPACE).join(name_of(number)).join("agent-info.json")
    }

    fn said(&self, number: usize) -> Result<Value> {
        let path = self.file(number);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Whether the file of an agent that ended says so.
    fn says_so(&self, number: usize) -> Result<bool> {
        Ok(self.said(number)?["phase"] == "error")
    }

    /// The limit: all files read, and those of who ended written anew as durably as one that another boot will read.
    /// Seconds.
    fn replace_those_that_ended(&self) -> Result<f64> {
        let began = Instant::now();
        for number in 0..PODS {
            let said = self.said(number)?;
            if is_to_be_corrected(number) {
                let path = self.file(number);
                let (home, beside) =
                    (path.parent().context("a file lies in a home")?, path.with_extension("new"));
                let mut file = File::create(&beside)?;
                file.write_all(said.to_string().as_bytes())?;
                file.sync_all()?;
                fs::rename(&beside, &path)?;
                File::open(home)?.sync_all()?;
            }
        }
        Ok(began.elapsed().as_secs_f64())
    }
}

/// Waits until a pass has taken all of them, corrected the files and stored what it knows. When that was seen.
async fn wait_until_known(server: &Server, homes: Option<&Homes>) -> Result<Instant> {
    let began = Instant::now();
    let mut connection = server.connector.open().await?;
    let request = server.operator.request("GET", "/api/v1/tasks", b"");
    let wanted = format!("{PODS} agents;");
    // Those whose files are to be corrected; without homes nothing is.
    let mut left: Vec<usize> =
        (0..PODS).filter(|number| homes.is_some() && is_to_be_corrected(*number)).collect();
    // Passes when not all files were corrected yet: that which corrects the last is none of them.
    let mut before = 0;
    loop {
        let tasks: Value = serde_json::from_slice(connection.call(&request).await?.good()?)?;
        let now = Instant::now();
        let tasks = tasks.as_array().context("tasks are a list")?;
        // Before its first pass it has said nothing.
        let agents = tasks.iter().find(|task| task["name"] == "agents");
        let passes = agents.and_then(|task| task["passes"].as_u64()).unwrap_or_default();
        let said = agents.and_then(|task| task["said"].as_str());
        let knows_all = said.is_some_and(|said| said.starts_with(&wanted));
        if knows_all && left.is_empty() && passes > before {
            // It is what one pass found, and there was none before that found a part of them.
            return Ok(now);
        }
        if let (Some(homes), false) = (homes, left.is_empty()) {
            while let Some(number) = left.last() {
                if !homes.says_so(*number)? {
                    before = passes;
                    break;
                }
                left.pop();
            }
        }
        ensure!(began.elapsed() < ROUND_MAX, "the agents of {PODS} pods are not known: {tasks:?}");
        tokio::time::sleep(ASK_AGAIN).await;
    }
}
