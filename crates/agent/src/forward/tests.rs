//! The forwarder against an orchestrator that loses, refuses and closes.

#[path = "../../../client/tests/support/mod.rs"]
mod support;

use std::path::Path;

use groundcrew_client::PinSet;
use groundcrew_protocol::ids::{RunId, TokenText};
use groundcrew_protocol::wire::{ErrorBody, LogLevel, LogLine, Taken};
use support::{Identity, Server, Stream, answer, read_request};

use super::*;
use crate::io_thread::HomeHealth;
use crate::spool::Kind;
use crate::spool::tests::model::{self, Model};

const LONG: Duration = Duration::from_secs(60);

fn run() -> RunId {
    "r-1".parse().unwrap()
}

fn line(text: &str) -> LogLine {
    LogLine { ts: "2026-01-01T00:00:00Z".into(), level: LogLevel::Info, stage: None, text: text.into() }
}

fn spools(folder: &Path) -> [Spool; 2] {
    [Kind::Log, Kind::Sensor].map(|kind| Spool::open_in(folder, &run(), kind, 1 << 24).unwrap().0)
}

fn console() -> Console {
    Console::start().unwrap()
}

fn quick() -> Backoff {
    // Nothing but a claim, a flush or a millisecond ends a wait.
    Backoff::new(Duration::from_millis(1), Duration::from_millis(2), Duration::from_secs(3600))
}

/// What the other side does with a call.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Take,
    LoseMessage,
    LoseAnswer,
    Refuse(u16, &'static str),
}

/// An orchestrator in memory, with a fate for each call in turn; afterwards every call is taken.
#[derive(Clone, Default)]
struct Fake {
    model: Arc<Mutex<Model>>,
    fates: Arc<Mutex<std::collections::VecDeque<Fate>>>,
    claims: Arc<Mutex<Vec<u64>>>,
    /// Gets a line at every call.
    meanwhile: Arc<Mutex<Option<Spool>>>,
}

impl Fake {
    fn with(fates: impl IntoIterator<Item = Fate>) -> Fake {
        let fake = Fake::default();
        fake.fates.lock().unwrap().extend(fates);
        fake
    }

    fn lines(&self) -> Vec<String> {
        self.model.lock().unwrap().lines()
    }
}

fn refusal(code: u16, word: &str) -> Error {
    let body =
        ErrorBody { error: "no".into(), code: word.into(), state: None, claim: None, retry_after_s: None };
    Error::Status { call: "POST log".into(), code, body: Box::new(body) }
}

impl Courier for Fake {
    async fn send(&self, kind: Kind, body: Bytes) -> Result<StreamAnswer, Error> {
        assert_eq!(kind, Kind::Log);
        let request: serde_json::Value = serde_json::from_slice(&body).unwrap();
        self.claims.lock().unwrap().push(request["claim"].as_u64().unwrap());
        if let Some(spool) = &*self.meanwhile.lock().unwrap() {
            spool.append_line(&line("meanwhile")).unwrap();
        }
        let fate = self.fates.lock().unwrap().pop_front().unwrap_or(Fate::Take);
        let timeout = || Error::Timeout { call: "POST log".into(), after_ms: 5_000 };
        match fate {
            Fate::LoseMessage => return Err(timeout()),
            Fate::Refuse(code, word) => return Err(refusal(code, word)),
            Fate::Take | Fate::LoseAnswer => {}
        }
        let taken = match self.model.lock().unwrap().receive_body(&body) {
            model::Taken::First => Taken::First,
            model::Taken::Repeated => Taken::Repeated,
            model::Taken::Other => return Err(refusal(409, "other_content")),
        };
        if matches!(fate, Fate::LoseAnswer) { Err(timeout()) } else { Ok(StreamAnswer { taken }) }
    }
}

struct World {
    forwarder: Forwarder,
    log: Spool,
    claim: watch::Sender<ClaimNumber>,
    _home: tempfile::TempDir,
}

