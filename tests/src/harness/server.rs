//! The orchestrator as a process, and its operator.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use groundcrew_client::{Client, Error, EventStream, PinSet};
use groundcrew_durable::fault::{Point, VARIABLE};
use groundcrew_protocol::ids::{RunId, Sha256Hex, TokenText};
use groundcrew_protocol::operator::{EventView, LogView, Order, RunCreated, RunView};
use groundcrew_protocol::stage::{Stage, State};
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use super::process::Process;
use super::{STUCK, binary};

/// One call. Over it is a failure of the server, not of the test's patience.
const CALL: Duration = Duration::from_secs(60);

/// A run with its boot token.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Its boot token.
    pub token: TokenText,
}

/// An orchestrator with a data folder of its own, on a loopback address of its own.
///
/// The address is its own so that nobody takes its port while it is down.
pub struct Server {
    folder: tempfile::TempDir,
    address: String,
    fingerprint: String,
    process: Option<Process>,
    flags: Vec<String>,
    runtime: Runtime,
    client: Client,
    token: TokenText,
}

impl Server {
    /// Starts one in a fresh folder.
    pub fn start() -> Server {
        Server::start_with(Vec::new())
    }

    /// Starts one in a fresh folder for which time passes, as far as it says how long somebody was silent, by that much
    /// at each [`pass_time`](Self::pass_time) and not otherwise.
    pub fn start_with_steps_of(step_ms: u64) -> Server {
        Server::start_with(vec!["--clock-step-ms".to_owned(), step_ms.to_string()])
    }

    /// Starts one in a fresh folder that keeps up an iperf3.
    pub fn start_keeping_iperf3() -> Server {
        Server::start_with(vec!["--iperf3".to_owned()])
    }

    /// Starts one in a fresh folder that watches the homes of its machines.
    pub fn start_watching_homes() -> Server {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let homes = format!("{}/{{agent}}/home", folder.path().display());
        Server::start_in(folder, vec!["--agent-homes".to_owned(), homes])
    }

    /// Starts one in a fresh folder that watches the homes of its machines, and the pods of a cluster that match.
    pub fn start_observing(kubeconfig: &Path, selector: &str) -> Server {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let homes = format!("{}/{{agent}}/home", folder.path().display());
        let of_cluster =
            ["--kubernetes", &kubeconfig.display().to_string(), "--kubernetes-selector", selector]
                .map(str::to_owned);
        let flags = ["--agent-homes".to_owned(), homes];
        Server::start_in(folder, flags.into_iter().chain(of_cluster).collect())
    }

    /// Starts one in a fresh folder that tells these sinks of shutdowns; time passes for it as for
    /// [`start_with_steps_of`](Self::start_with_steps_of).
    pub fn start_telling(sinks: &str, step_ms: u64) -> Server {
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let file = folder.path().join(SINKS_FILE);
        write_private(&file, sinks);
        let steps = ["--clock-step-ms".to_owned(), step_ms.to_string()];
        let notify = ["--notify".to_owned(), file.display().to_string()];
        Server::start_in(folder, steps.into_iter().chain(notify).collect())
    }

    fn start_with(more: Vec<String>) -> Server {
        Server::start_in(tempfile::tempdir().expect("there is a temporary folder"), more)
    }

    fn start_in(folder: tempfile::TempDir, more: Vec<String>) -> Server {
        let token_file = folder.path().join("token");
        let listen = format!("{}:0", own_loopback());
        let mut flags = more;
        flags.extend(["--print-token-to".to_owned(), token_file.display().to_string()]);
        let process = launch(&folder.path().join("data"), &listen, &flags);
        let address = said_after(&process, "listening on ");
        let fingerprint = said_after(&process, "certificate SHA-256 ");
        let text = std::fs::read_to_string(&token_file).expect("the first start writes the token");
        let token: TokenText = text.trim().parse().expect("the file holds a token");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let pin: Sha256Hex = fingerprint.parse().expect("it is a SHA-256");
        let base = address.parse().expect("the server prints a URL");
        let client = Client::new(base, PinSet::new([pin]), Some(token.clone()))
            .with_answer_bytes_max(64 * 1024 * 1024);
        let runtime = runtime.expect("the system has what a runtime needs");
        Server { folder, address, fingerprint, process: Some(process), flags, runtime, client, token }
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A folder beside it for whatever belongs to the test.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where it listens, as a URL.
    pub fn url(&self) -> &str {
        &self.address
    }

    /// SHA-256 of its first certificate.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The operator's token.
    pub fn token(&self) -> &TokenText {
        &self.token
    }

    /// The pins of the operator's client.
    pub fn pins(&self) -> &PinSet {
        self.client.pins()
    }

    /// Its process, which must be there.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the server was started")
    }

