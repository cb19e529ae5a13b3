//! What the agent is told at its start: by the kernel command line, the environment and flags, the later of
//! which wins. Everything is parsed here, once; a bad value is named with where it came from.
//!
//! Nothing here touches the network, or anything in the home. What cannot be taken back (power, keys of root) is refused
//! unless it is allowed here, explicitly.

mod hooks_file;
mod kernel_line;
mod sources;
pub mod users;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use groundcrew_client::{BaseUrl, parse_pins};
use groundcrew_durable::drain_marker;
use groundcrew_protocol::ids::{MacAddress, RunId, Sha256Hex, TokenText};
use groundcrew_protocol::limits::HEARTBEAT_INTERVAL_MS;
use groundcrew_protocol::profile::Hooks;
use groundcrew_protocol::time::parse_span_ms;

use crate::clock::ClockFrom;
pub use hooks_file::HooksError;
use sources::{Given, Values};
pub use sources::{SettingsError, Source};
use users::User;

/// Where the kernel shows its command line.
pub const KERNEL_LINE: &str = "/proc/cmdline";
/// The home, unless told otherwise.
pub const HOME_DEFAULT: &str = "/var/lib/groundcrew";
/// Where sshd looks for keys, from a user's home.
const USERS_KEYS: &str = ".ssh/authorized_keys";
/// Where an SSH server has its host keys.
const HOST_KEYS_DEFAULT: &str = "/etc/ssh";
/// Root's home, whose keys let anybody do anything.
const ROOT_HOME: &str = "/root";

/// Twice the length of a UUID.
const POD_UID_BYTES_MAX: usize = 72;

/// The flags of `groundcrew agent`, for its help.
pub const FLAGS_HELP: &str = "  --url URL               https://HOST[:PORT] of the orchestrator
  --run RUN               id of the run
  --token TOKEN           its boot token (GROUNDCREW_TOKEN keeps it out of process lists)
  --fpr SHA256[,SHA256]   SHA-256 of the orchestrator's certificate, colons allowed
  --mac MAC               address of the interface that the machine booted from; named first to the orchestrator
  --clock machine|hello   hello: set this machine's clock from the orchestrator's, for live images (default machine)
  --home FOLDER           what the agent keeps (default /var/lib/groundcrew)
  --drain-max-age SPAN    a drain that nobody renews lapses after this (default 1h)
  --drain-listen ADDR     loopback address and port at which machines may ask for a drain over HTTP
  --drain-secret-file FILE
                          what they show as bearer; read at every request
  --hooks FILE            commands to run before and after drains (with a home on a disk), and when the run is completed or held
  --allow-power           may switch this machine off
  --allow-reboot          may reboot this machine, where an interrupt of the run's profile asks for it
  --allow-services        may restart services of this machine, where an interrupt of the run's profile names them
  --allow-packages        may apply packages to this machine: a run's profile then says which, and where
  --allow-wipe            may write over disks of this machine, where a run's profile names them and an operator says so
  --authorized-keys FILE  where the keys of a hold go; none is taken without it or --hold-user
  --hold-user NAME        whose file that is: who owns what is made there; by itself, their ~/.ssh/authorized_keys
  --allow-root-keys       that file may be root's own
  --host-keys FOLDER      where the public host keys of this machine's SSH server are (default /etc/ssh)
Each can be given in the environment (GROUNDCREW_URL, GROUNDCREW_ALLOW_POWER=yes), the first six on the
kernel command line (groundcrew.url=). A flag wins over the environment, and that over the kernel. An empty
variable or kernel parameter counts as not given.";

/// A token that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(TokenText);

impl Secret {
    /// Wraps a token.
    pub fn new(token: TokenText) -> Secret {
        Secret(token)
    }

