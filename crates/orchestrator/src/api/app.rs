//! What every handler and task shares, and the one way from them to a decision that lands.

use std::sync::Arc;

use groundcrew_protocol::ids::{RunId, Sha256Hex};
use groundcrew_protocol::limits;
use tokio_util::sync::CancellationToken;

use super::auth::OperatorTokens;
use super::body::Budget;
use super::error::ApiError;
use super::iperf3::Iperf3;
use super::metrics::Counters;
use super::packages::UPLOADS_MAX;
use super::sessions::Sessions;
use super::tasks::Board;
use crate::agents::Agents;
use crate::live::bucket::Bucket;
use crate::live::clock::wall_now;
use crate::live::feed::Telling;
use crate::live::{DAY_MS, Live, LiveRun};
use crate::notify::Notices;
use crate::run::advance::{self, AdvanceError, Clock, Landed};
use crate::run::decide::{Input, NewRun};
use crate::run::state::Run;
use crate::store::{RunLookup, Store, StoreError};
use crate::tls;

/// Agents that were not heard for so many days are not waited for by a rotation of the certificate.
pub const ROTATION_DAYS: i64 = 7;
/// The next certificate is announced at least this long before it is served. An agent whose claims are refused says nowhere
/// what it knows, so that nobody can wait for its word; but it asks again within [`limits::SLOW_RETRY_MS`], and hears the
/// announcement in the refusal. Twice that, as one of its calls may fail. A start of the server begins the time anew.
pub const ANNOUNCED_MS_MIN: u64 = 2 * limits::SLOW_RETRY_MS;

/// What every handler and task shares.
pub struct App {
    /// What is kept.
    pub store: Store,
    /// What is known for the moment.
    pub live: Arc<Live>,
    /// Operators' tokens.
    pub operators: OperatorTokens,
    /// What was counted since the start.
    pub counters: Counters,
    /// How the tasks do.
    pub tasks: Board,
    /// The certificate that is served.
    pub served: Arc<tls::Served>,
    /// Where certificates are kept.
    pub certificates: tls::Files,
    /// Address of this server for nodes, as `https://host:port`; without one, the name under which an operator calls.
    pub url: Option<String>,
    /// The iperf3 that serves nodes, where one does.
    pub iperf3: Option<Iperf3>,
    /// Told when the server stops.
    pub stop: CancellationToken,
    /// Bounds how many requests with a bad token are looked into.
    pub strangers: Bucket,
    /// Bounds what request bodies hold.
    pub bodies: Budget,
    /// Bounds the packages that are uploaded at a time.
    pub uploads: Arc<tokio::sync::Semaphore>,
    /// Held to read while a run is made that may use packages, and to write while one is deleted.
    pub packages: Arc<tokio::sync::RwLock<()>>,
    /// Who reads in a browser.
    pub sessions: Sessions,
    /// What runtimes know of agents.
    pub agents: Agents,
    /// Who is told of shutdowns, and how far that is.
    pub notices: Notices,
    clock: Clock,
}

/// What an [`App`] is made of.
pub struct Parts {
    /// What is kept.
    pub store: Store,
    /// What is known for the moment.
    pub live: Arc<Live>,
    /// The certificate that is served.
    pub served: Arc<tls::Served>,
    /// Where certificates are kept.
    pub certificates: tls::Files,
    /// See [`App::url`].
    pub url: Option<String>,
    /// See [`App::iperf3`].
    pub iperf3: Option<Iperf3>,
    /// Told when the server stops.
    pub stop: CancellationToken,
    /// What runtimes know of agents.
    pub agents: Agents,
    /// Who is told of shutdowns.
    pub notices: Notices,
}

