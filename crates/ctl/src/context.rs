//! Which orchestrator is asked, and as whom: flags, else the environment, else the context file. What is missing or bad
//! is named with where it came from and what to set.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use groundcrew_client::{BaseUrl, Client, PinSet, parse_pins};
use groundcrew_protocol::ids::{Sha256Hex, TokenText};
use serde::Deserialize;

use crate::arguments::ConnectionFlags;

/// A context or token file is a few lines.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// What every operator's token begins with.
const TOKEN_START: &str = "gco_";

/// Why it is not known whom to ask.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    /// It is said nowhere.
    #[error("{what} is not set: give {flag}, or set {variable}, or write `{key} = \"…\"` into {}", file.display())]
    Missing {
        what: &'static str,
        flag: &'static str,
        variable: &'static str,
        key: &'static str,
        file: PathBuf,
    },
    /// It is said, and wrong.
    #[error("{source_name}: {why}")]
    Bad { source_name: String, why: String },
    /// A file cannot be read.
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// A file with a secret is open to others.
    #[error("{} holds a token and its mode is {mode:04o}: others can read it; run `chmod 600 {}`", path.display(), path.display())]
    Open { path: PathBuf, mode: u32 },
}

/// What the context file may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContextFile {
    url: Option<String>,
    fpr: Option<String>,
    token: Option<String>,
}

/// Where a connection leads.
pub(crate) struct Connection {
    pub(crate) url: BaseUrl,
    pub(crate) pins: Vec<Sha256Hex>,
    pub(crate) token: TokenText,
}

impl Connection {
    /// A client that goes there.
    pub(crate) fn client(self) -> Client {
        Client::new(self.url, PinSet::new(self.pins), Some(self.token))
    }

