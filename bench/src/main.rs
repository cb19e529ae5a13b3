//! `groundcrew-bench`, which `cargo xtask bench` runs: what the orchestrator and the agent can do on this machine, each
//! figure beside a limit that was measured in the same run. The load generator shares the machine with them.
//!
//! It is a benchmark and no test: a target that was missed is said, and the exit code is 0.

mod agent;
mod apply;
mod bare_axum;
mod bare_cluster;
mod bare_inserts;
mod drain;
mod figures;
mod fleet;
mod heartbeats;
mod load;
mod logs;
mod machine;
mod memory;
mod package;
mod peak;
mod pods;
mod process;
mod results;
mod server;
mod step_output;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand, ValueEnum};

use bare_axum::BareAxum;
use figures::{Figure, Report};
use fleet::Member;
use load::drive::Window;
use machine::Machine;
use server::{Place, Server};

/// Runs whose stages end while results are measured, at least: three windows must not use them up.
const RESULT_RUNS_MIN: usize = 40_000;

/// Before each window, uncounted.
const WARM_UP: Duration = Duration::from_millis(300);

/// Measures the orchestrator and the agent on this machine.
#[derive(Debug, Parser)]
#[command(name = "groundcrew-bench", version)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Windows of each measurement; medians are shown.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// Length of a window. Idle connections live for 30 s, and those of a limit are idle for a window.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=20))]
    seconds: u64,
    /// Claimed runs.
    #[arg(long, default_value_t = 10_000)]
    runs: usize,
    /// Connections that stay open while memory is measured.
    #[arg(long, default_value_t = 1_000)]
    open: usize,
    /// Connections that send heartbeats.
    #[arg(long, default_value_t = 64)]
    heartbeat_connections: usize,
    /// Connections that send results.
    #[arg(long, default_value_t = 256)]
    result_connections: usize,
    /// Connections that send logs.
    #[arg(long, default_value_t = 64)]
    log_connections: usize,
    /// Measure these alone.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = What::ALL)]
    only: Vec<What>,
    /// Folder for the data of what is measured; a folder in it is made and removed. Default: that of this program.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the figures as a table in Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// A process that the benchmark starts.
#[derive(Debug, Subcommand)]
enum Part {
    /// Serves the bare route until standard input closes.
    #[command(hide = true)]
    BareAxum {
        /// What every call is answered.
        #[arg(long)]
        answer: String,
    },
    /// Runs a program and writes the most memory that it had into a file.
    #[command(hide = true)]
    PeakOf {
        /// The file.
        into: PathBuf,
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Heartbeats,
    Logs,
    Memory,
    Pods,
    Results,
    Agent,
    StepOutput,
    Apply,
    Drain,
}

impl What {
    const ALL: [What; 9] = [
        What::Heartbeats,
        What::Logs,
        What::Memory,
        What::Pods,
        What::Results,
        What::Agent,
        What::StepOutput,
        What::Apply,
        What::Drain,
    ];

    /// Whether it needs no orchestrator with a fleet.
    fn needs_no_fleet(self) -> bool {
        match self {
            What::Pods | What::StepOutput | What::Apply | What::Drain => true,
            What::Heartbeats | What::Logs | What::Memory | What::Results | What::Agent => false,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.part {
        Some(Part::BareAxum { answer }) => bare_axum::serve(answer.clone()),
        Some(Part::PeakOf { into, command }) => peak::run(into, command),
        None => run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("groundcrew-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    // One thread: the load generator must not take more of the machine than it needs.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            report = measure(arguments) => show(arguments, &report?),
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("listening for Ctrl-C")?;
                bail!("interrupted")
            }
        }
    })
}

fn show(arguments: &Arguments, report: &Report) -> Result<()> {
    let write = |path: &Option<PathBuf>, text: String| match path {
        Some(path) => std::fs::write(path, text).with_context(|| format!("writing {}", path.display())),
        None => Ok(()),
    };
    write(&arguments.json, serde_json::to_string_pretty(report)? + "\n")?;
    write(&arguments.markdown, report.markdown())?;
    print!("{}", report.table());
    Ok(())
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let own = std::env::current_exe().context("looking for this very program")?;
    let beside = own.parent().context("this program lies in no folder")?.to_owned();
    let binaries = std::env::var_os("GROUNDCREW_BIN_DIR").map_or_else(|| beside.clone(), PathBuf::from);
    let parent = arguments.folder.clone().unwrap_or(beside);
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&parent);
    let folder = folder.with_context(|| format!("making a folder in {}", parent.display()))?;
    let machine = Machine::look(folder.path())?;
    eprintln!("{}", machine.describe());
    if machine.is_in_memory() {
        eprintln!(
            "the data folder is in memory: results and logs cost less there than on a disk; see --folder"
        );
    }
    let place = Place { binary: binaries.join("groundcrewd"), folder: folder.path().to_owned() };
    let mut bench = Bench { arguments, place, figures: Vec::new() };
    bench.measure_agent(&binaries.join("groundcrew")).await?;
    if bench.is_wanted(What::Pods) {
        eprintln!("pods of a cluster");
        let rounds = usize::from(arguments.rounds);
        let figures = pods::measure(&bench.place.binary, &bench.place.folder, rounds).await?;
        bench.figures.extend(figures);
    }
    if arguments.only.iter().any(|what| !what.needs_no_fleet()) {
        bench.measure_all(&binaries.join("groundcrew")).await?;
    }
    let Arguments { rounds, seconds, .. } = arguments;
    Ok(Report {
        machine,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        how: format!(
            "Medians of {rounds} windows of {seconds} s, each beside one of its limit; the load generator, one \
            thread, shares the machine."
        ),
        figures: bench.figures,
    })
}