    /// The token, for the one place that sends it.
    pub fn reveal(&self) -> &TokenText {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What the agent was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The orchestrator.
    pub url: BaseUrl,
    /// The run to walk.
    pub run: RunId,
    /// The boot token; absent where the home has a run token already.
    pub token: Option<Secret>,
    /// SHA-256 of the certificates that count; at least one.
    pub pins: Vec<Sha256Hex>,
    /// The interface that the machine booted from.
    pub mac: Option<MacAddress>,
    /// Where this machine's wall clock comes from.
    pub clock: ClockFrom,
    /// The agent's home.
    pub home: PathBuf,
    /// The greatest age of a drain marker.
    pub drain_max_age: Duration,
    /// Where machines may ask for a drain, and the file with what they show; absent: nowhere.
    pub drain_http: Option<(SocketAddr, PathBuf)>,
    /// What is run before and after drains, and at the ends of runs.
    pub hooks: Hooks,
    /// Whether this machine may be switched off.
    pub allow_power: bool,
    /// Whether this machine may be rebooted.
    pub allow_reboot: bool,
    /// Whether services of this machine may be restarted.
    pub allow_services: bool,
    /// Whether packages may be applied to this machine.
    pub allow_packages: bool,
    /// Whether disks of this machine may be written over.
    pub allow_wipe: bool,
    /// Where the keys of a hold go; absent: nowhere.
    pub authorized_keys: Option<PathBuf>,
    /// Where the public host keys of this machine's SSH server are.
    pub host_keys: PathBuf,
    /// Whose file that is; absent: the owner's of its folder.
    pub hold_user: Option<User>,
    /// Time between two heartbeats, in milliseconds. For tests alone, and in the environment alone
    /// (`GROUNDCREW_HEARTBEAT_INTERVAL_MS`): orders arrive with the answers, and a test must not wait for them.
    pub heartbeat_interval_ms: u64,
    /// Uid of the pod that the agent is, in the environment alone (`GROUNDCREW_POD_UID`), where its manifest says it:
    /// whoever watches the cluster's pods then knows this agent's end when it comes.
    pub pod_uid: Option<String>,
    /// Parameters on the kernel command line that begin as ours do and that this version does not know.
    pub unknown: Vec<String>,
}

impl Settings {
    /// Reads the settings from flags (those behind `groundcrew agent`), the environment, the kernel command line in the
    /// file `kernel_line`, usually [`KERNEL_LINE`], and the file of hooks that they name.
    ///
    /// # Errors
    /// The first value that is bad or missing, with where it came from, what was found and what was expected.
    pub fn load(
        flags: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<OsString>,
        kernel_line: &Path,
    ) -> Result<Settings, SettingsError> {
        Self::load_beside(flags, environment, kernel_line, Path::new(ROOT_HOME))
    }