    /// Puts together what flags, environment and file say.
    ///
    /// # Errors
    /// The first value that is missing or bad.
    pub(crate) fn resolve(
        flags: &ConnectionFlags,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Connection, ContextError> {
        let path = flags.context.clone().unwrap_or_else(|| default_path(&environment));
        let file = read_context(&path, flags.context.is_some())?;
        let pick = |flag: (&'static str, &Option<String>),
                    variable: &'static str,
                    key,
                    what,
                    in_file: &Option<String>| {
            let sources = [
                flag.1.clone().map(|value| (flag.0.to_owned(), value)),
                environment(variable)
                    .filter(|value| !value.is_empty())
                    .map(|value| (variable.to_owned(), value)),
                in_file.clone().map(|value| (format!("{key} in {}", path.display()), value)),
            ];
            sources.into_iter().flatten().next().ok_or_else(|| ContextError::Missing {
                what,
                flag: flag.0,
                variable,
                key,
                file: path.clone(),
            })
        };
        let address = "the orchestrator's address";
        let (from, url) = pick(("--url", &flags.url), "GROUNDCREW_URL", "url", address, &file.url)?;
        let url: BaseUrl = url.parse().map_err(|error| bad(from, error))?;
        let digest = "the SHA-256 of its certificate (`groundcrewd fingerprint`)";
        let (from, fpr) = pick(("--fpr", &flags.fpr), "GROUNDCREW_FPR", "fpr", digest, &file.fpr)?;
        let pins = parse_pins(&fpr).map_err(|error| bad(from, error))?;
        let variable = "GROUNDCREW_OPERATOR_TOKEN";
        let (from, token) =
            pick(("--token", &flags.token), variable, "token", "an operator's token", &file.token)?;
        Ok(Connection { url, pins, token: parse_token(from, &token)? })
    }
}

fn bad(source_name: String, why: impl std::fmt::Display) -> ContextError {
    ContextError::Bad { source_name, why: why.to_string() }
}

/// A token, or the path of a file that holds one. The value never appears in an error: it may be a mistyped secret.
fn parse_token(from: String, value: &str) -> Result<TokenText, ContextError> {
    let expected = "expected gco_ and 64 lower-case hexadecimal digits, or the path of a file with that";
    if value.starts_with(TOKEN_START) {
        return value.parse().map_err(|_| bad(from, expected));
    }
    let path = Path::new(value);
    if !path.exists() {
        return Err(bad(from, format!("it is neither a token nor a file that exists; {expected}")));
    }
    let text = read_secret(path, true)?;
    let token = text.trim();
    let is_operators = token.starts_with(TOKEN_START);
    let token = is_operators.then(|| token.parse().ok()).flatten();
    token.ok_or_else(|| bad(format!("{from}, file {}", path.display()), expected))
}

fn default_path(environment: &impl Fn(&str) -> Option<String>) -> PathBuf {
    let config =
        environment("XDG_CONFIG_HOME").filter(|path| Path::new(path).is_absolute()).map(PathBuf::from);
    let config =
        config.unwrap_or_else(|| Path::new(&environment("HOME").unwrap_or_default()).join(".config"));
    config.join("groundcrew/ctl.toml")
}

/// The context file; one that nobody named may be absent.
fn read_context(path: &Path, is_named: bool) -> Result<ContextFile, ContextError> {
    if !is_named && !path.exists() {
        return Ok(ContextFile::default());
    }
    let text = read_secret(path, false)?;
    let parsed: ContextFile = toml::from_str(&text).map_err(|error| {
        // The message without the excerpt, which might show a token.
        bad(path.display().to_string(), error.message())
    })?;
    if parsed.token.as_deref().is_some_and(|token| token.starts_with(TOKEN_START)) {
        read_secret(path, true)?;
    }
    Ok(parsed)
}

/// Reads a small file; where it is a secret, only one that its owner alone can read.
fn read_secret(path: &Path, is_secret: bool) -> Result<String, ContextError> {
    let failed = |source| ContextError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if is_secret && mode & 0o077 != 0 {
        return Err(ContextError::Open { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    fn token(digit: char) -> String {
        format!("{TOKEN_START}{}", digit.to_string().repeat(64))
    }

    fn environment(values: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        let values: BTreeMap<String, String> =
            values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        move |name| values.get(name).cloned()
    }

    fn written(folder: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn what_is_missing_is_said_with_every_way_to_set_it() {
        let none = environment(&[("HOME", "/no/home")]);
        let error = Connection::resolve(&ConnectionFlags::default(), none).err().unwrap().to_string();
        for part in ["address", "--url", "GROUNDCREW_URL", "url = ", "/no/home/.config/groundcrew/ctl.toml"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let pin = "ab".repeat(32);
        let text = format!("url = \"https://file\"\nfpr = \"{pin}\"\ntoken = \"{}\"\n", token('1'));
        let context = written(folder.path(), "ctl.toml", &text, 0o600);
        let mut flags = ConnectionFlags { context: Some(context), ..ConnectionFlags::default() };
        let from_file = Connection::resolve(&flags, environment(&[])).unwrap();
        assert_eq!(from_file.url.to_string(), "https://file");
        assert_eq!(from_file.token.as_str(), token('1'));
        let set = [("GROUNDCREW_URL", "https://env"), ("GROUNDCREW_OPERATOR_TOKEN", &token('2'))];
        let from_both = Connection::resolve(&flags, environment(&set)).unwrap();
        assert_eq!(from_both.url.to_string(), "https://env");
        assert_eq!(from_both.token.as_str(), token('2'));
        assert_eq!(from_both.pins[0].as_str(), pin);
        flags.url = Some("https://flag".into());
        flags.token =
            Some(written(folder.path(), "t", &format!("{}\n", token('3')), 0o600).display().to_string());
        let from_flags = Connection::resolve(&flags, environment(&set)).unwrap();
        assert_eq!(from_flags.url.to_string(), "https://flag");
        assert_eq!(from_flags.token.as_str(), token('3'));
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            format!("url = \"https://h\"\nfpr = \"{}\"\ntoken = \"{}\"\n", "ab".repeat(32), token('1'));
        let context = written(folder.path(), "ctl.toml", &text, 0o644);
        let flags = ConnectionFlags { context: Some(context.clone()), ..ConnectionFlags::default() };
        let error = Connection::resolve(&flags, environment(&[])).err().unwrap().to_string();
        assert!(error.contains("0644") && error.contains("chmod 600"), "{error}");
        assert!(!error.contains(&token('1')), "{error}");
    }

    #[test]
    fn a_bad_value_is_named_with_its_place_and_a_token_is_not_repeated() {
        let pin = "ab".repeat(32);
        let secret = format!("{TOKEN_START}SECRET");
        for (url, fpr, token, wanted) in [
            ("http://h", pin.as_str(), secret.as_str(), "--url: "),
            ("https://h", "abc", secret.as_str(), "--fpr: "),
            ("https://h", pin.as_str(), secret.as_str(), "--token: expected gco_"),
            ("https://h", pin.as_str(), "/no/SECRET", "neither a token nor a file"),
        ] {
            let flags = ConnectionFlags {
                url: Some(url.into()),
                fpr: Some(fpr.into()),
                token: Some(token.into()),
                context: None,
            };
            let error = Connection::resolve(&flags, environment(&[])).err().unwrap().to_string();
            assert!(error.contains(wanted) && !error.contains("SECRET"), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let context = written(folder.path(), "c", &format!("tokn = \"{secret}\"\n"), 0o600);
        let flags = ConnectionFlags { context: Some(context), ..ConnectionFlags::default() };
        let error = Connection::resolve(&flags, environment(&[])).err().unwrap().to_string();
        assert!(error.contains("tokn") && !error.contains("SECRET"), "{error}");
    }
}
