//! `groundcrewd serve`: opens the store, puts everything together, and takes it apart in order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use groundcrew_durable::whole;
use groundcrew_protocol::ids::{RunId, Sha256Hex};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::agents::Agents;
use crate::agents::homes::Homes;
use crate::api::app::{App, Parts};
use crate::api::auth::make_operator_token;
use crate::api::iperf3::Iperf3;
use crate::kubernetes::observe::{Cluster, ObserveError, Observer};
use crate::listen::run_listener;
use crate::live::Live;
use crate::live::clock::{ListenClock, wall_now};
use crate::notify::Notices;
use crate::notify::send::{TRY_MS_MAX, TlsRootsError};
use crate::notify::sinks::{Sinks, SinksError};
use crate::run::advance::{self, AdvanceError};
use crate::run::decide::Input;
use crate::store::{OpenError, Store, StoreError, StoreOptions};
use crate::tls::seal::KeyFile;
use crate::tls::{self, TlsError};
use crate::{api, causes, dashboard, task};

/// Name of the first token.
pub const ADMIN: &str = "admin";
/// File in the data folder that holds the address of a running server, as `https://127.0.0.1:8443`.
pub const ADDRESS_FILE: &str = "address";
/// Runs that are read at a time at the start.
const RUNS_PER_READ: u32 = 500;
/// How much longer a stop may take for notices, whatever their sinks do.
const NOTICES_AT_END: Duration = Duration::from_millis(TRY_MS_MAX);
/// Descriptors beside those of connections: database, segments, artifacts, the runtime's own, and three for each process
/// of an agent that is held.
const DESCRIPTORS_BESIDE: u64 = 896;

/// How to serve.
#[derive(Clone)]
pub struct Options {
    /// The data folder.
    pub data: PathBuf,
    /// The file with the key that seals private keys.
    pub key: KeyFile,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the first token goes instead of standard output.
    pub print_token_to: Option<PathBuf>,
    /// Open connections at a time.
    pub connections_max: usize,
    /// Requests per second that one token may keep up.
    pub requests_per_second_max: u32,
    /// Address of this server for nodes.
    pub url: Option<String>,
    /// The iperf3 that agents are told of.
    pub iperf3: Option<Iperf3>,
    /// True where it is this server's own, and is kept up.
    pub keeps_iperf3: bool,
    /// Where homes of agents lie that share a file system with this server.
    pub agent_homes: Option<Homes>,
    /// The cluster whose pods of agents are watched.
    pub kubernetes: Option<Cluster>,
    /// The file of sinks that are told of shutdowns.
    pub notify: Option<PathBuf>,
    /// How the store is opened.
    pub store: StoreOptions,
    /// For tests alone: the clock of listening stands, and goes on by this many milliseconds with each SIGUSR1.
    pub clock_step_ms: Option<u64>,
}

