//! Logs: agents send chunks, operators read lines, also while they come.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::limits;
use groundcrew_protocol::operator::LogView;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::{ErrorBody, LogLine, LogRequest, StreamAnswer};
use http::{HeaderValue, header};
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::agent::{expect_count, expect_room, expect_text, fence, taken};
use super::app::App;
use super::auth::{Agent, Operator, parse_run};
use super::body::{Json, Query, ok};
use super::error::ApiError;
use crate::live::clock::wall_now;
use crate::live::feed::Telling;
use crate::store::{LogChunk, LogCursor, Taken};

/// Longest stamp of a line.
const STAMP_BYTES_MAX: usize = 64;
/// Longest name of a stage.
const STAGE_BYTES_MAX: usize = 256;
/// Lines of a page that names no number.
const LINES_DEFAULT: usize = 1_000;
/// Lines of a page.
const LINES_MAX: usize = 10_000;

/// Stores a chunk of log, once per stream and number.
#[utoipa::path(post, path = "/api/v1/runs/{run}/log", tag = "agent", security(("run" = [])),
    params(("run" = String, Path, description = "Id of the run")), request_body = LogRequest,
    responses((status = 200, body = StreamAnswer), (status = "4XX", body = ErrorBody),
        (status = 507, description = "The disk is nearly full", body = ErrorBody)))]
pub async fn log(
    State(app): State<Arc<App>>,
    agent: Agent,
    Json(request, _held): Json<LogRequest, { limits::LOG_BODY_BYTES_MAX }>,
) -> Result<Response, ApiError> {
    expect_bounded(&request)?;
    fence(&app, &agent.run, request.claim)?;
    expect_room(&app, "logs")?;
    let LogRequest { claim, stream, seq, lines, gap, closes } = request;
    let watched = agent.run.feed.is_watched().then(|| lines.clone());
    let count = lines.len() as u64;
    let run = agent.run.id.clone();
    let chunk = LogChunk { run, stream, seq, claim, at: wall_now(), lines, gap, closes };
    let stored = app.store.logs().append(chunk).await?;
    match stored {
        Taken::First => {
            app.counters.log_lines.many(count);
            if let Some(lines) = watched {
                agent.run.feed.tell_lines(&lines);
            }
        }
        Taken::Repeated => app.counters.log_repeated.one(),
        Taken::OtherContent => {}
    }
    Ok(ok(&taken(stored, &format!("chunk {seq} of this log stream"))?))
}

fn expect_bounded(request: &LogRequest) -> Result<(), ApiError> {
    expect_count("lines", request.lines.len(), limits::LOG_LINES_MAX)?;
    let is_long = |line: &LogLine| {
        line.text.len() > limits::LOG_LINE_BYTES_MAX
            || line.ts.len() > STAMP_BYTES_MAX
            || long_stage(line.stage.as_ref()).is_some()
    };
    let Some((index, line)) = request.lines.iter().enumerate().find(|(_, line)| is_long(line)) else {
        return Ok(());
    };
    let stage = long_stage(line.stage.as_ref()).unwrap_or_default();
    expect_text(&format!("lines[{index}].text"), &line.text, limits::LOG_LINE_BYTES_MAX)?;
    expect_text(&format!("lines[{index}].ts"), &line.ts, STAMP_BYTES_MAX)?;
    expect_text(&format!("lines[{index}].stage"), &stage, STAGE_BYTES_MAX)
}

/// The name of a stage, where it is too long to be one. The words that are known are not.
fn long_stage(stage: Option<&Stage>) -> Option<String> {
    match stage? {
        Stage::Package { name, mode } if name.len() + mode.len() > STAGE_BYTES_MAX => {
            Some(format!("{name}/{mode}"))
        }
        Stage::Interrupt { name } if name.len() > STAGE_BYTES_MAX => Some(name.clone()),
        Stage::Unknown(name) if name.len() > STAGE_BYTES_MAX => Some(name.clone()),
        Stage::Package { .. }
        | Stage::Interrupt { .. }
        | Stage::Unknown(_)
        | Stage::Inventory
        | Stage::SpecValidate
        | Stage::Smart
        | Stage::CpuStress
        | Stage::Memory
        | Stage::Storage
        | Stage::Network
        | Stage::Gpu
        | Stage::Soak
        | Stage::Psu
        | Stage::Reporting => None,
    }
}

/// Which lines are asked for, and how.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Only lines of this stage.
    stage: Option<String>,
    /// Begin after this place: `next` of the page before.
    after: Option<String>,
    /// At most this many lines in a page, 1 to 10,000.
    limit: Option<usize>,
    /// The last so many lines instead of a page; what comes after them begins after `next`.
    tail: Option<usize>,
    /// `json` (the default) or `text`.
    format: Option<String>,
    /// Keep the answer open and send lines as they come; text only.
    follow: bool,
}

