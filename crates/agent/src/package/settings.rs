//! What the environment says to the package agent. Read once, through a function, before anything else is done.
//!
//! Variables that the reference knows are read as it reads them: a switch is on for `true` in any case and off for
//! everything else, `1` and `yes` included; a text that is set is taken even where it is empty. Ours refuse what
//! they do not understand, and count as unset where they are empty.

use std::ffi::OsString;
use std::time::Duration;

use super::quoted::quoted;

/// The most that one read of a step's output may take, in bytes. The reference has no limit; a container has.
const BUFFER_BYTES_MAX: usize = 64 << 20;
/// Nobody waits longer than a day.
const WAIT_SECONDS_MAX: f64 = 86_400.0;
/// So many reboots that more would be a loop by any name.
const REBOOT_LIMIT_MAX: u32 = 100;
const REBOOT_GRACE_DEFAULT: Duration = Duration::from_secs(300);
/// A request is made in a second or so; one that a bus or a policy holds up is answered within its own limit of 25 s, or 90.
const REBOOT_COMMAND_DEFAULT: Duration = Duration::from_secs(120);
const TERM_GRACE_DEFAULT: Duration = Duration::from_secs(20);
/// What a read takes unless told otherwise, as in the reference.
const BUFFER_LIMIT_DEFAULT: usize = 8192;
const REBOOT_LIMIT_DEFAULT: u32 = 3;
/// Kubernetes sets it in every container of a pod.
const POD_SIGN: &str = "KUBERNETES_SERVICE_HOST";

/// Which exit status of a step is compared with its `returncodes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReturnCodes {
    /// Its own; a signal is its negative number.
    Own,
    /// 0, or 1 for every failure, as the reference's helper process had it.
    Reference,
}

/// The package agent's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `SKYHOOK_RESOURCE_ID`, as given; empty where it is not set. [`super::resource_id::ResourceId`] takes it apart.
    pub resource_id: String,
    /// `COPY_RESOLV`: the container's /etc/resolv.conf is copied into the root mount. On unless told otherwise.
    pub copy_resolv: bool,
    /// `OVERLAY_ALWAYS_RUN_STEP`: a step with a flag runs all the same.
    pub always_run_step: bool,
    /// `SKYHOOK_DATA_DIR`: the package in the agent's own file system (default `/skyhook-package`).
    pub data_dir: String,
    /// `SKYHOOK_ROOT_DIR`: where flags and history lie in the root mount (default `/etc/skyhook`). Paths are made
    /// by appending to this text: it begins with a slash or is empty, and it may end with one, which shows.
    pub root_dir: String,
    /// `SKYHOOK_LOG_DIR`: where logs lie in the root mount (default `/var/log/skyhook`), of the same form.
    pub log_dir: String,
    /// `SKYHOOK_AGENT_BUFFER_LIMIT`: the size of one read of a step's output, in bytes, at least 1 (default 8192).
    pub buffer_limit: usize,
    /// `SKYHOOK_AGENT_WRITE_LOGS`: output goes to log files too. On unless told otherwise.
    pub write_logs: bool,
    /// `SKYHOOK_AGENT_TERM_GRACE_S`: how long a step may go on after our SIGTERM (default 20 s).
    pub term_grace: Duration,
    /// `GROUNDCREW_RETURNCODES`: `own` or `reference`.
    pub returncodes: ReturnCodes,
    /// `GROUNDCREW_REBOOT_GRACE_S`: how long a reboot that was asked for may take (default 300 s).
    pub reboot_grace: Duration,
    /// `GROUNDCREW_REBOOT_LIMIT`: how often one resource id may ask for it, at least once (default 3).
    pub reboot_limit: u32,
    /// `GROUNDCREW_REBOOT_COMMAND_S`: how long the command may run that asks for it, more than 0 (default 120 s).
    pub reboot_command_max: Duration,
    /// `GROUNDCREW_REBOOT_WAIT_S`: how long to stay for the SIGTERM of a reboot. In a pod, where exit status 0 lets
    /// the operator go on, it is the grace unless told otherwise; elsewhere 0.
    pub reboot_wait: Duration,
}

/// A variable that cannot be used: one line, exit status 1, nothing done.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{variable}: found {found}, expected {expected}")]
pub struct BadSetting {
    /// The variable.
    pub variable: &'static str,
    /// Its value, shortened.
    pub found: String,
    /// What would have been taken.
    pub expected: String,
}

