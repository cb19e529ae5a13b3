//! Tasks that the orchestrator keeps up beside answering: reconcilers, each a pass that takes no input but the store
//! and the world, and may be repeated at any time.
//!
//! A pass that fails or panics is noted on the board ([`crate::api::tasks::Board`]) and tried again with backoff; the
//! others go on.

pub mod agents;
pub mod certificate;
pub mod deadline;
pub mod drains;
pub mod iperf3;
pub mod notices;
pub mod retention;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use groundcrew_protocol::ids::RunId;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::app::App;
use crate::causes;
use crate::run::advance::AdvanceError;
use crate::store::StoreError;
use crate::tls::TlsError;

/// Longest pause before a failed pass is tried again.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The store did not do what it was asked.
    #[error("asking the store")]
    Store(#[from] StoreError),
    /// A decision did not land.
    #[error("deciding on a run")]
    Advance(#[from] AdvanceError),
    /// Some runs could not be decided on; the others were.
    #[error("{count} runs could not be decided on, {run} among them")]
    Runs {
        /// How many.
        count: usize,
        /// One of them.
        run: RunId,
        /// Why not.
        source: AdvanceError,
    },
    /// The folders of agents' homes cannot be listed.
    #[error("listing the homes of agents")]
    Homes(#[source] std::io::Error),
    /// A thread of the pass ended by a defect.
    #[error("looking at the homes and processes of agents")]
    Defect(#[source] tokio::task::JoinError),
    /// A certificate could not be read or kept.
    #[error("keeping certificates")]
    Tls(#[from] TlsError),
}

/// What a pass did, in a few words.
type Passed = Result<String, PassError>;

/// The name of the task that is also woken.
const AGENTS: &str = "agents";

/// A task.
struct Task {
    name: &'static str,
    period: Duration,
    pass: fn(Arc<App>) -> BoxFuture<'static, Passed>,
}

const TASKS: [Task; 6] = [
    Task { name: AGENTS, period: Duration::from_secs(1), pass: |app| Box::pin(agents::pass(app)) },
    Task { name: "deadlines", period: Duration::from_secs(1), pass: |app| Box::pin(deadline::pass(app)) },
    Task {
        name: "certificate",
        period: Duration::from_secs(1),
        pass: |app| Box::pin(certificate::pass(app)),
    },
    Task { name: "drains", period: Duration::from_secs(1), pass: |app| Box::pin(drains::pass(app)) },
    Task { name: "notices", period: Duration::from_secs(1), pass: |app| Box::pin(notices::pass(app)) },
    Task { name: "retention", period: Duration::from_secs(600), pass: |app| Box::pin(retention::pass(app)) },
];

/// Starts every task. They end when told to stop, each after the pass that it is in.
pub fn start_all(app: &Arc<App>, stop: &CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for task in TASKS {
        tasks.spawn(run_task(task, app.clone(), stop.clone()));
    }
    tasks
}

async fn run_task(task: Task, app: Arc<App>, stop: CancellationToken) {
    let mut pause = task.period;
    loop {
        // A pass runs as a task of its own, so that its panic is an outcome like another.
        let outcome = match tokio::spawn((task.pass)(app.clone())).await {
            Ok(outcome) => outcome.map_err(|error| causes::chain(&error)),
            Err(error) => Err(format!("the pass ended by a defect: {error}")),
        };
        pause = match &outcome {
            Ok(_) => task.period,
            Err(error) => {
                tracing::error!(task = task.name, error, "pass failed");
                (pause * 2).clamp(task.period, BACKOFF_MAX.max(task.period))
            }
        };
        app.tasks.note(task.name, outcome);
        tokio::select! {
            () = stop.cancelled() => return,
            () = app.agents.wake.notified(), if task.name == AGENTS => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
