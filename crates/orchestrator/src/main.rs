//! `groundcrewd`, the orchestrator.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Parser;
use groundcrew_orchestrator::api::auth::make_operator_token;
use groundcrew_orchestrator::api::iperf3::{self, Iperf3};
use groundcrew_orchestrator::api::openapi;
use groundcrew_orchestrator::api::tokens::{expect_name, revoke_audit};
use groundcrew_orchestrator::live::clock::wall_now;
use groundcrew_orchestrator::serve::{self, Options, Server};
use groundcrew_orchestrator::settings::{
    Arguments, CertificateCommand, Command, Data, Environment, Serve, TokenCommand,
};
use groundcrew_orchestrator::store::{self, Retention, Store, StoreOptions};
use groundcrew_orchestrator::tls;
use groundcrew_orchestrator::tls::seal::KeyFile;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Who acts where somebody with the data folder does.
const LOCAL: &str = "command line";
const GIB: u64 = 1 << 30;
const DAY_MS: u64 = 86_400_000;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(help) => {
            let is_usage = help.use_stderr();
            // Where even the help cannot be printed, the exit code still says it.
            let _printed = help.print();
            return ExitCode::from(if is_usage { 64 } else { 0 });
        }
    };
    start_logging();
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody reads it, the exit status says it alone.
            let _nobody_reads = writeln!(std::io::stderr(), "groundcrewd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging() {
    let filter = EnvFilter::try_from_env("GROUNDCREWD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).init();
}

fn run(command: Command) -> anyhow::Result<()> {
    let environment = Environment::read();
    let folder = |data: &Data| data.folder(&environment);
    let can_read = |path: &Path| std::fs::File::open(path).is_ok();
    let key = |data: &Data| data.key_file(&environment, can_read).map(KeyFile::at);
    match command {
        Command::Serve(arguments) => {
            let (data, key) = (folder(&arguments.data)?, key(&arguments.data)?);
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(serve(options(*arguments, data, key)))
        }
        Command::Fingerprint(data) => print(tls::fingerprint_of(&folder(&data)?)?.as_str()),
        Command::Certificate { command: CertificateCommand::Rotate(data) } => {
            rotate(&tls::Files::of(&folder(&data)?, key(&data)?))
        }
        Command::Backup { data, to } => block_on(async {
            let made = store::backup(&folder(&data)?, &to, wall_now()).await?;
            print(&format!(
                "{}: {} files, {} bytes, generation {}",
                made.folder.display(),
                made.files,
                made.bytes,
                made.generation
            ))
        }),
        Command::Restore { data, from, force } => block_on(async {
            let restored = store::restore(&from, &folder(&data)?, force, wall_now()).await?;
            if let Some(aside) = &restored.moved_aside {
                print(&format!("what was there is now in {}", aside.display()))?;
            }
            let (generation, runs) = (restored.generation, restored.runs.len());
            print(&format!("restored as generation {generation}; {runs} runs had not ended"))
        }),
        Command::Token { command } => block_on(token(command, &environment)),
        Command::Openapi => print(openapi::document().trim_end()),
    }
}

/// Prints a line. Whoever closes the pipe has read enough, as `head` has: that fails nothing.
fn print(line: &str) -> anyhow::Result<()> {
    match write_line(line) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("printing"),
    }
}

/// Prints what is shown this once: it must reach somebody.
fn print_once(line: &str) -> anyhow::Result<()> {
    write_line(line).context("printing a token, which nobody will see now")
}

fn write_line(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush())
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(work)
}