impl Settings {
    /// Reads the settings from the environment that `lookup` shows.
    ///
    /// # Errors
    /// The first variable whose value cannot be used.
    pub fn read(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Settings, BadSetting> {
        let environment = Environment { lookup };
        let reboot_grace = environment.wait("GROUNDCREW_REBOOT_GRACE_S")?.unwrap_or(REBOOT_GRACE_DEFAULT);
        let in_pod = (environment.lookup)(POD_SIGN).is_some_and(|host| !host.is_empty());
        let wait_default = if in_pod { reboot_grace } else { Duration::ZERO };
        Ok(Settings {
            resource_id: environment.text("SKYHOOK_RESOURCE_ID")?.unwrap_or_default(),
            copy_resolv: environment.switch("COPY_RESOLV", true)?,
            always_run_step: environment.switch("OVERLAY_ALWAYS_RUN_STEP", false)?,
            data_dir: environment.text("SKYHOOK_DATA_DIR")?.unwrap_or_else(|| "/skyhook-package".to_owned()),
            root_dir: environment.folder("SKYHOOK_ROOT_DIR", "/etc/skyhook")?,
            log_dir: environment.folder("SKYHOOK_LOG_DIR", "/var/log/skyhook")?,
            buffer_limit: environment.buffer_limit()?,
            write_logs: environment.switch("SKYHOOK_AGENT_WRITE_LOGS", true)?,
            term_grace: environment.wait("SKYHOOK_AGENT_TERM_GRACE_S")?.unwrap_or(TERM_GRACE_DEFAULT),
            returncodes: environment.returncodes()?,
            reboot_grace,
            reboot_limit: environment.reboot_limit()?,
            reboot_command_max: environment.reboot_command_max()?,
            reboot_wait: environment.wait("GROUNDCREW_REBOOT_WAIT_S")?.unwrap_or(wait_default),
        })
    }
}

struct Environment<F> {
    lookup: F,
}

impl<F: Fn(&str) -> Option<OsString>> Environment<F> {
    fn text(&self, variable: &'static str) -> Result<Option<String>, BadSetting> {
        let Some(value) = (self.lookup)(variable) else { return Ok(None) };
        let text = value.into_string();
        text.map(Some).map_err(|value| bad(variable, &value.to_string_lossy(), "UTF-8".to_owned()))
    }

    /// One of our own variables: empty counts as unset.
    fn own(&self, variable: &'static str) -> Result<Option<String>, BadSetting> {
        Ok(self.text(variable)?.filter(|value| !value.is_empty()))
    }

    fn switch(&self, variable: &'static str, default: bool) -> Result<bool, BadSetting> {
        Ok(self.text(variable)?.map_or(default, |value| value.eq_ignore_ascii_case("true")))
    }

    fn folder(&self, variable: &'static str, default: &str) -> Result<String, BadSetting> {
        let path = self.text(variable)?.unwrap_or_else(|| default.to_owned());
        let in_root = path.is_empty() || path.starts_with('/');
        if in_root && !path.chars().any(char::is_control) {
            return Ok(path);
        }
        let expected = "a path from the root mount: a slash first, and no control characters";
        Err(bad(variable, &path, expected.to_owned()))
    }

    fn buffer_limit(&self) -> Result<usize, BadSetting> {
        let variable = "SKYHOOK_AGENT_BUFFER_LIMIT";
        let Some(value) = self.text(variable)? else { return Ok(BUFFER_LIMIT_DEFAULT) };
        let limit = python_integer(&value).filter(|limit| (1..=BUFFER_BYTES_MAX).contains(limit));
        limit.ok_or_else(|| bad(variable, &value, format!("a number of bytes from 1 to {BUFFER_BYTES_MAX}")))
    }

    fn returncodes(&self) -> Result<ReturnCodes, BadSetting> {
        let variable = "GROUNDCREW_RETURNCODES";
        match self.own(variable)?.as_deref() {
            None | Some("own") => Ok(ReturnCodes::Own),
            Some("reference") => Ok(ReturnCodes::Reference),
            Some(other) => Err(bad(variable, other, "own or reference".to_owned())),
        }
    }

    fn reboot_limit(&self) -> Result<u32, BadSetting> {
        let variable = "GROUNDCREW_REBOOT_LIMIT";
        let Some(value) = self.own(variable)? else { return Ok(REBOOT_LIMIT_DEFAULT) };
        let limit = value.parse().ok().filter(|limit| (1..=REBOOT_LIMIT_MAX).contains(limit));
        limit.ok_or_else(|| bad(variable, &value, format!("a number from 1 to {REBOOT_LIMIT_MAX}")))
    }

    fn reboot_command_max(&self) -> Result<Duration, BadSetting> {
        let variable = "GROUNDCREW_REBOOT_COMMAND_S";
        let time = self.wait(variable)?.unwrap_or(REBOOT_COMMAND_DEFAULT);
        // No command ends in no time at all.
        let expected = || bad(variable, "0", format!("seconds above 0, up to {WAIT_SECONDS_MAX}"));
        Some(time).filter(|time| !time.is_zero()).ok_or_else(expected)
    }

    /// Seconds, with a fraction if need be.
    fn wait(&self, variable: &'static str) -> Result<Option<Duration>, BadSetting> {
        let Some(value) = self.own(variable)? else { return Ok(None) };
        let digits = value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let seconds =
            value.parse().ok().filter(|seconds| digits && (0.0..=WAIT_SECONDS_MAX).contains(seconds));
        let expected = || bad(variable, &value, format!("seconds from 0 to {WAIT_SECONDS_MAX}"));
        seconds.map(Duration::from_secs_f64).map(Some).ok_or_else(expected)
    }
}

fn bad(variable: &'static str, found: &str, expected: String) -> BadSetting {
    BadSetting { variable, found: quoted(found), expected }
}

/// A number as Python's `int` reads it from a text: spaces around it, a plus sign, underscores between digits.
fn python_integer(text: &str) -> Option<usize> {
    let text = text.trim();
    let digits = text.strip_prefix('+').unwrap_or(text);
    let grouped =
        digits.split('_').all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit()));
    if grouped { digits.replace('_', "").parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
