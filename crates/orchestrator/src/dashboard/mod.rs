//! Pages for people: the list of runs, one run followed live, and the agents. Rendered here, with nothing loaded from elsewhere.
//!
//! They show what the API answers and change nothing. An operator logs in with a token and gets a session, whose name is
//! in a cookie that scripts cannot read, other sites cannot send, and the API takes for reading alone.

mod agents;
mod list;
mod run;
mod spark;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::api::app::App;
use crate::api::auth::{COOKIE, Operator, cookie, random};
use crate::api::body::Raw;
use crate::api::error::ApiError;
use crate::api::sessions::SESSION_MS;
use crate::api::{Access, Route};
use crate::live::clock::wall_now;
use crate::live::digest::TokenDigest;

const STYLE: &str = include_str!("style.css");
/// A form with a token in it.
const FORM_BYTES_MAX: usize = 1_024;

/// Every route of the pages. A page that needs a token answers 401 with the form to log in.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/", Access::Operator, get(list::page)),
        Route::new(Method::GET, "/runs/{run}", Access::Operator, get(run::page)),
        Route::new(Method::GET, "/agents", Access::Operator, get(agents::page)),
        Route::new(Method::GET, "/login", Access::Open, get(login_page)),
        Route::new(Method::POST, "/login", Access::Open, post(login)),
        Route::new(Method::POST, "/logout", Access::Open, post(logout)),
    ]
}

/// A page, with a nonce without which no style or script of it counts.
struct Page {
    nonce: String,
    title: String,
    /// Seconds after which the browser asks again; 0: never.
    refresh_s: u32,
    main: Markup,
    script: Option<&'static str>,
    status: StatusCode,
    /// Somebody is logged in.
    is_inside: bool,
}

impl Page {
    fn new(title: impl Into<String>, main: Markup) -> Page {
        let nonce = groundcrew_protocol::ids::hex(&random::<16>());
        Page {
            nonce,
            title: title.into(),
            refresh_s: 0,
            main,
            script: None,
            status: StatusCode::OK,
            is_inside: true,
        }
    }

    fn render(self) -> Response {
        let nonce = &self.nonce;
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    @if self.refresh_s > 0 { meta http-equiv="refresh" content=(self.refresh_s); }
                    title { (self.title) " · Groundcrew" }
                    style nonce=(nonce) { (PreEscaped(STYLE)) }
                }
                body {
                    header {
                        a href="/" { "Groundcrew" }
                        @if self.is_inside { nav { a href="/" { "Runs" } a href="/agents" { "Agents" } } }
                        @if self.is_inside { form method="post" action="/logout" { button { "Log out" } } }
                    }
                    main { (self.main) }
                    @if let Some(script) = self.script { script nonce=(nonce) { (PreEscaped(script)) } }
                }
            }
        };
        let policy = format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        );
        let policy = HeaderValue::from_str(&policy).expect("a nonce is hexadecimal");
        let mut response = (self.status, axum::response::Html(page.into_string())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

/// A page where an operator asks; else the form to log in, or what went wrong.
fn refused(error: ApiError) -> Response {
    if error.status() == StatusCode::UNAUTHORIZED {
        return login_form(StatusCode::UNAUTHORIZED, None);
    }
    let (status, text) = (error.status(), error.to_string());
    let main = html! { h1 { (status) } p { (text) } };
    Page { status, ..Page::new("Error", main) }.render()
}

fn login_form(status: StatusCode, wrong: Option<&str>) -> Response {
    let main = html! {
        h1 { "Log in" }
        p { "With an operator's token. The first start of the server printed one; who has one makes others with "
            code { "groundcrewctl token add NAME" } ". Where all are lost, stop the server and use "
            code { "groundcrewd token add NAME" } "." }
        @if let Some(wrong) = wrong { p.bad { (wrong) } }
        form method="post" action="/login" {
            label { "Token " input type="password" name="token" autocomplete="current-password" required autofocus; }
            button { "Log in" }
        }
    };
    Page { status, is_inside: false, ..Page::new("Log in", main) }.render()
}

async fn login_page() -> Response {
    login_form(StatusCode::OK, None)
}

async fn login(State(app): State<Arc<App>>, Raw(form, _held): Raw<FORM_BYTES_MAX>) -> Response {
    // A token needs no escaping in a form, so one that has some is none.
    let form = String::from_utf8_lossy(&form);
    let token = form.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap_or_default();
    if let Err(seconds) = app.live.admit_by(&app.strangers) {
        return ApiError::too_often(seconds).into_response();
    }
    if !app.operators.knows(token) {
        app.counters.unauthorized.one();
        return login_form(StatusCode::UNAUTHORIZED, Some("This is no operator's token, or it was revoked."));
    }
    let session = app.sessions.begin(TokenDigest::of(token), wall_now());
    let seconds = SESSION_MS / 1_000;
    go_to_list(&format!("{COOKIE}={session}; Path=/; HttpOnly; Secure; SameSite=Strict; Max-Age={seconds}"))
}

async fn logout(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if let Some(session) = cookie(&headers) {
        app.sessions.end(session);
    }
    go_to_list(&format!("{COOKIE}=; Path=/; HttpOnly; Secure; SameSite=Strict; Max-Age=0"))
}

fn go_to_list(cookie: &str) -> Response {
    let cookie = HeaderValue::from_str(cookie).expect("a session is hexadecimal");
    (StatusCode::SEE_OTHER, [(header::LOCATION, HeaderValue::from_static("/")), (header::SET_COOKIE, cookie)])
        .into_response()
}

/// Who asks for a page, or why it is refused.
type Reader = Result<Operator, ApiError>;
