//! The sinks that settings name: a file of TOML with a `[[sink]]` each. Their addresses may be secrets, as those of chat
//! services are, so that nothing here ever shows more of one than scheme, host and port.

use std::collections::HashSet;
use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use groundcrew_protocol::ids::SinkName;
use http::{HeaderValue, Uri};

use super::tries::{TRIES_DEFAULT, TRIES_MAX};

/// Greatest file: every sink with the longest address, several times over.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Sinks: each is told of every shutdown, over connections of its own.
pub const SINKS_MAX: usize = 16;
/// Longest address.
const URL_BYTES_MAX: usize = 2_048;
/// Bits of a mode that let somebody write who is not the owner, or read who is not of the group either.
const OTHERS: u32 = 0o026;

/// What a sink understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// JSON of our own.
    Webhook,
    /// What Slack's incoming webhooks take, and those that are made after them: `{"text": …}`.
    Slack,
}

/// An address to which notices are sent, which may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(Uri);

impl Url {
    /// The whole of it, for the call itself alone.
    pub fn reveal(&self) -> &Uri {
        &self.0
    }

    /// True where it is reached over TLS.
    pub fn is_tls(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// Its host, without the brackets of an address.
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.is_tls() { 443 } else { 80 })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.0.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        write!(f, "{}://{authority}", self.0.scheme_str().unwrap_or_default())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self}/…)")
    }
}

/// A sink.
#[derive(Clone, PartialEq, Eq)]
pub struct Sink {
    /// Its name.
    pub name: SinkName,
    /// What it understands.
    pub kind: Kind,
    /// Where it is.
    pub url: Url,
    /// Whether it is told of every shutdown, or only of the runs that name it.
    pub is_of_fleet: bool,
    /// How often a notice is tried.
    pub tries: u32,
    /// What it wants to see in the header Authorization. A secret.
    pub authorization: Option<HeaderValue>,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sink({}, {:?}, {})", self.name, self.kind, self.url)
    }
}

/// The sinks of the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sinks(Vec<Sink>);

/// Why the sinks cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SinksError {
    /// The file cannot be read.
    #[error("reading the sinks {}", path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Others can read or write it.
    #[error(
        "the sinks {}: found a file of user {owner} with mode {mode:04o}, expected a regular one of root or of this user that \
         others can neither read nor write, as its addresses are secrets: chmod 0600, or 0640 for its group (defaultMode: 0440 \
         in a Kubernetes Secret)", path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its mode.
        mode: u32,
    },
    /// What it says is refused.
    #[error("the sinks {}: {what}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What, where, and what was expected.
        what: String,
    },
}

impl Sinks {
    /// Reads the file.
    ///
    /// # Errors
    /// [`SinksError`]. None of them shows what an address or a secret is.
    pub fn read(path: &Path) -> Result<Sinks, SinksError> {
        let unread = |source| SinksError::Unread { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(unread)?;
        let found = file.metadata().map_err(unread)?;
        let (owner, mode) = (found.uid(), found.mode() & 0o7777);
        let is_ours = owner == 0 || owner == rustix::process::geteuid().as_raw();
        if !found.is_file() || !is_ours || mode & OTHERS != 0 {
            return Err(SinksError::Open { path: path.to_owned(), owner, mode });
        }
        let bad = |what| SinksError::Bad { path: path.to_owned(), what };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unread)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(bad(format!("found more than {FILE_BYTES_MAX} bytes, expected fewer")));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| bad("found bytes that are no UTF-8, expected TOML".to_owned()))?;
        Sinks::parse(&text).map_err(bad)
    }

    /// Parses the file's text.
    ///
    /// # Errors
    /// What was found, where, and what was expected; never an address or a secret.
    pub fn parse(text: &str) -> Result<Sinks, String> {
        let table: toml::Table = toml::from_str(text).map_err(|error| {
            // Its own text quotes the line, which may hold a secret.
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            format!(
                "line {line}: found no TOML, expected [[sink]] tables of keys and values, texts in quotes"
            )
        })?;
        if let Some(key) = table.keys().find(|key| *key != "sink") {
            return Err(format!("{}: found an unknown key, expected [[sink]] alone", shown(key)));
        }
        let rows = match table.get("sink") {
            None => return Ok(Sinks::default()),
            Some(toml::Value::Array(rows)) if rows.len() <= SINKS_MAX => rows,
            Some(toml::Value::Array(rows)) => {
                return Err(format!("sink: found {}, expected at most {SINKS_MAX}", rows.len()));
            }
            Some(other) => return Err(format!("sink: found {}, expected [[sink]]", other.type_str())),
        };
        let sinks = rows.iter().enumerate().map(|(index, row)| parse_sink(index + 1, row));
        let sinks = sinks.collect::<Result<Vec<Sink>, String>>()?;
        let mut names = HashSet::new();
        if let Some(twice) = sinks.iter().find(|sink| !names.insert(&sink.name)) {
            return Err(format!("sink {}: found its name twice, expected one of each", twice.name));
        }
        Ok(Sinks(sinks))
    }

    /// One of them.
    pub fn get(&self, name: &SinkName) -> Option<&Sink> {
        self.0.iter().find(|sink| sink.name == *name)
    }

    /// All of them.
    pub fn all(&self) -> &[Sink] {
        &self.0
    }

    /// Those that are told of every shutdown.
    pub fn of_fleet(&self) -> Vec<SinkName> {
        self.0.iter().filter(|sink| sink.is_of_fleet).map(|sink| sink.name.clone()).collect()
    }

    /// True where one is reached over TLS.
    pub fn need_tls(&self) -> bool {
        self.0.iter().any(|sink| sink.url.is_tls())
    }

    /// Their names, for whoever named another.
    pub fn names(&self) -> String {
        match self.0.is_empty() {
            true => "none".to_owned(),
            false => self.0.iter().map(|sink| sink.name.as_str()).collect::<Vec<_>>().join(", "),
        }
    }
}