fn start(courier: impl Courier, claim: u64) -> World {
    let home = tempfile::tempdir().unwrap();
    let spools = spools(home.path());
    let log = spools[0].clone();
    let io = IoThread::start(HomeHealth::default()).unwrap();
    let (claim, watched) = watch::channel(ClaimNumber(claim));
    let forwarder =
        Forwarder::start_with(spools, io, courier, watched, CancellationToken::new(), console(), quick());
    World { forwarder, log, claim, _home: home }
}

#[tokio::test]
async fn losses_on_the_way_lose_and_double_no_line() {
    let fates = (0..60).map(|at| match at % 5 {
        0 => Fate::LoseMessage,
        1 | 4 => Fate::LoseAnswer,
        2 => Fate::Refuse(507, "full"),
        _ => Fate::Take,
    });
    let fake = Fake::with(fates);
    let world = start(fake.clone(), 1);
    let writer = world.log.clone();
    let texts: Vec<String> = (0..3_000).map(|number| format!("{number:05}{}", "x".repeat(400))).collect();
    let expected = texts.clone();
    let appending = std::thread::spawn(move || {
        texts.iter().for_each(|text| writer.append_line(&line(text)).unwrap());
    });
    tokio::task::spawn_blocking(|| appending.join().unwrap()).await.unwrap();
    assert!(world.forwarder.flush(LONG).await);
    assert_eq!(fake.lines(), expected);
    fake.model.lock().unwrap().check_whole();
    let status = world.forwarder.status();
    assert!(status.last_error.is_empty() && status.waits_for.is_empty(), "{status:?}");
    assert_eq!(world.forwarder.spools().map(|spool| spool.unsent_chunks), [0, 0]);
    // What comes after a flush is a new stream.
    world.log.append_line(&line("later")).unwrap();
    assert!(world.forwarder.flush(LONG).await);
    assert_eq!(fake.lines().last().unwrap(), "later");
    world.forwarder.stop().await;
}

#[tokio::test]
async fn lines_that_come_during_a_flush_do_not_keep_it_waiting() {
    let fake = Fake::default();
    let world = start(fake.clone(), 1);
    *fake.meanwhile.lock().unwrap() = Some(world.log.clone());
    for _ in 0..3 {
        assert!(world.forwarder.flush(LONG).await);
        world.log.append_line(&line("before")).unwrap();
        assert!(world.forwarder.flush(LONG).await);
        assert!(world.forwarder.spools()[0].unsent_chunks > 0);
    }
    *fake.meanwhile.lock().unwrap() = None;
    assert!(world.forwarder.flush(LONG).await);
    assert_eq!(fake.lines().iter().filter(|text| *text == "before").count(), 3);
    fake.model.lock().unwrap().check_whole();
}

#[tokio::test]
async fn nothing_is_sent_before_the_first_claim_and_under_an_old_one() {
    let fake = Fake::with([Fate::Refuse(409, "old_claim")]);
    let world = start(fake.clone(), 0);
    world.log.append_line(&line("a")).unwrap();
    assert!(!world.forwarder.flush(Duration::from_millis(50)).await);
    assert!(fake.claims.lock().unwrap().is_empty());
    assert!(world.forwarder.status().waits_for.contains("claim"));
    world.claim.send(ClaimNumber(3)).unwrap();
    // The flush that was given up left a closed stream; under claim 3 it is refused, and waits for claim 5.
    while fake.claims.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(fake.lines().is_empty());
    world.claim.send(ClaimNumber(5)).unwrap();
    assert!(world.forwarder.flush(LONG).await);
    assert_eq!(fake.lines(), ["a"]);
    assert_eq!(*fake.claims.lock().unwrap(), [3, 5, 5]);
}

