//! What concerns no single run: the keys of holds, the certificate, the orchestrator's tasks, and who did what.

use std::path::Path;

use anyhow::{Context, Result, bail};
use groundcrew_protocol::hold::{HoldKey, RegisterKey, RegisteredKey, RegisteredKeys};
use groundcrew_protocol::operator::{AuditList, CertificateView, TaskView};

use super::{Desk, page};
use crate::api::Answer;
use crate::arguments::{HoldKeyCommand, PageArguments};
use crate::{tables, words};

const HOLD_KEY: &str = "/api/v1/hold-key";
const HOLD_KEYS: &str = "/api/v1/hold-keys";
/// A public key is a line of a few hundred bytes.
const KEY_FILE_BYTES_MAX: u64 = 16 * 1024;

/// Does one command about the keys that are registered for holds.
pub(super) async fn hold_key(desk: &Desk, command: HoldKeyCommand) -> Result<()> {
    match command {
        HoldKeyCommand::List => {
            let answer = desk.api.get(HOLD_KEYS).await?;
            desk.show(&answer, |answer| Ok(tables::hold_keys(&answer.parse::<RegisteredKeys>()?)))
        }
        HoldKeyCommand::Show => {
            let answer = desk.api.get(HOLD_KEY).await?;
            let text = |answer: &Answer| {
                Ok(match answer.parse::<HoldKey>()?.authorized_key {
                    Some(key) => format!("{}\n", words::clean(&key)),
                    None => "No key is registered as default.\n".to_owned(),
                })
            };
            desk.show(&answer, text)
        }
        HoldKeyCommand::Set { key, name } => {
            let key = RegisterKey { authorized_key: key_of(&key)? };
            let answer = desk.api.put(&format!("{HOLD_KEYS}/{name}"), &key).await?;
            desk.show(&answer, |answer| Ok(tables::hold_key(&answer.parse::<RegisteredKey>()?)))
        }
        HoldKeyCommand::Clear { name } => {
            desk.delete(&format!("{HOLD_KEYS}/{name}"), "hold key", name.as_str()).await
        }
    }
}

/// The line of a public key: as it was given, or from the file of that name.
fn key_of(given: &str) -> Result<String> {
    // No file is called so, and every key has its type first.
    if given.contains(' ') {
        return Ok(given.trim().to_owned());
    }
    let path = Path::new(given);
    let doing = || format!("reading the public key in {given}");
    let bytes = std::fs::metadata(path).with_context(doing)?.len();
    if bytes > KEY_FILE_BYTES_MAX {
        bail!("{given} has {bytes} bytes: that is no public key");
    }
    let text = std::fs::read_to_string(path).with_context(doing)?;
    if text.contains("PRIVATE KEY") {
        bail!("{given} is a private key: the public one beside it ends in .pub");
    }
    Ok(text.trim().to_owned())
}

/// Shows the certificate.
pub(super) async fn certificate(desk: &Desk) -> Result<()> {
    let answer = desk.api.get("/api/v1/certificate").await?;
    desk.show(&answer, |answer| Ok(tables::certificate(&answer.parse::<CertificateView>()?)))
}

/// Shows the tasks.
pub(super) async fn tasks(desk: &Desk) -> Result<()> {
    let answer = desk.api.get("/api/v1/tasks").await?;
    let text =
        |answer: &Answer| Ok(tables::tasks(&answer.parse::<Vec<TaskView>>()?, &desk.reader, words::now()));
    desk.show(&answer, text)
}

/// Shows a part of the audit trail.
pub(super) async fn audit(desk: &Desk, part: &PageArguments) -> Result<()> {
    let answer = desk.api.get(&format!("/api/v1/audit{}", page(part, &[]))).await?;
    let text = |answer: &Answer| Ok(tables::audit(&answer.parse::<AuditList>()?, &desk.reader, words::now()));
    desk.show(&answer, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_line_or_a_file_and_never_a_private_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id.pub");
        let key = "ssh-ed25519 AAAA ann@desk";
        std::fs::write(&path, format!("{key}\n")).unwrap();
        assert_eq!(key_of(key).unwrap(), key);
        assert_eq!(key_of(path.to_str().unwrap()).unwrap(), key);
        std::fs::write(&path, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        assert!(key_of(path.to_str().unwrap()).unwrap_err().to_string().contains("private key"));
        std::fs::write(&path, vec![b'x'; 20_000]).unwrap();
        assert!(key_of(path.to_str().unwrap()).unwrap_err().to_string().contains("20000 bytes"));
        assert!(format!("{:#}", key_of("/no/such/key").unwrap_err()).contains("/no/such/key"));
    }
}
