//! A run's events as they happen (server-sent events), after those that were missed.
//!
//! Four kinds are sent: `event` with an id and a stored event, `log` with lines of one stage, `agent` with what the
//! agent says of itself, `gap` with what is missing in between. Only the first is stored, and after `Last-Event-ID` every later one comes exactly once and in
//! order, because each is read from the store: the feed only says that there is something to read.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::operator::EventView;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{ErrorBody, LogLine};
use http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::app::App;
use super::auth::{Operator, parse_run};
use super::body::Query;
use super::error::ApiError;
use crate::live::LiveRun;
use crate::live::feed::Telling;
use crate::store::StoreError;

/// Events that are read at a time.
const EVENTS_PER_READ: u32 = 200;
/// A comment is sent after this much silence, so that both ends notice when the other is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where to begin.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Begin after this event, as the header `Last-Event-ID` says; 0 or nothing: from the first.
    after: Option<u64>,
}

#[derive(Serialize)]
struct LogTelling<'a> {
    stage: Option<&'a Stage>,
    lines: &'a [LogLine],
}

#[derive(Serialize)]
struct AgentTelling {
    agent: Option<String>,
    activity: String,
    drain: String,
    home_failed: bool,
}

#[derive(Serialize)]
struct GapTelling {
    /// The first event that is still stored, where those before it were swept.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_kept: Option<u64>,
    /// Tellings that were lost because the watcher was too slow: lines of log among them are read from the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
}

/// Events of a run: those after `Last-Event-ID`, then those that come.
#[utoipa::path(get, path = "/api/v1/runs/{run}/events", tag = "runs", security(("operator" = [])),
    params(("run" = String, Path, description = "Id of the run"), EventsQuery),
    responses((status = 200, description = "`event` (with id), `log`, `agent`, and `gap` where events were swept or a slow watcher missed tellings",
        body = EventView, content_type = "text/event-stream"), (status = "4XX", body = ErrorBody)))]
pub async fn events(
    State(app): State<Arc<App>>,
    _operator: Operator,
    Path(run): Path<String>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let run = parse_run(&run)?;
    let live = app.live_run(&run).await?;
    let after =
        match headers.get("last-event-id").map(|id| (id, id.to_str().ok().and_then(|id| id.parse().ok()))) {
            None => query.after.unwrap_or(0),
            Some((_, Some(after))) => after,
            Some((found, None)) => {
                let text = format!("header Last-Event-ID: found {found:?}, expected the number of an event");
                return Err(ApiError::bad(text));
            }
        };
    // Watching begins before reading, so that no event falls between the two.
    let told = live.feed.watch();
    let mut ready = VecDeque::new();
    if let Some(first_kept) =
        app.store.first_event(&run).await?.filter(|first| after > 0 && after + 1 < *first)
    {
        // Numbers run over all runs, so some of those between may have been another's.
        ready.push_back(named("gap", &GapTelling { first_kept: Some(first_kept), missed: None }));
    }
    let mut watch = Watch { app, run, live, told, after, ready, behind: true };
    watch.read_events().await?;
    let events = Sse::new(stream_of(watch)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    let mut response = events.into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

struct Watch {
    app: Arc<App>,
    run: RunId,
    live: Arc<LiveRun>,
    told: Receiver<Telling>,
    after: u64,
    ready: VecDeque<Event>,
    /// There may be more events in the store.
    behind: bool,
}

fn stream_of(watch: Watch) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(watch, |mut watch| async {
        loop {
            if let Some(event) = watch.ready.pop_front() {
                return Some((Ok(event), watch));
            }
            let goes_on = if watch.behind { watch.catch_up().await } else { watch.wait().await };
            if !goes_on {
                return None;
            }
        }
    })
}

impl Watch {
    /// Waits for the next telling. False where the server stops or the store fails: the client comes again.
    async fn wait(&mut self) -> bool {
        let told = tokio::select! {
            () = self.app.stop.cancelled() => return false,
            told = self.told.recv() => told,
        };
        match told {
            Ok(Telling::Events) => return self.catch_up().await,
            Ok(Telling::Log { stage, lines }) => {
                let log = LogTelling { stage: stage.as_ref(), lines: &lines };
                self.ready.push_back(named("log", &log));
            }
            Ok(Telling::Agent) => self.ready.push_back(self.agent()),
            // Too slow: stored events are read again; lines of log are in the log, and that they were missed is said.
            Err(RecvError::Lagged(missed)) => {
                self.ready.push_back(named("gap", &GapTelling { first_kept: None, missed: Some(missed) }));
                return self.catch_up().await;
            }
            Err(RecvError::Closed) => return false,
        }
        true
    }

    /// Reads what is stored. False where the store fails.
    async fn catch_up(&mut self) -> bool {
        let read = self.read_events().await;
        if let Err(error) = &read {
            tracing::warn!(run = %self.run, %error, "events not read");
        }
        read.is_ok()
    }

    /// Reads one part of what is stored after the last event that was read. After the last part, and only then, comes
    /// what the agent says of itself: it belongs to now.
    async fn read_events(&mut self) -> Result<(), StoreError> {
        let events = self.app.store.events(Some(&self.run), self.after, EVENTS_PER_READ).await?;
        let is_last = events.len() < EVENTS_PER_READ as usize;
        for event in events {
            self.after = event.id;
            self.ready.push_back(stored(&event));
        }
        if is_last {
            self.ready.push_back(self.agent());
        }
        self.behind = !is_last;
        Ok(())
    }

    fn agent(&self) -> Event {
        let agent = self.app.live.agent_word(&self.live);
        let said = self.live.state().said.clone();
        let (activity, drain, home_failed) =
            said.map(|said| (said.activity, said.drain, said.home_failed)).unwrap_or_default();
        named("agent", &AgentTelling { agent, activity, drain, home_failed })
    }
}

fn stored(event: &EventView) -> Event {
    named("event", event).id(event.id.to_string())
}

fn named<T: Serialize>(name: &str, data: &T) -> Event {
    Event::default().event(name).json_data(data).expect("our own types serialise")
}