#[tokio::test]
async fn a_chunk_that_is_never_taken_is_counted_and_the_rest_goes_on() {
    let fake = Fake::with([Fate::Refuse(413, "bad")]);
    let world = start(fake.clone(), 1);
    world.log.append_line(&line(&"x".repeat(8_000))).unwrap();
    for _ in 0..8 {
        world.log.append_line(&line(&"y".repeat(8_000))).unwrap();
    }
    assert!(world.forwarder.flush(LONG).await);
    assert_eq!(world.forwarder.status().refused, 1);
    let gaps = fake.model.lock().unwrap().gaps();
    assert!(gaps.len() == 1 && gaps[0].chunks == 1 && gaps[0].why.contains("413"), "{gaps:?}");
    let lines = fake.lines();
    assert!(!lines.is_empty() && lines.iter().all(|text| text.starts_with('y')), "{}", lines.len());
}

#[tokio::test]
async fn what_was_not_sent_stays_for_the_next_process() {
    let home = tempfile::tempdir().unwrap();
    let refuse = Fake::with(std::iter::repeat_n(Fate::Refuse(401, "token"), 10));
    let io = IoThread::start(HomeHealth::default()).unwrap();
    let (_claim, watched) = watch::channel(ClaimNumber(1));
    let cancel = CancellationToken::new();
    let first = spools(home.path());
    first[0].append_line(&line("a")).unwrap();
    let (kept, with) = (first[0].clone(), watched.clone());
    let forwarder =
        Forwarder::start_with(first, io.clone(), refuse.clone(), with, cancel.clone(), console(), quick());
    // 401 is asked again in an hour here: a flush gives up.
    assert!(!forwarder.flush(Duration::from_millis(100)).await);
    cancel.cancel();
    forwarder.stop().await;
    drop(kept);
    let fake = Fake::default();
    let again = Forwarder::start_with(
        spools(home.path()),
        io,
        fake.clone(),
        watched,
        CancellationToken::new(),
        console(),
        quick(),
    );
    assert!(again.flush(LONG).await);
    assert_eq!(fake.lines(), ["a"]);
}

#[tokio::test]
async fn over_a_real_connection_that_closes_after_every_other_answer() {
    let identity = Identity::expired();
    let model: Arc<Mutex<Model>> = Arc::default();
    let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (seen, counted) = (model.clone(), calls.clone());
    let serve = move |mut stream: Stream| {
        let (model, calls) = (seen.clone(), counted.clone());
        async move {
            while let Some((head, body)) = read_request(&mut stream).await {
                assert!(head.starts_with("POST /api/v1/runs/r-1/log HTTP/1.1\r\n"), "{head}");
                let taken = match model.lock().unwrap().receive_body(&body) {
                    model::Taken::First => "first",
                    model::Taken::Repeated => "repeated",
                    model::Taken::Other => panic!("other content"),
                };
                // The message is stored, and its answer lost with the connection.
                if calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % 2 == 1 {
                    return;
                }
                answer(&mut stream, "200 OK", &format!("{{\"taken\":\"{taken}\"}}")).await;
            }
        }
    };
    let server = Server::start(&identity, &identity, false, serve).await;
    let base = format!("https://127.0.0.1:{}", server.port).parse().unwrap();
    let token = Some(TokenText::run([1; 32]));
    let orchestrator = Orchestrator::new(base, PinSet::new([identity.pin()]), token, run());
    let world = start(orchestrator, 1);
    let expected: Vec<String> = (0..2_000).map(|number| format!("{number:05} {}", "é".repeat(200))).collect();
    let (writer, texts) = (world.log.clone(), expected.clone());
    let append = move || texts.iter().for_each(|text| writer.append_line(&line(text)).unwrap());
    tokio::task::spawn_blocking(append).await.unwrap();
    assert!(world.forwarder.flush(LONG).await);
    assert_eq!(model.lock().unwrap().lines(), expected);
    model.lock().unwrap().check_whole();
    assert!(server.connections() > 2, "{}", server.connections());
}