impl App {
    /// Puts it together and reads the operators' tokens.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn new(parts: Parts) -> Result<Arc<App>, StoreError> {
        let Parts { store, live, served, certificates, url, iperf3, stop, agents, notices } = parts;
        let clock: Clock = {
            let live = live.clone();
            Arc::new(move |run: &RunId| live.now(run))
        };
        let app = App {
            operators: OperatorTokens::default(),
            counters: Counters::default(),
            tasks: Board::default(),
            certificates,
            strangers: Bucket::default(),
            bodies: Budget::default(),
            uploads: Arc::new(tokio::sync::Semaphore::new(UPLOADS_MAX)),
            packages: Arc::default(),
            sessions: Sessions::default(),
            agents,
            notices,
            store,
            live,
            served,
            url,
            iperf3,
            stop,
            clock,
        };
        app.operators.reload(&app.store).await?;
        Ok(Arc::new(app))
    }

    /// Decides what an input changes, lands it, and makes it known. It goes on to the end when the caller goes away,
    /// so that what landed is never unknown here.
    ///
    /// # Errors
    /// [`AdvanceError`].
    pub async fn advance(self: &Arc<Self>, run: &RunId, input: Input) -> Result<Landed, AdvanceError> {
        let (app, run) = (self.clone(), run.clone());
        finish(async move {
            let landed = advance::advance(&app.store, &app.clock, &run, input).await?;
            app.settle(&landed);
            Ok(landed)
        })
        .await
    }

    /// Makes a run, as [`App::advance`] changes one.
    ///
    /// # Errors
    /// [`AdvanceError`].
    pub async fn create(self: &Arc<Self>, new: NewRun) -> Result<Landed, AdvanceError> {
        let app = self.clone();
        finish(async move {
            let landed = advance::create(&app.store, &app.clock, new).await?;
            app.settle(&landed);
            Ok(landed)
        })
        .await
    }

    fn settle(&self, landed: &Landed) {
        let live = self.live.update(&landed.run, landed.version);
        if !landed.events.is_empty() {
            live.feed.tell(Telling::Events);
        }
    }

    /// A run as it is stored.
    ///
    /// # Errors
    /// 404 where there never was one, 410 where it was deleted, 500 where the store fails.
    pub async fn run(&self, run: &RunId) -> Result<(Arc<Run>, u64), ApiError> {
        match self.store.run(run).await? {
            RunLookup::Found(stored) => Ok((advance::read(&stored)?, stored.version)),
            RunLookup::Gone => Err(ApiError::gone(format!(
                "run {run} has ended and was deleted; nothing more is taken for it"
            ))),
            RunLookup::Never => Err(ApiError::none(format!("there is no run {run}"))),
        }
    }

    /// A run as it is known for the moment, read from the store where it is not.
    ///
    /// # Errors
    /// As [`App::run`].
    pub async fn live_run(&self, run: &RunId) -> Result<Arc<LiveRun>, ApiError> {
        match self.live.get(run) {
            Some(live) => Ok(live),
            None => {
                let (stored, version) = self.run(run).await?;
                Ok(self.live.update(&stored, version))
            }
        }
    }
}

impl App {
    /// How long this certificate is still announced before it may be served.
    pub fn announcing_ms_left(&self, next: &Sha256Hex) -> u64 {
        ANNOUNCED_MS_MIN.saturating_sub(self.live.announced_for_ms(next))
    }

    /// Runs whose agent was heard in the last 7 days and has not said that it knows a certificate.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn agents_without(&self, pin: &Sha256Hex) -> Result<Vec<RunId>, StoreError> {
        let first_day = wall_now().0.div_euclid(DAY_MS) - ROTATION_DAYS;
        let agents = self.store.agents_since(first_day).await?;
        let noted = agents.into_iter().filter(|agent| !agent.pins.contains(pin));
        let mut without: Vec<RunId> = noted.map(|agent| agent.run).collect();
        // Heard since the start and not noted yet, as the day or its pins have just changed.
        let unheard = |live: &&Arc<LiveRun>| {
            let state = live.state();
            let lacks = state
                .said
                .as_ref()
                .is_some_and(|said| !said.pins.contains(pin) && said.heard.0.div_euclid(DAY_MS) >= first_day);
            state.claim.is_some() && state.ended.is_none() && lacks
        };
        without.extend(self.live.all().iter().filter(unheard).map(|live| live.id.clone()));
        without.sort();
        without.dedup();
        Ok(without)
    }
}

/// Lets a piece of work end even where nobody waits for it any more.
pub(super) async fn finish<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => unreachable!("nobody cancels this task, and the runtime outlives its callers"),
        },
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        let text = error.to_string();
        match &error {
            StoreError::Conflict { .. } | StoreError::NotBegun | StoreError::Closed => {
                ApiError::not_now(text)
            }
            StoreError::Exists(_) => ApiError::conflict("exists", text),
            StoreError::InUse(_) => ApiError::conflict("in_use", text),
            StoreError::TooMuch(_) => ApiError::unfit(text),
            StoreError::Panicked { .. }
            | StoreError::Unreadable { .. }
            | StoreError::File { .. }
            | StoreError::Database { .. } => ApiError::internal("keeping it in the store", &error),
        }
    }
}

impl From<AdvanceError> for ApiError {
    fn from(error: AdvanceError) -> ApiError {
        match error {
            AdvanceError::Refused(refused) => refused.into(),
            AdvanceError::NoRun(run) => ApiError::none(format!("there is no run {run}")),
            AdvanceError::Taken(run) => ApiError::conflict("exists", format!("there is a run {run} already")),
            AdvanceError::Unreadable { .. } => ApiError::internal("reading the run", &error),
            AdvanceError::Store(error) => error.into(),
        }
    }
}