/// What a key holds, of a sink that messages call `place`.
struct Row<'a> {
    place: String,
    table: &'a toml::Table,
}

impl<'a> Row<'a> {
    fn wrong(&self, key: &str, value: &toml::Value, expected: &str) -> String {
        format!("{}, {key}: found {}, expected {expected}", self.place, article(value))
    }

    fn text(&self, key: &str, expected: &str) -> Result<Option<&'a str>, String> {
        match self.table.get(key) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, other, expected)),
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        match self.table.get(key) {
            None => Ok(default),
            Some(toml::Value::Boolean(flag)) => Ok(*flag),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    fn tries(&self) -> Result<u32, String> {
        let expected = format!("a whole number from 1 to {TRIES_MAX}");
        match self.table.get("tries") {
            None => Ok(TRIES_DEFAULT),
            Some(toml::Value::Integer(tries)) => {
                let fits = u32::try_from(*tries).ok().filter(|tries| (1..=TRIES_MAX).contains(tries));
                fits.ok_or_else(|| format!("{}, tries: found {tries}, expected {expected}", self.place))
            }
            Some(other) => Err(self.wrong("tries", other, &expected)),
        }
    }
}

fn article(value: &toml::Value) -> String {
    let word = value.type_str();
    let article = if word.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {word}")
}

/// A key of the file as it is shown: one that looks like a key, as a misspelt one does. Anything else may be a secret that
/// came into the wrong place.
fn shown(key: &str) -> &str {
    let looks_like_one = key.len() <= 20 && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if looks_like_one { key } else { "a key" }
}

const KEYS: [&str; 7] = ["name", "kind", "url", "fleet", "tries", "authorization", "allow_http"];

fn parse_sink(number: usize, value: &toml::Value) -> Result<Sink, String> {
    let toml::Value::Table(table) = value else {
        return Err(format!("sink {number}: found {}, expected a table", article(value)));
    };
    let mut row = Row { place: format!("sink {number}"), table };
    let form = "a name of 1 to 63 of a-z, 0-9, '-' and '.', with a letter or digit at both ends";
    let name = row.text("name", form)?;
    let name = name.ok_or_else(|| format!("{}: found no name, expected {form}", row.place))?;
    // What stands in the wrong place may be the address.
    let name: SinkName =
        name.parse().map_err(|_| format!("{}, name: found another, expected {form}", row.place))?;
    row.place = format!("sink {number} ({name})");
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!(
            "{}, {}: found an unknown key, expected {}",
            row.place,
            shown(key),
            KEYS.join(", ")
        ));
    }
    let kinds = "\"webhook\" or \"slack\"";
    let kind = match row.text("kind", kinds)? {
        Some("webhook") => Kind::Webhook,
        Some("slack") => Kind::Slack,
        Some(_) => return Err(format!("{}, kind: found another word, expected {kinds}", row.place)),
        None => return Err(format!("{}: found no kind, expected {kinds}", row.place)),
    };
    let url = row.text("url", "an address")?;
    let url =
        url.ok_or_else(|| format!("{}: found no url, expected an address as https://HOST/PATH", row.place))?;
    let url = parse_url(url, row.flag("allow_http", false)?)
        .map_err(|what| format!("{}, url: {what}", row.place))?;
    let authorization = match row.text("authorization", "a text, as \"Bearer …\"")? {
        None => None,
        Some(text) => {
            let expected = "visible characters on one line";
            let mut value = HeaderValue::from_str(text).map_err(|_| {
                format!("{}, authorization: found other characters, expected {expected}", row.place)
            })?;
            value.set_sensitive(true);
            Some(value)
        }
    };
    let (is_of_fleet, tries) = (row.flag("fleet", true)?, row.tries()?);
    Ok(Sink { name, kind, url, is_of_fleet, tries, authorization })
}

/// An address. In the clear only on this machine, unless settings say that it may be: whoever listens learns the secret.
fn parse_url(text: &str, allow_http: bool) -> Result<Url, String> {
    let form = "an address as https://HOST/PATH";
    if text.len() > URL_BYTES_MAX {
        return Err(format!("found {} bytes, expected at most {URL_BYTES_MAX}", text.len()));
    }
    let uri: Uri = text.parse().map_err(|_| format!("found no address, expected {form}"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!("found no scheme and host, expected {form}"));
    };
    if authority.as_str().contains('@') {
        return Err("found a user before the host, expected none: `authorization` is for that".to_owned());
    }
    let url = Url(uri.clone());
    if url.host().is_empty() || authority.port().is_some() && uri.port_u16().is_none_or(|port| port == 0) {
        return Err(format!("found no host or no port from 1 to 65535, expected {form}"));
    }
    let is_here = url.host() == "localhost"
        || url.host().parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match scheme {
        "https" => Ok(url),
        "http" if is_here || allow_http => Ok(url),
        "http" => Err(format!(
            "found {url}, which is in the clear for whoever listens; expected https, or `allow_http = true` where that network \
             is trusted"
        )),
        _ => Err(format!("found another scheme, expected {form}")),
    }
}

#[cfg(test)]
mod tests;