/// A run of the benchmark.
struct Bench<'a> {
    arguments: &'a Arguments,
    place: Place,
    figures: Vec<Figure>,
}

impl Bench<'_> {
    fn is_wanted(&self, what: What) -> bool {
        self.arguments.only.contains(&what)
    }

    fn window(&self) -> Window {
        Window { warm_up: WARM_UP, counted: Duration::from_secs(self.arguments.seconds) }
    }

    async fn measure_agent(&mut self, agent: &Path) -> Result<()> {
        if self.is_wanted(What::Drain) {
            eprintln!("from a drain marker to an agent that drains");
            let figure = self.aside(agent, drain::measure).await?;
            self.figures.push(figure);
        }
        if self.is_wanted(What::Apply) {
            eprintln!("applying a package");
            let figures = self.aside(agent, apply::measure).await?;
            self.figures.extend(figures);
        }
        if self.is_wanted(What::StepOutput) {
            eprintln!("the output of a step");
            let figures = self.aside(agent, step_output::measure).await?;
            self.figures.extend(figures);
        }
        Ok(())
    }

    /// Measures in a thread of its own and a folder of its own: it waits for processes, and Ctrl-C must still be heard.
    async fn aside<T: Send + 'static>(
        &self,
        agent: &Path,
        measure: fn(&Path, &Path) -> Result<T>,
    ) -> Result<T> {
        let folder = tempfile::Builder::new().prefix("packages-").tempdir_in(&self.place.folder);
        let (agent, folder) = (agent.to_owned(), folder.context("making a folder for packages")?);
        tokio::task::spawn_blocking(move || measure(&agent, folder.path())).await?
    }

    async fn measure_all(&mut self, agent: &Path) -> Result<()> {
        let runs = self.arguments.runs;
        let server = Arc::new(Server::start(&self.place)?);
        let members = self.make_fleet(&server).await?;
        self.measure_calls(&server, &members).await?;
        if self.is_wanted(What::Memory) {
            eprintln!("memory");
            let found =
                memory::measure(&server, self.first(&members, self.arguments.open)?, runs, "").await?;
            self.figures.push(found.total);
        }
        // A fresh process, whose allocator has nothing left over from before.
        stop(server)?;
        let server = Server::start(&self.place)?;
        if self.is_wanted(What::Memory) {
            let open = self.first(&members, self.arguments.open)?;
            let found = memory::measure(&server, open, runs, ", after a restart").await?;
            self.figures.extend([found.total, found.each]);
        }
        if self.is_wanted(What::Results) {
            eprintln!("results");
            let bodies = fleet::walk(&server, runs.max(RESULT_RUNS_MIN)).await?;
            let (count, rounds) = (self.arguments.result_connections, usize::from(self.arguments.rounds));
            let folder = &self.place.folder;
            let window = self.window();
            let figure = results::measure(&server.connector, folder, members, bodies, count, rounds, window);
            self.figures.push(figure.await?);
        }
        if self.is_wanted(What::Agent) {
            eprintln!("an idle agent");
            self.figures.push(agent::size(agent)?);
            self.figures.push(agent::idle(&server, agent, &self.place.folder, runs + 1).await?);
        }
        server.stop()
    }

    async fn make_fleet(&self, server: &Arc<Server>) -> Result<Vec<Member>> {
        let (runs, began) = (self.arguments.runs, Instant::now());
        eprintln!("making {runs} runs");
        fleet::put_profiles(server).await?;
        let members = fleet::make(server, 0, runs).await?;
        eprintln!("made, claimed and heard each in {:.1} s", began.elapsed().as_secs_f64());
        Ok(members)
    }

    /// What has a bare route of axum's as its limit.
    async fn measure_calls(&mut self, server: &Server, members: &[Member]) -> Result<()> {
        let Arguments { heartbeat_connections, log_connections, .. } = *self.arguments;
        let rounds = usize::from(self.arguments.rounds);
        let answer = heartbeats::answer(&server.connector, &members[0]).await?;
        let bare = BareAxum::start(&answer)?;
        if self.is_wanted(What::Heartbeats) {
            eprintln!("heartbeats");
            let members = self.first(members, heartbeat_connections)?;
            let found = heartbeats::measure(&server.connector, &bare, members, rounds, self.window()).await?;
            self.figures.extend(found);
        }
        if self.is_wanted(What::Logs) {
            eprintln!("logs");
            let members = self.first(members, log_connections)?;
            let found = logs::measure(&server.connector, &bare, members, rounds, self.window()).await?;
            self.figures.push(found);
        }
        Ok(())
    }

    fn first<'m>(&self, members: &'m [Member], count: usize) -> Result<&'m [Member]> {
        ensure!(count <= members.len(), "{count} connections need as many runs; give more --runs");
        Ok(&members[..count])
    }
}

fn stop(server: Arc<Server>) -> Result<()> {
    let server = Arc::into_inner(server).context("something still uses the server")?;
    server.stop()
}