    fn load_beside(
        flags: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<OsString>,
        kernel_line: &Path,
        root_home: &Path,
    ) -> Result<Settings, SettingsError> {
        let values = Values::gather(flags, environment, kernel_line)?;
        let home = values.parse("home", absolute)?.unwrap_or_else(|| HOME_DEFAULT.into());
        let hold_user = values.parse("hold-user", user)?;
        let theirs = hold_user.as_ref().map(|user| user.home.join(USERS_KEYS));
        let keys = values.parse("authorized-keys", absolute)?.or(theirs);
        let by =
            ["authorized-keys", "hold-user"].into_iter().find_map(|flag| Some((flag, values.given(flag)?)));
        if let (Some(path), Some((flag, given))) = (&keys, by)
            && !values.switch("allow-root-keys")?
            && is_roots(path, root_home)
        {
            let expected = "a file that is not root's own, or --allow-root-keys beside it";
            return Err(given.bad(flag, expected.to_owned()));
        }
        let hooks = match values.parse("hooks", absolute)? {
            Some(path) => hooks_file::read(&path, &home)?,
            None => Hooks::default(),
        };
        Ok(Settings {
            url: values.required("url", |text| text.parse().map_err(why))?,
            run: values.required("run", |text| text.parse().map_err(why))?,
            token: values.parse("token", |text| text.parse().map(Secret).map_err(token_form))?,
            pins: values
                .required("fpr", |text| parse_pins(text).map_err(|error| error.expected.to_owned()))?,
            mac: values
                .parse("mac", |text| text.to_ascii_lowercase().replace('-', ":").parse().map_err(why))?,
            clock: values.parse("clock", clock_from)?.unwrap_or_default(),
            home,
            drain_max_age: values
                .parse("drain-max-age", drain_max_age)?
                .unwrap_or(drain_marker::MAX_AGE_DEFAULT),
            drain_http: drain_http(&values)?,
            hooks,
            allow_power: values.switch("allow-power")?,
            allow_reboot: values.switch("allow-reboot")?,
            allow_services: values.switch("allow-services")?,
            allow_packages: values.switch("allow-packages")?,
            allow_wipe: values.switch("allow-wipe")?,
            authorized_keys: keys,
            hold_user,
            host_keys: values.parse("host-keys", absolute)?.unwrap_or_else(|| HOST_KEYS_DEFAULT.into()),
            heartbeat_interval_ms: values
                .parse(sources::HEARTBEAT_INTERVAL, heartbeat_interval_ms)?
                .unwrap_or(HEARTBEAT_INTERVAL_MS),
            pod_uid: values.parse(sources::POD_UID, pod_uid)?,
            unknown: values.unknown,
        })
    }
}

/// What was expected, of errors that say it after what was found.
fn why(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    text.split_once("expected ").map_or(text.clone(), |(_, expected)| expected.to_owned())
}

fn token_form(error: groundcrew_protocol::ids::BadId) -> String {
    error.expected.to_owned()
}

fn clock_from(text: &str) -> Result<ClockFrom, String> {
    match text {
        "machine" => Ok(ClockFrom::Machine),
        "hello" => Ok(ClockFrom::Hello),
        _ => Err("machine or hello".to_owned()),
    }
}

/// Only more often than is agreed upon: an agent that is heard less counts as gone.
fn heartbeat_interval_ms(text: &str) -> Result<u64, String> {
    let expected = || format!("10 to {HEARTBEAT_INTERVAL_MS} milliseconds");
    let parsed = text.parse().ok();
    parsed.filter(|ms| (10..=HEARTBEAT_INTERVAL_MS).contains(ms)).ok_or_else(expected)
}

/// The address and its secret: both or neither.
fn drain_http(values: &Values) -> Result<Option<(SocketAddr, PathBuf)>, SettingsError> {
    let listen = values.parse("drain-listen", |text| {
        let parsed = text.parse::<SocketAddr>().ok().filter(|address| address.ip().is_loopback());
        parsed.ok_or_else(|| "a loopback address and port, as in 127.0.0.1:7070".to_owned())
    })?;
    match (listen, values.parse("drain-secret-file", absolute)?) {
        (Some(listen), Some(secret)) => Ok(Some((listen, secret))),
        (Some(_), None) => Err(SettingsError::Missing { flag: "drain-secret-file" }),
        (None, Some(_)) => Err(SettingsError::Missing { flag: "drain-listen" }),
        (None, None) => Ok(None),
    }
}

/// A drain that lapses at once asks for nothing, and one of months is a marker that was forgotten.
const DRAIN_MAX_AGE_MS: std::ops::RangeInclusive<u64> = 1_000..=30 * 86_400_000;

/// The greatest age of a drain marker, from its text.
///
/// # Errors
/// What was expected.
pub fn drain_max_age(text: &str) -> Result<Duration, String> {
    let parsed = parse_span_ms(text).ok().filter(|ms| DRAIN_MAX_AGE_MS.contains(ms));
    parsed
        .map(Duration::from_millis)
        .ok_or_else(|| "a length of time from 1s to 30d, as in \"90m\"".to_owned())
}

fn user(name: &str) -> Result<User, String> {
    let found = users::find(Path::new(users::PASSWD), |user| user.name == name);
    found.filter(|user| user.home.is_absolute()).ok_or_else(|| {
        format!("a user with a home whom {} lists; for another, --authorized-keys alone", users::PASSWD)
    })
}

/// A cluster makes UUIDs; a static pod's is the hash of its manifest.
fn pod_uid(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_uid = text.len() <= POD_UID_BYTES_MAX && text.bytes().all(fits);
    if is_uid {
        Ok(text.to_owned())
    } else {
        Err(format!("a pod's uid: {POD_UID_BYTES_MAX} letters, digits and dashes at most"))
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain { Ok(path) } else { Err("an absolute path without \"..\"".to_owned()) }
}

/// Whether a path lies in root's `.ssh`, also by a symbolic link on the way.
fn is_roots(path: &Path, root_home: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = root_home.join(".ssh");
    let parent = path.parent().unwrap_or(path);
    let places = [path.to_owned(), real(path), real(parent)];
    places.iter().any(|place| place.starts_with(&folder) || place.starts_with(real(&folder)))
}

impl Given {
    /// The error for this value.
    fn bad(&self, name: &'static str, expected: String) -> SettingsError {
        // A token that was mistyped is a token all the same.
        let found = match name {
            "token" => format!("a text of {} bytes", self.value.len()),
            _ => format!("{:?}", self.value.chars().take(120).collect::<String>()),
        };
        SettingsError::Bad {
            parameter: self.source.name_of(name),
            from: self.source.clone(),
            found,
            expected,
        }
    }
}

#[cfg(test)]
mod tests;