    /// Lets its time pass, of one that was started for that, and waits until it has.
    pub fn pass_time(&self) {
        let moved = "the clock of listening was moved";
        let before = self.process().count_of(moved);
        self.process().signal(rustix::process::Signal::USR1);
        super::eventually("the clock that moves", || (self.process().count_of(moved) > before).then_some(()));
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Stops it in order. What it said goes with it.
    pub fn stop(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the server was started");
        process.stop()
    }

    /// Starts it again at the same address, with these flags besides.
    pub fn start_again(&mut self, more: &[&str]) {
        self.kill();
        let flags: Vec<String> =
            self.flags.iter().cloned().chain(more.iter().map(ToString::to_string)).collect();
        let listen = self.address.trim_start_matches("https://").to_owned();
        let process = launch(&self.data(), &listen, &flags);
        process.wait_for_line("listening on ");
        self.client.disconnect();
        self.process = Some(process);
    }

    /// Starts it and waits for its end: for a start that is refused.
    pub fn start_in_vain(&self) -> (ExitStatus, String) {
        let listen = self.address.trim_start_matches("https://").to_owned();
        let mut process = spawn(&self.data(), &listen, &self.flags);
        (process.wait(), process.lines().join("\n"))
    }

    /// Starts it at the same address and waits until it has killed itself at this point.
    pub fn start_to_die_at(&self, point: Point) -> ExitStatus {
        let listen = self.address.trim_start_matches("https://").to_owned();
        let mut command = command(&self.data(), &listen, &self.flags);
        Process::start("groundcrewd", command.env(VARIABLE, point.name())).wait()
    }

    /// Runs another command of `groundcrewd`, to its end.
    pub fn command(&self, words: &[&str]) -> Output {
        let output = Command::new(binary("groundcrewd")).args(words).env_clear().output();
        output.expect("the binary can be started")
    }

    /// A run of this profile, on a node of that name.
    pub fn create_run(&self, node: &str, profile: &str) -> Run {
        self.create_run_told_to(node, profile, &[])
    }

    /// One whose shutdowns these sinks are told of.
    pub fn create_run_told_to(&self, node: &str, profile: &str, notify: &[&str]) -> Run {
        let name = profile
            .lines()
            .find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
            .expect("the profile has a name");
        let path = format!("/api/v1/profiles/{name}");
        let put: Result<serde_json::Value, Error> =
            self.wait(self.client.put_bytes(&path, Bytes::from(profile.to_owned()), CALL));
        put.unwrap_or_else(|error| panic!("the profile: {}", error.chain()));
        let body = serde_json::json!({"name": node});
        let _node: serde_json::Value = self.must(Method::PUT, &format!("/api/v1/nodes/{node}"), &body);
        let body = serde_json::json!({"node": node, "profile": name, "notify": notify});
        let created: RunCreated = self.must(Method::POST, "/api/v1/runs", &body);
        Run { id: created.run, token: created.boot_token }
    }

    /// A run as it is.
    pub fn view(&self, run: &Run) -> RunView {
        self.get(&format!("/api/v1/runs/{}", run.id))
    }

    /// Asks for JSON.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.try_get(path).unwrap_or_else(|error| panic!("{}", error.chain()))
    }