/// Why the server did not start, or did not stop in order.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The store could not be opened.
    #[error("opening the store")]
    Open(#[from] OpenError),
    /// The store failed.
    #[error("asking the store")]
    Store(#[from] StoreError),
    /// A run could not be read or told.
    #[error("reading a run")]
    Run(#[from] AdvanceError),
    /// There is no certificate to serve.
    #[error("preparing the certificate")]
    Tls(#[from] TlsError),
    /// The address is taken or not ours.
    #[error("listening on {listen}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// What is said of the cluster cannot be used.
    #[error("preparing to watch the pods of agents")]
    Kubernetes(#[from] ObserveError),
    /// The sinks of notices cannot be had.
    #[error("preparing to tell of shutdowns")]
    Sinks(#[from] SinksError),
    /// Nobody says which certificates of sinks to trust.
    #[error("preparing to tell of shutdowns")]
    TlsRoots(#[from] TlsRootsError),
    /// A signal could not be listened to.
    #[error("listening to a signal")]
    Signal(#[source] std::io::Error),
    /// A file could not be written.
    #[error("writing {path:?}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: groundcrew_durable::Error,
    },
}

/// A server that listens.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// SHA-256 of the certificate that it serves.
    pub fingerprint: Sha256Hex,
    /// The first token, at the first start, unless it went to a file.
    pub first_token: Option<String>,
    app: Arc<App>,
    listener: TcpListener,
    connections_max: usize,
    steps: Option<(Signal, u64)>,
    observer: Option<Observer>,
    /// Where its own iperf3 is to serve.
    iperf3: Option<SocketAddr>,
}

impl Server {
    /// The store that it serves from.
    pub fn store(&self) -> Store {
        self.app.store.clone()
    }

    /// Opens the store and begins to listen. Nothing is answered before [`Server::run`].
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn start(options: Options, stop: CancellationToken) -> Result<Server, ServeError> {
        let store = Store::open(&options.data, options.store.clone()).await?;
        match start_on(&store, options, stop).await {
            Ok(server) => Ok(server),
            Err(error) => {
                if let Err(closing) = store.close().await {
                    tracing::error!(error = %closing, "store not closed in order");
                }
                Err(error)
            }
        }
    }

    /// Answers until told to stop; then lets requests under way end, stops the tasks and closes the store.
    ///
    /// # Errors
    /// Where the store cannot be closed in order. Nothing acknowledged is lost by that.
    pub async fn run(self) -> Result<(), ServeError> {
        let Server { app, listener, connections_max, steps, observer, iperf3, .. } = self;
        let mut routes = api::routes();
        routes.extend(dashboard::routes());
        let router = api::router(routes, app.clone());
        let config = app.served.config()?;
        // Tasks outlive the listener: deadlines need no answers, but answers need the clock.
        let stop_tasks = CancellationToken::new();
        let mut tasks = task::start_all(&app, &stop_tasks);
        if let Some((signal, by_ms)) = steps {
            tasks.spawn(run_steps(app.clone(), signal, by_ms, stop_tasks.clone()));
        }
        if let Some(observer) = observer {
            tasks.spawn(observer.run(app.clone(), stop_tasks.clone()));
        }
        if let Some(address) = iperf3 {
            tasks.spawn(task::iperf3::run(app.clone(), address, stop_tasks.clone()));
        }
        let (stopped, telling) = (app.stop.clone(), app.clone());
        let told = tokio::spawn(async move {
            stopped.cancelled().await;
            task::notices::tell_own_end(telling).await;
        });
        run_listener(listener, config, router, connections_max, app.stop.clone()).await;
        let until = Instant::now() + NOTICES_AT_END;
        stop_tasks.cancel();
        while tasks.join_next().await.is_some() {}
        // What agents have said last of all: they are stopped together with this server where a whole site is.
        if let Err(error) = task::notices::send_due(&app, until).await {
            tracing::error!(error = causes::chain(&error), "notices left to the next start");
        }
        if let Err(error) = told.await {
            tracing::error!(%error, "own shutdown not told");
        }
        app.store.note_listened(app.live.clock.read_ms(Instant::now()));
        remove_address(&app);
        Ok(app.store.close().await?)
    }

    /// What its handlers and tasks share; for tests.
    pub fn app(&self) -> Arc<App> {
        self.app.clone()
    }
}

async fn start_on(store: &Store, options: Options, stop: CancellationToken) -> Result<Server, ServeError> {
    let files = tls::Files::of(&options.data, options.key);
    let identity = files.current_or_made()?;
    let observer = match &options.kubernetes {
        Some(cluster) => Some(Observer::new(cluster).await?),
        None => None,
    };
    let sinks = options.notify.as_deref().map(Sinks::read).transpose()?.unwrap_or_default();
    let fingerprint = identity.fingerprint.clone();
    let mut pins = vec![fingerprint.clone()];
    match files.next() {
        Ok(next) => pins.extend(next.map(|next| next.fingerprint).filter(|next| *next != fingerprint)),
        // What is served needs no other. The task `certificate` tries again with each pass, and says it on the board.
        Err(error) => tracing::error!(error = causes::chain(&error), "next certificate not announced"),
    }
    let kept_ms = store.listened_at_open_ms();
    let (clock, steps) = match options.clock_step_ms {
        None => (ListenClock::start(kept_ms, Instant::now()), None),
        Some(by_ms) => {
            let told = signal(SignalKind::user_defined1()).map_err(ServeError::Signal)?;
            (ListenClock::standing(kept_ms, Instant::now()), Some((told, by_ms)))
        }
    };
    let live = Arc::new(Live::new(clock, store.generation(), pins, options.requests_per_second_max));
    // Before the first token is made: what is told once must not be lost with an address that is taken.
    let failed = |source| ServeError::Listen { listen: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let url = options.url.clone().unwrap_or_else(|| format!("https://{}", reachable(address)));
    let notices = Notices::new(sinks, url)?;
    let first_token = first_token(store, options.print_token_to.as_deref()).await?;
    let app = App::new(Parts {
        store: store.clone(),
        live,
        served: tls::Served::new(identity),
        certificates: files,
        url: options.url,
        iperf3: options.iperf3,
        stop,
        agents: Agents::new(options.agent_homes, observer.is_some()),
        notices,
    })
    .await?;
    load_runs(&app).await?;
    task::drains::load(&app).await?;
    task::agents::load(&app).await?;
    write(&options.data.join(ADDRESS_FILE), &format!("https://{}\n", reachable(address)))?;
    let connections_max = allow_connections(options.connections_max);
    let own = options.iperf3.filter(|_| options.keeps_iperf3);
    let iperf3 = own.map(|server| SocketAddr::new(address.ip(), server.port));
    Ok(Server { address, fingerprint, first_token, app, listener, connections_max, steps, observer, iperf3 })
}

/// Lets the clock of listening go on with each signal, for tests.
async fn run_steps(app: Arc<App>, mut told: Signal, by_ms: u64, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = told.recv() => {
                let listened_ms = app.live.clock.step(by_ms);
                tracing::info!(listened_ms, "the clock of listening was moved");
            }
        }
    }
}

/// Makes the first token of all, where there is none. What is printed is lost afterwards; only its hash is kept.
async fn first_token(store: &Store, file: Option<&Path>) -> Result<Option<String>, ServeError> {
    if !store.tokens().await?.is_empty() {
        return Ok(None);
    }
    let (token, row, audit) = make_operator_token(ADMIN, "orchestrator", wall_now());
    let text = token.as_str().to_owned();
    // Written before it counts: after a crash between the two the next start makes another and writes that.
    if let Some(file) = file {
        write(file, &format!("{text}\n"))?;
    }
    let is_first = store.add_first_token(row, audit).await?;
    Ok((is_first && file.is_none()).then_some(text))
}

/// Puts every run that has not ended into the table of what is known, and tells those that a restore brought back. Where the
/// store was written by an older version, it also learns which packages those runs use.
async fn load_runs(app: &Arc<App>) -> Result<(), ServeError> {
    let mut after: Option<RunId> = None;
    let knows_packages = app.store.knows_package_users().await?;
    let mut used = Vec::new();
    let mut left_out = 0;
    loop {
        let runs = app.store.runs_going(after.as_ref(), RUNS_PER_READ).await?;
        let Some(last) = runs.last() else { break };
        after = Some(last.id.clone());
        for stored in &runs {
            match advance::read(stored) {
                Ok(run) => {
                    app.live.update(&run, stored.version);
                    if !knows_packages {
                        used.extend(advance::packages_of(&run).map(|package| (run.id.clone(), package)));
                    }
                }
                // The others are served; whoever asks for this one is told.
                Err(error) => {
                    left_out += 1;
                    tracing::error!(run = %stored.id, error = causes::chain(&error), "run left out");
                }
            }
        }
    }
    if !knows_packages {
        app.store.learn_package_users(used, left_out == 0).await?;
    }
    load_owing(app).await?;
    for run in app.store.runs_restored().await? {
        match app.advance(&run, Input::Restored).await {
            Ok(_landed) => {}
            Err(error @ AdvanceError::Unreadable { .. }) => {
                tracing::error!(%run, error = causes::chain(&error), "restored run not told");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Puts the runs that have ended and still have somebody to tell of a shutdown into the same table, for the task `notices`.
async fn load_owing(app: &Arc<App>) -> Result<(), ServeError> {
    let mut after: Option<RunId> = None;
    loop {
        let runs = app.store.runs_owing(after.as_ref(), RUNS_PER_READ).await?;
        let Some(last) = runs.last() else { return Ok(()) };
        after = Some(last.id.clone());
        for stored in &runs {
            match advance::read(stored) {
                Ok(run) => drop(app.live.update(&run, stored.version)),
                Err(error) => {
                    tracing::error!(run = %stored.id, error = causes::chain(&error), "notices of a run left out");
                }
            }
        }
    }
}

/// Where a client on this machine reaches it.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// As many connections as were asked for, or as the process may have descriptors for.
fn allow_connections(asked: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "limit of open files not raised");
    }
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return asked };
    let room = usize::try_from(descriptors.saturating_sub(DESCRIPTORS_BESIDE)).unwrap_or(usize::MAX).max(1);
    if room < asked {
        tracing::info!(asked, room, "fewer connections than asked for: the limit of open files is lower");
    }
    asked.min(room)
}

fn write(path: &Path, text: &str) -> Result<(), ServeError> {
    whole::write_whole(path, text.as_bytes(), &whole::Options::default())
        .map_err(|source| ServeError::File { path: path.to_owned(), source })
}

fn remove_address(app: &App) {
    let path = app.store.data().join(ADDRESS_FILE);
    if let Err(error) = whole::remove(&path) {
        tracing::warn!(%error, "address of the stopped server left behind");
    }
}