fn options(arguments: Serve, data: std::path::PathBuf, key: KeyFile) -> Options {
    let age_ms = |days: u32| u64::from(days) * DAY_MS;
    let retention = Retention {
        logs_age_ms: age_ms(arguments.keep_logs_days),
        sensors_age_ms: age_ms(arguments.keep_logs_days),
        logs_bytes_max: u64::from(arguments.keep_logs_gib) * GIB,
        runs_age_ms: age_ms(arguments.keep_runs_days),
        ..Retention::default()
    };
    Options {
        data,
        key,
        listen: arguments.listen,
        print_token_to: arguments.print_token_to,
        connections_max: arguments.connections_max,
        requests_per_second_max: arguments.requests_per_second_max,
        url: arguments.url,
        iperf3: arguments
            .iperf_port
            .or(arguments.iperf3.then_some(iperf3::PORT))
            .map(|port| Iperf3 { port, link_mbps: arguments.iperf_link_mbps }),
        keeps_iperf3: arguments.iperf3,
        agent_homes: arguments.agent_homes,
        notify: arguments.notify,
        kubernetes: arguments.kubernetes.cluster(),
        store: StoreOptions {
            retention,
            free_percent_min: f64::from(arguments.keep_free_percent),
            ..StoreOptions::default()
        },
        clock_step_ms: arguments.clock_step_ms,
    }
}

async fn serve(options: Options) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let server = Server::start(options, stop.clone()).await?;
    if let Some(token) = &server.first_token {
        print_once(&format!("admin token {token}\nIt is shown this once; only its hash is kept."))?;
    }
    print(&format!("certificate SHA-256 {}", server.fingerprint))?;
    print(&format!("listening on https://{}", serve::reachable(server.address)))?;
    let store = server.store();
    let ends = tokio::spawn(async move {
        let writer_ended = tokio::select! {
            _ = terminate.recv() => { tracing::info!("SIGTERM"); false }
            _ = interrupt.recv() => { tracing::info!("SIGINT"); false }
            // Without its writer the server could only refuse: better it ends, and whoever watches starts it again.
            () = store.ended() => true,
        };
        stop.cancel();
        writer_ended
    });
    server.run().await?;
    if ends.await.context("waiting for the end")? {
        return Err(anyhow!("the store's writer ended; the log above says why"));
    }
    Ok(())
}

fn rotate(files: &tls::Files) -> anyhow::Result<()> {
    let next = files.announce_next()?.fingerprint;
    print(&format!("now  {}\nnext {next}", files.current()?.fingerprint))?;
    print(
        "The server announces the next one in every answer and serves it once every agent of the last 7 days knows it, after \
         10 minutes at the earliest: agents that wait for a claim ask again within 5.\n\
         `groundcrewctl certificate` says which do not know it yet.",
    )
}

async fn token(command: TokenCommand, environment: &Environment) -> anyhow::Result<()> {
    let open = async |data: &Data| -> anyhow::Result<Store> {
        let opened = Store::open(&data.folder(environment)?, StoreOptions::default()).await;
        opened.context("while a server runs on this folder, use `groundcrewctl token add|list|revoke` or /api/v1/tokens instead")
    };
    let (store, done) = match command {
        TokenCommand::Add { data, name } => {
            expect_name(&name).map_err(|error| anyhow!("NAME: {error}"))?;
            let store = open(&data).await?;
            let (token, row, audit) = make_operator_token(&name, LOCAL, wall_now());
            let added = store.add_token(row, audit).await;
            let done = added.map_err(Into::into).and_then(|()| print_once(token.as_str()));
            (store, done)
        }
        TokenCommand::List(data) => {
            let store = open(&data).await?;
            let done = list_tokens(&store).await;
            (store, done)
        }
        TokenCommand::Revoke { data, name } => {
            let store = open(&data).await?;
            let done = match store.revoke_token(&name, revoke_audit(&name, LOCAL)).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(anyhow!("there is no token of {name:?} that is good")),
                Err(error) => Err(error.into()),
            };
            (store, done)
        }
    };
    store.close().await?;
    done
}

async fn list_tokens(store: &Store) -> anyhow::Result<()> {
    for row in store.tokens().await? {
        let revoked = row.revoked.map_or_else(String::new, |at| format!("  revoked {at}"));
        print(&format!("{}  made {}{revoked}", row.name, row.created))?;
    }
    Ok(())
}