    /// Asks for JSON, and may be refused.
    pub fn try_get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.wait(self.client.get_json(path, CALL))
    }

    /// Asks for a text.
    pub fn text(&self, path: &str) -> String {
        let bytes = self.wait(self.client.get_bytes(path, CALL));
        let bytes = bytes.unwrap_or_else(|error| panic!("{}", error.chain()));
        String::from_utf8(bytes.into()).expect("the server sends text")
    }

    /// Sends JSON.
    pub fn must<T: DeserializeOwned>(&self, method: Method, path: &str, body: &impl Serialize) -> T {
        self.call(method, path, body).unwrap_or_else(|error| panic!("{}", error.chain()))
    }

    /// Sends JSON, and may be refused.
    pub fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.wait(self.client.call(method, path, body, CALL))
    }

    /// Gives an order about a run.
    pub fn order(&self, run: &Run, order: &str, reason: &str) -> RunView {
        let body = Order { reason: reason.to_owned(), ..Order::default() };
        self.must(Method::POST, &format!("/api/v1/runs/{}/{order}", run.id), &body)
    }

    /// Another caller at the same address, with another token or none.
    pub fn caller(&self, token: Option<TokenText>) -> Caller<'_> {
        let base = self.address.parse().expect("the server prints a URL");
        Caller { server: self, client: Client::new(base, self.client.pins().clone(), token) }
    }

    /// Follows a run's events from the one after `after`.
    pub fn follow(&self, run: &Run, after: Option<u64>) -> Events<'_> {
        let path = format!("/api/v1/runs/{}/events", run.id);
        let after = after.map(|id| id.to_string());
        let stream = self.wait(self.client.events(&path, after.as_deref(), CALL));
        Events { server: self, stream: stream.unwrap_or_else(|error| panic!("{}", error.chain())) }
    }

    /// Every stored event of a run so far.
    pub fn events(&self, run: &Run) -> Vec<EventView> {
        let mut events = Vec::new();
        // What the agent says of itself is sent once everything that is stored was.
        for next in self.follow(run, None) {
            match next.event.as_str() {
                "event" => events.push(serde_json::from_str(&next.data).expect("an event is an EventView")),
                "agent" => break,
                _other => {}
            }
        }
        events
    }

    /// How many events of this kind a run has.
    pub fn count_of(&self, run: &Run, kind: &str) -> usize {
        self.events(run).iter().filter(|event| event.kind == kind).count()
    }

    /// Waits until a run is as wanted, asking again with each event.
    pub fn wait_for(&self, run: &Run, what: &str, wanted: impl Fn(&RunView) -> bool) -> RunView {
        let path = format!("/api/v1/runs/{}/events", run.id);
        let work = async {
            loop {
                let mut events = self.client.events(&path, None, CALL).await?;
                loop {
                    let view: RunView =
                        self.client.get_json(&format!("/api/v1/runs/{}", run.id), CALL).await?;
                    if wanted(&view) {
                        return Ok::<RunView, Error>(view);
                    }
                    if events.next(STUCK).await?.is_none() {
                        break;
                    }
                }
            }
        };
        match self.wait(async { tokio::time::timeout(STUCK, work).await }) {
            Ok(Ok(view)) => view,
            Ok(Err(error)) => panic!("waiting for {what}: {}", error.chain()),
            Err(_late) => panic!("never came: {what}\n{}", self.describe(run)),
        }
    }

    /// Waits until a run stands there.
    pub fn wait_for_state(&self, run: &Run, state: State) -> RunView {
        self.wait_for(run, &format!("run in {state}"), |view| view.summary.state == state)
    }

    /// Waits for a stored event of this kind.
    pub fn wait_for_event(&self, run: &Run, kind: &str) -> EventView {
        for next in self.follow(run, None) {
            if next.event == "event" {
                let event: EventView = serde_json::from_str(&next.data).expect("an event is an EventView");
                if event.kind == kind {
                    return event;
                }
            }
        }
        panic!("the server ended before an event {kind}");
    }

    /// The texts of a run's log, of one stage or of all.
    pub fn log(&self, run: &Run, stage: Option<&Stage>) -> Vec<String> {
        let stage = stage.map(|stage| format!("&stage={stage}")).unwrap_or_default();
        let (mut texts, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/runs/{}/logs?limit=10000{stage}{after}", run.id);
            let page: LogView = self.get(&path);
            texts.extend(page.lines.into_iter().map(|line| line.text));
            if page.at_end {
                return texts;
            }
            after = format!("&after={}", page.next);
        }
    }

    /// The numbers of a run's numbered lines, as they were stored.
    pub fn numbers(&self, run: &Run) -> Vec<usize> {
        let texts = self.log(run, Some(&Stage::CpuStress));
        texts.iter().filter_map(|text| text.strip_prefix("line ")?.parse().ok()).collect()
    }

    /// Waits until the last of the numbered lines has arrived, and sees that each is there once and in order.
    pub fn expect_lines(&self, run: &Run, last: usize) {
        let numbers = super::eventually("the last numbered line", || {
            let numbers = self.numbers(run);
            (numbers.iter().max() >= Some(&last)).then_some(numbers)
        });
        let expected: Vec<usize> = (1..=last).collect();
        let missing = expected.iter().filter(|number| !numbers.contains(number)).count();
        assert!(numbers == expected, "{} of {last} lines arrived, {missing} are missing", numbers.len());
    }

    /// Lets a call of the client run.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    fn describe(&self, run: &Run) -> String {
        let mut text = format!("{:#?}\n", self.view(run));
        for event in self.events(run) {
            text.push_str(&format!("{} {} ({}): {}\n", event.id, event.kind, event.state, event.text));
        }
        text
    }
}

