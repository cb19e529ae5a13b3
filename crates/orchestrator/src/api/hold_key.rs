//! The keys that operators have registered for held machines, each under a name.
//!
//! They are settings of the store. The name `default` is the one key that there was before there were names, and that the
//! route without a name still means.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use groundcrew_protocol::hold::{HoldKey, RegisterKey, RegisteredKey, RegisteredKeys};
use groundcrew_protocol::ids::HoldKeyName;
use groundcrew_protocol::limits;
use groundcrew_protocol::wire::ErrorBody;
use http::StatusCode;

use super::app::App;
use super::auth::Operator;
use super::body::{Json, ok};
use super::error::ApiError;
use super::nodes::{audit, parse};
use crate::store::{Store, StoreError};

/// The setting under which the key without a name is kept; others stand behind it and a colon.
const HOLD_KEY: &str = "hold_key";
/// How the key without a name is called among the others.
const DEFAULT: &str = "default";
/// Longest line: an RSA key of 16,384 bits and a comment.
const KEY_BYTES_MAX: usize = 4_096;
/// Less is none for agents (an ed25519 key has 68 in base64).
const BLOB_BYTES_MIN: usize = 17;
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

/// The registered keys, by their names.
pub async fn registered(store: &Store) -> Result<Vec<RegisteredKey>, StoreError> {
    let settings = store.settings_under(HOLD_KEY).await?;
    let named = settings.into_iter().filter_map(|(setting, authorized_key)| {
        let name = match setting.strip_prefix(HOLD_KEY)? {
            "" => DEFAULT,
            behind => behind.strip_prefix(':')?,
        };
        // Nothing else is ever stored there.
        Some(RegisteredKey { name: name.parse().ok()?, authorized_key })
    });
    let mut keys: Vec<RegisteredKey> = named.collect();
    keys.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(keys)
}

fn setting_of(name: &HoldKeyName) -> String {
    match name.as_str() {
        DEFAULT => HOLD_KEY.to_owned(),
        name => format!("{HOLD_KEY}:{name}"),
    }
}

/// The registered key that is called `default`.
#[utoipa::path(get, path = "/api/v1/hold-key", tag = "orchestrator", security(("operator" = [])),
    responses((status = 200, body = HoldKey), (status = "4XX", body = ErrorBody)))]
pub async fn get_hold_key(State(app): State<Arc<App>>, _operator: Operator) -> Result<Response, ApiError> {
    Ok(ok(&HoldKey { authorized_key: app.store.setting(HOLD_KEY).await? }))
}

/// Registers the key that is called `default`, or takes it away.
#[utoipa::path(put, path = "/api/v1/hold-key", tag = "orchestrator", security(("operator" = [])),
    request_body = HoldKey, responses((status = 200, body = HoldKey), (status = "4XX", body = ErrorBody)))]
pub async fn put_hold_key(
    State(app): State<Arc<App>>,
    operator: Operator,
    Json(key, _held): Json<HoldKey>,
) -> Result<Response, ApiError> {
    let line = key.authorized_key.as_deref().map(expect_key).transpose()?;
    if let Some(line) = &line {
        expect_room(&app.store, &DEFAULT.parse().expect("it is a name"), line).await?;
    }
    let text = line.clone().unwrap_or_else(|| "taken away".to_owned());
    app.store.put_setting(HOLD_KEY, line.clone(), audit(&operator, "put_hold_key", text)).await?;
    Ok(ok(&HoldKey { authorized_key: line }))
}

/// The registered keys. While there is one, they let operators into held machines; otherwise each hold has a key of its own.
#[utoipa::path(get, path = "/api/v1/hold-keys", tag = "orchestrator", security(("operator" = [])),
    responses((status = 200, body = RegisteredKeys), (status = "4XX", body = ErrorBody)))]
pub async fn list_hold_keys(State(app): State<Arc<App>>, _operator: Operator) -> Result<Response, ApiError> {
    Ok(ok(&RegisteredKeys { keys: registered(&app.store).await? }))
}

