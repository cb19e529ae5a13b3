//! The key that lets operators into held machines.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use groundcrew_protocol::operator::HoldKey;
use groundcrew_protocol::wire::ErrorBody;

use super::app::App;
use super::auth::Operator;
use super::body::{Json, ok};
use super::error::ApiError;
use crate::live::clock::wall_now;
use crate::store::NewAudit;

/// The setting under which it is kept.
pub const HOLD_KEY: &str = "hold_key";
/// Longest line: an RSA key of 16,384 bits and a comment.
const KEY_BYTES_MAX: usize = 4_096;
/// Types of keys that may let somebody in.
const KEY_TYPES: [&str; 7] = [
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// The key for holds.
#[utoipa::path(get, path = "/api/v1/hold-key", tag = "orchestrator", security(("operator" = [])),
    responses((status = 200, body = HoldKey), (status = "4XX", body = ErrorBody)))]
pub async fn get_hold_key(State(app): State<Arc<App>>, _operator: Operator) -> Result<Response, ApiError> {
    Ok(ok(&HoldKey { authorized_key: app.store.setting(HOLD_KEY).await? }))
}

/// Sets the key for holds, or takes it away.
#[utoipa::path(put, path = "/api/v1/hold-key", tag = "orchestrator", security(("operator" = [])),
    request_body = HoldKey, responses((status = 200, body = HoldKey), (status = "4XX", body = ErrorBody)))]
pub async fn put_hold_key(
    State(app): State<Arc<App>>,
    operator: Operator,
    Json(key, _held): Json<HoldKey>,
) -> Result<Response, ApiError> {
    let line = key.authorized_key.map(|line| line.trim().to_owned());
    if let Some(line) = &line {
        expect_key(line)?;
    }
    let audit = NewAudit {
        at: wall_now(),
        actor: operator.name.to_string(),
        action: "put_hold_key".to_owned(),
        run: None,
        text: line.clone().unwrap_or_else(|| "taken away".to_owned()),
    };
    app.store.put_setting(HOLD_KEY, line.clone(), audit).await?;
    Ok(ok(&HoldKey { authorized_key: line }))
}

/// Type, base64 and comment on one line: options could run commands on every held machine.
fn expect_key(line: &str) -> Result<(), ApiError> {
    let mut parts = line.split_ascii_whitespace();
    let is_type = parts.next().is_some_and(|kind| KEY_TYPES.contains(&kind));
    let is_base64 = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
    let has_key = parts.next().is_some_and(is_base64);
    if is_type && has_key && line.len() <= KEY_BYTES_MAX && !line.chars().any(char::is_control) {
        return Ok(());
    }
    Err(ApiError::unfit(
        "field authorized_key: expected one line with type, key and comment of an SSH public key and no options, as in \
         `ssh-ed25519 AAAA… name`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_no_options_and_no_second_line() {
        assert!(expect_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI ann@desk").is_ok());
        for bad in [
            "",
            "ssh-ed25519",
            "command=\"id\" ssh-ed25519 AAAA",
            "ssh-ed25519 AAAA ann\nssh-ed25519 BBBB",
            "ssh-dss AAAA",
            "ssh-ed25519 AA;AA",
        ] {
            assert!(expect_key(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