/// Events of a run as they come.
pub struct Events<'a> {
    server: &'a Server,
    stream: EventStream,
}

impl Events<'_> {
    /// The next stored one.
    pub fn next_stored(&mut self) -> Option<EventView> {
        loop {
            let next = self.next()?;
            if next.event == "event" {
                return Some(serde_json::from_str(&next.data).expect("an event is an EventView"));
            }
        }
    }
}

impl Iterator for Events<'_> {
    type Item = groundcrew_client::Event;

    /// The next one; `None` once the server has ended the stream.
    fn next(&mut self) -> Option<groundcrew_client::Event> {
        match self.server.wait(async { tokio::time::timeout(STUCK, self.stream.next(STUCK)).await }) {
            Ok(Ok(event)) => event,
            // A server that was killed ends nothing in order.
            Ok(Err(Error::Broken { .. })) => None,
            Ok(Err(error)) => panic!("{}", error.chain()),
            Err(_late) => panic!("no further event came"),
        }
    }
}

/// Somebody who calls with a token of their own: an agent that a test plays.
pub struct Caller<'a> {
    server: &'a Server,
    client: Client,
}

impl Caller<'_> {
    /// Sends JSON, and may be refused.
    pub fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.server.wait(self.client.call(method, path, body, CALL))
    }

    /// Puts bytes, and may be refused.
    pub fn put(&self, path: &str, content: Bytes) -> Result<serde_json::Value, Error> {
        self.server.wait(self.client.put_bytes(path, content, CALL))
    }

    /// Sends a call with an empty JSON object; the status of its answer, 200 for any that is good.
    pub fn status(&self, method: Method, path: &str) -> u16 {
        let sent = self.server.wait(self.client.send(method, path, Bytes::from_static(b"{}"), CALL));
        match sent {
            Ok(_) => 200,
            Err(error) => error.status().unwrap_or_else(|| panic!("{}", error.chain())),
        }
    }
}

/// Name of the file with sinks, beside the data folder.
pub const SINKS_FILE: &str = "notify.toml";

/// Writes a file that nobody else can read.
fn write_private(path: &Path, text: &str) {
    let mut options = std::fs::OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).expect("the folder is ours");
}

/// The flag by which a server keeps a share of its disk free.
const KEEP_FREE: &str = "--keep-free-percent";

fn spawn(data: &Path, listen: &str, flags: &[String]) -> Process {
    Process::start("groundcrewd", &mut command(data, listen, flags))
}

fn command(data: &Path, listen: &str, flags: &[String]) -> Command {
    let mut command = Command::new(binary("groundcrewd"));
    command.args(["serve", "--listen", listen, "--data"]).arg(data).args(flags).env_clear();
    // How full the disk is on which the tests run says nothing of what they test.
    if !flags.iter().any(|flag| flag == KEEP_FREE) {
        command.args([KEEP_FREE, "0"]);
    }
    command
}

fn launch(data: &Path, listen: &str, flags: &[String]) -> Process {
    let process = spawn(data, listen, flags);
    process.wait_for_line("listening on ");
    process
}

fn said_after(process: &Process, start: &str) -> String {
    let line = process.wait_for_line(start);
    line.split_once(start).map(|(_, rest)| rest.trim().to_owned()).expect("the line holds it")
}

/// An address of 127.0.0.0/8 that no other server of this test program has, nor one of a program beside it.
pub fn own_loopback() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 1 + high % 250, low, NEXT.fetch_add(1, Ordering::Relaxed))
}