/// Lines of a run's log: a page as JSON, or text, which can be followed.
#[utoipa::path(get, path = "/api/v1/runs/{run}/logs", tag = "runs", security(("operator" = [])),
    params(("run" = String, Path, description = "Id of the run"), LogQuery),
    responses((status = 200, body = LogView, description = "A page; with `format=text` plain lines"),
        (status = "4XX", body = ErrorBody)))]
pub async fn logs(
    State(app): State<Arc<App>>,
    _operator: Operator,
    Path(run): Path<String>,
    Query(query): Query<LogQuery>,
) -> Result<Response, ApiError> {
    let run = parse_run(&run)?;
    let live = app.live_run(&run).await?;
    let stage = query.stage.clone().map(Stage::from);
    let after = query.after.as_deref().map_or(Ok(LogCursor::default()), parse_cursor)?;
    let limit = query.limit.unwrap_or(LINES_DEFAULT);
    if !(1..=LINES_MAX).contains(&limit) || query.tail.is_some_and(|count| count > LINES_MAX) {
        return Err(ApiError::bad(format!("query limit or tail: expected 1 to {LINES_MAX} lines")));
    }
    let text = match query.format.as_deref() {
        Some("text") => true,
        None => query.follow,
        Some("json") if !query.follow => false,
        Some(found) => {
            let expected = "expected json, or text, which alone can be followed";
            return Err(ApiError::bad(format!("query format: found {found:?}, {expected}")));
        }
    };
    if query.follow {
        // Watching begins before reading, so that no line falls between the two.
        let told = live.feed.watch();
        return Ok(plain(Body::from_stream(follow(app, run, stage, after, told))));
    }
    let page = match query.tail {
        Some(count) => app.store.logs().tail(&run, stage.as_ref(), count).await?,
        None => app.store.logs().read(&run, stage.as_ref(), after, limit).await?,
    };
    if text {
        return Ok(plain(Body::from(text_of(&page.lines))));
    }
    let next = format!("{}.{}", page.next.chunk, page.next.line);
    Ok(ok(&LogView { lines: page.lines, next, at_end: page.at_end }))
}

fn parse_cursor(text: &str) -> Result<LogCursor, ApiError> {
    let cursor = text
        .split_once('.')
        .and_then(|(chunk, line)| Some(LogCursor { chunk: chunk.parse().ok()?, line: line.parse().ok()? }));
    cursor.ok_or_else(|| {
        ApiError::bad(format!("query after: found {text:?}, expected `next` of the page before, as 12.0"))
    })
}

/// One line of a log for people. The text is an agent's; its control characters stay out of terminals.
fn text_of(lines: &[LogLine]) -> Bytes {
    let mut text = String::new();
    for line in lines {
        let stage = line.stage.as_ref().map(ToString::to_string).unwrap_or_default();
        for part in
            [line.ts.as_str(), " ", line.level.as_str(), " ", &stage, if stage.is_empty() { "" } else { " " }]
        {
            text.extend(part.chars().map(printable));
        }
        text.extend(line.text.chars().map(printable));
        text.push('\n');
    }
    text.into()
}

fn printable(c: char) -> char {
    if c.is_control() && c != '\t' { '\u{fffd}' } else { c }
}

fn plain(body: Body) -> Response {
    let mut response = Response::new(body);
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

struct Follow {
    app: Arc<App>,
    run: RunId,
    stage: Option<Stage>,
    after: LogCursor,
    told: Receiver<Telling>,
}

/// Lines as they come, until the caller goes away or the server stops. An error ends it.
fn follow(
    app: Arc<App>,
    run: RunId,
    stage: Option<Stage>,
    after: LogCursor,
    told: Receiver<Telling>,
) -> impl Stream<Item = Result<Bytes, ApiErrorText>> {
    let start = Follow { app, run, stage, after, told };
    stream::unfold(Some(start), |state| async {
        let mut state = state?;
        loop {
            let logs = state.app.store.logs();
            let page = match logs.read(&state.run, state.stage.as_ref(), state.after, LINES_DEFAULT).await {
                Ok(page) => page,
                Err(error) => return Some((Err(ApiErrorText(error.to_string())), None)),
            };
            state.after = page.next;
            if !page.lines.is_empty() {
                return Some((Ok(text_of(&page.lines)), Some(state)));
            }
            if page.at_end && !state.wait_for_lines().await {
                return None;
            }
        }
    })
}

impl Follow {
    /// Waits until there may be more. False where the server stops.
    async fn wait_for_lines(&mut self) -> bool {
        loop {
            let told = tokio::select! {
                () = self.app.stop.cancelled() => return false,
                told = self.told.recv() => told,
            };
            match told {
                Ok(Telling::Log { .. }) | Err(RecvError::Lagged(_)) => return true,
                Ok(Telling::Events | Telling::Agent) => {}
                Err(RecvError::Closed) => return false,
            }
        }
    }
}

/// Why a stream was cut.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ApiErrorText(String);
