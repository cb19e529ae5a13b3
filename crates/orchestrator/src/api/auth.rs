//! Who may speak: every handler but the health check and the login names one of these in its arguments.
//!
//! [`Agent`] has the run token of the run in the path, [`Boot`] its boot token or run token, [`Operator`] an
//! operator's token. Tokens are compared by their SHA-256, in constant time, and never logged.

use std::sync::{Arc, RwLock};

use axum::extract::{FromRequestParts, RawPathParams};
use groundcrew_protocol::ids::{RunId, TokenText};
use groundcrew_protocol::limits;
use groundcrew_protocol::time::WallMs;
use http::request::Parts;
use http::{HeaderMap, Method, header};

use super::app::App;
use super::error::ApiError;
use crate::live::bucket::Bucket;
use crate::live::clock::wall_now;
use crate::live::digest::TokenDigest;
use crate::live::{Bearer, LiveRun};
use crate::store::{NewAudit, Store, StoreError, TokenRow};

/// Name of the cookie in which the dashboard keeps a session. The prefix makes browsers refuse it from anyone but this host.
pub const COOKIE: &str = "__Host-groundcrew_session";

/// Operators' tokens that are good.
#[derive(Debug, Default)]
pub struct OperatorTokens {
    good: RwLock<Vec<OperatorToken>>,
}

#[derive(Debug, Clone)]
struct OperatorToken {
    name: Arc<str>,
    digest: TokenDigest,
    bucket: Arc<Bucket>,
}

impl OperatorTokens {
    /// Reads them from the store, after each change.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn reload(&self, store: &Store) -> Result<(), StoreError> {
        let rows = store.tokens().await?;
        let good = rows.into_iter().filter(|row| row.revoked.is_none()).map(|row| OperatorToken {
            name: row.name.into(),
            digest: TokenDigest::from(&row.sha256),
            bucket: Arc::default(),
        });
        let good = good.collect();
        *self.good.write().expect("no holder of this lock panics") = good;
        Ok(())
    }

    /// Whose token this is. Every token is compared, so that the time says nothing.
    fn find(&self, digest: &TokenDigest) -> Option<OperatorToken> {
        let good = self.good.read().expect("no holder of this lock panics");
        let matching = good.iter().filter(|token| token.digest.is(digest));
        matching.fold(None, |found, token| found.or_else(|| Some(token.clone())))
    }

    /// True where this is an operator's token.
    pub fn knows(&self, token: &str) -> bool {
        self.find(&TokenDigest::of(token)).is_some()
    }
}

/// Makes an operator's token: what is shown once, and what is kept.
pub fn make_operator_token(name: &str, by: &str, at: WallMs) -> (TokenText, TokenRow, NewAudit) {
    let token = TokenText::operator(random());
    let row = TokenRow { name: name.to_owned(), sha256: token.sha256(), created: at, revoked: None };
    let audit = NewAudit {
        at,
        actor: by.to_owned(),
        action: "add_token".to_owned(),
        run: None,
        text: format!("a token for {name}"),
    };
    (token, row, audit)
}

/// Random bytes from the kernel.
pub fn random<const COUNT: usize>() -> [u8; COUNT] {
    let mut bytes = [0; COUNT];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes on every system this runs on");
    bytes
}

/// An operator.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The name that the token was made for.
    pub name: Arc<str>,
}

impl FromRequestParts<Arc<App>> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Operator, ApiError> {
        let of_session = || {
            // A cookie travels by itself, so it may read and never change anything.
            let reads = parts.method == Method::GET;
            let name = reads.then(|| cookie(&parts.headers)).flatten()?;
            app.sessions.token_of(name, wall_now())
        };
        let digest = bearer(parts).map(TokenDigest::of).or_else(of_session);
        let Some(found) = digest.and_then(|digest| app.operators.find(&digest)) else {
            return Err(unauthorized(app, NO_OPERATOR));
        };
        admit(app, &found.bucket)?;
        Ok(Operator { name: found.name })
    }
}

const NO_OPERATOR: &str = "this call needs an operator's token in the header `Authorization: Bearer gco_…`; the first \
    start of the server printed one, and who has one makes others with `groundcrewctl token add NAME`. Where all are lost, stop the server and use `groundcrewd token add NAME`";