/// Registers a key under a name, in the place of another of that name. Held machines have it within five minutes.
#[utoipa::path(put, path = "/api/v1/hold-keys/{name}", tag = "orchestrator", security(("operator" = [])),
    params(("name" = String, Path, description = "Its name")), request_body = RegisterKey,
    responses((status = 200, body = RegisteredKey), (status = "4XX", body = ErrorBody)))]
pub async fn register_hold_key(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(name): Path<String>,
    Json(key, _held): Json<RegisterKey>,
) -> Result<Response, ApiError> {
    let name: HoldKeyName = parse("in the path", &name)?;
    let line = expect_key(&key.authorized_key)?;
    expect_room(&app.store, &name, &line).await?;
    let audit = audit(&operator, "put_hold_key", format!("{name}: {line}"));
    app.store.put_setting(&setting_of(&name), Some(line.clone()), audit).await?;
    Ok(ok(&RegisteredKey { name, authorized_key: line }))
}

/// Takes a registered key away, also from machines that are held, within five minutes.
#[utoipa::path(delete, path = "/api/v1/hold-keys/{name}", tag = "orchestrator", security(("operator" = [])),
    params(("name" = String, Path, description = "Its name")),
    responses((status = 204, description = "It is taken away"), (status = "4XX", body = ErrorBody)))]
pub async fn delete_hold_key(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    let name: HoldKeyName = parse("in the path", &name)?;
    if registered(&app.store).await?.iter().all(|key| key.name != name) {
        return Err(ApiError::none(format!("there is no registered key {name}")));
    }
    let audit = audit(&operator, "delete_hold_key", name.to_string());
    app.store.put_setting(&setting_of(&name), None, audit).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// 422 where this one and those registered under other names are too many: agents take so much.
async fn expect_room(store: &Store, name: &HoldKeyName, line: &str) -> Result<(), ApiError> {
    let known = registered(store).await?;
    let others = known.iter().filter(|key| key.name != *name);
    let others: usize = others.map(|key| key.authorized_key.len() + 1).sum();
    let (found, max) = (others + line.len() + 1, limits::HOLD_KEYS_BYTES_MAX);
    if found <= max {
        return Ok(());
    }
    Err(ApiError::unfit(format!(
        "field authorized_key: the registered keys would have {found} bytes together, expected at most {max}: delete one first, \
         or register shorter ones (ed25519)"
    )))
}

/// Type, base64 and comment on one line, as agents take them, with one blank between: options could run commands on every held
/// machine, and a line that an agent refuses would keep out whoever has another.
fn expect_key(text: &str) -> Result<String, ApiError> {
    let text = text.trim();
    let line = text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let mut parts = line.split(' ');
    let is_type = parts.next().is_some_and(|kind| KEY_TYPES.contains(&kind));
    let is_base64 = |text: &str| {
        text.len() >= BLOB_BYTES_MIN && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
    };
    let has_key = parts.next().is_some_and(is_base64);
    if is_type && has_key && line.len() <= KEY_BYTES_MAX && !text.chars().any(char::is_control) {
        return Ok(line);
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
        let key = format!("ssh-ed25519 {} ann@desk", "A".repeat(68));
        for given in [key.clone(), format!(" {key}\n"), key.replace(' ', "  ")] {
            assert_eq!(expect_key(&given).unwrap(), key);
        }
        for bad in [
            "",
            "ssh-ed25519",
            "command=\"id\" ssh-ed25519 AAAA",
            "ssh-ed25519 AAAA ann\nssh-ed25519 BBBB",
            "ssh-dss AAAA",
            "ssh-ed25519 AA;AA",
            "ssh-ed25519 AAAA",
            &key.replace(' ', "\t"),
            &key.replace("AA ann", "A; ann"),
            &format!("{key}\n{key}"),
        ] {
            assert!(expect_key(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