const NO_RUN_TOKEN: &str = "this call needs the run token of this run in the header `Authorization: Bearer gcr_…`: the one \
    whose SHA-256 its current claim named. Claim the run again to take hold of it";
const NO_BOOT_TOKEN: &str = "this call needs the boot token or the run token of this run in the header `Authorization: Bearer \
    gcb_…`; make a new boot token with `groundcrewctl run token RUN`, or where the run has ended another run";

/// An agent with the run token of the run in the path.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its run.
    pub run: Arc<LiveRun>,
}

impl FromRequestParts<Arc<App>> for Agent {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Agent, ApiError> {
        let (run, _digest, bearer) = run_bearer(parts, app, NO_RUN_TOKEN).await?;
        match bearer {
            Bearer::Agent => Ok(Agent { run }),
            Bearer::Boot | Bearer::Stranger => Err(unauthorized(app, NO_RUN_TOKEN)),
        }
    }
}

/// An agent with the boot token or the run token of the run in the path.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Its run.
    pub run: Arc<LiveRun>,
    /// The token that it showed.
    pub digest: TokenDigest,
}

impl FromRequestParts<Arc<App>> for Boot {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Boot, ApiError> {
        let (run, digest, bearer) = run_bearer(parts, app, NO_BOOT_TOKEN).await?;
        match bearer {
            Bearer::Agent | Bearer::Boot => Ok(Boot { run, digest }),
            Bearer::Stranger => Err(unauthorized(app, NO_BOOT_TOKEN)),
        }
    }
}

async fn run_bearer(
    parts: &mut Parts,
    app: &Arc<App>,
    how: &'static str,
) -> Result<(Arc<LiveRun>, TokenDigest, Bearer), ApiError> {
    let Some(token) = bearer(parts) else { return Err(unauthorized(app, how)) };
    let digest = TokenDigest::of(token);
    let run = path_run(parts, app).await?;
    let live = match app.live.get(&run) {
        Some(live) => live,
        None => {
            // Anyone can name a run that is not at hand; looking for it costs a read.
            admit(app, &app.strangers)?;
            app.live_run(&run).await?
        }
    };
    let bearer = live.bearer(&digest);
    if bearer == Bearer::Stranger {
        return Ok((live, digest, bearer));
    }
    if let Err(seconds) = app.live.admit(&live) {
        return Err(too_often(app, seconds));
    }
    let ended = live.state().ended;
    if let Some(ended) = ended.filter(|at| at.plus(limits::RUN_TOKEN_AFTER_END_MS) < wall_now()) {
        let error = format!("run {run} ended at {ended}, and its tokens 24 h later");
        app.counters.unauthorized.one();
        return Err(ApiError::token(error).at(live.state().standing.clone()));
    }
    Ok((live, digest, bearer))
}

/// The run that the path names.
async fn path_run(parts: &mut Parts, app: &Arc<App>) -> Result<RunId, ApiError> {
    let params = RawPathParams::from_request_parts(parts, app).await;
    let params = params.map_err(|error| ApiError::bad(error.body_text()))?;
    let run = params.iter().find(|(name, _)| *name == "run").map(|(_, run)| run);
    let run = run.expect("every route of an agent's has {run} in its path");
    run.parse().map_err(|error| ApiError::bad(format!("in the path: {error}")))
}

fn admit(app: &App, bucket: &Bucket) -> Result<(), ApiError> {
    app.live.admit_by(bucket).map_err(|seconds| too_often(app, seconds))
}

fn too_often(app: &App, seconds: u64) -> ApiError {
    app.counters.too_often.one();
    ApiError::too_often(seconds)
}

fn unauthorized(app: &App, how: &'static str) -> ApiError {
    app.counters.unauthorized.one();
    match app.live.admit_by(&app.strangers) {
        Ok(()) => ApiError::token(how),
        Err(seconds) => too_often(app, seconds),
    }
}

fn bearer(parts: &Parts) -> Option<&str> {
    let header = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The session in a request's cookies.
pub fn cookie(headers: &HeaderMap) -> Option<&str> {
    let headers = headers.get_all(header::COOKIE).iter().filter_map(|header| header.to_str().ok());
    let mut pairs = headers.flat_map(|header| header.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// The run in a path of an operator's, parsed.
pub fn parse_run(text: &str) -> Result<RunId, ApiError> {
    text.parse().map_err(|error| ApiError::bad(format!("in the path: {error}")))
}
