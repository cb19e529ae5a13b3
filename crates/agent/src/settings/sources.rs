//! Where settings come from, and which of them wins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::kernel_line;

/// The kernel's own limit is 2 KiB to 4 KiB.
const KERNEL_LINE_BYTES_MAX: u64 = 64 * 1024;
const KERNEL_PREFIX: &str = "groundcrew.";

/// Parameters with a value, by the name of their flag; true where the kernel command line may give it.
const VALUES: [(&str, bool); 14] = [
    ("url", true),
    ("run", true),
    ("token", true),
    ("fpr", true),
    ("mac", true),
    ("clock", true),
    ("home", false),
    ("drain-max-age", false),
    ("drain-listen", false),
    ("drain-secret-file", false),
    ("hooks", false),
    ("authorized-keys", false),
    ("hold-user", false),
    ("host-keys", false),
];
/// A parameter that the environment alone may give, as a pod's manifest does.
pub(super) const POD_UID: &str = "pod-uid";
/// A parameter that the environment alone may give, for tests.
pub(super) const HEARTBEAT_INTERVAL: &str = "heartbeat-interval-ms";
/// Parameters that are on or off.
const SWITCHES: [&str; 6] =
    ["allow-power", "allow-reboot", "allow-services", "allow-packages", "allow-wipe", "allow-root-keys"];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The kernel command line, in this file.
    KernelLine(PathBuf),
    /// The environment.
    Environment,
    /// A flag.
    Flag,
}

impl Source {
    /// What a parameter is called there.
    pub(super) fn name_of(&self, flag: &str) -> String {
        match self {
            Source::KernelLine(_) => format!("{KERNEL_PREFIX}{flag}"),
            Source::Environment => variable(flag),
            Source::Flag => format!("--{flag}"),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::KernelLine(path) => write!(f, "the kernel command line ({})", path.display()),
            Source::Environment => f.write_str("the environment"),
            Source::Flag => f.write_str("a flag"),
        }
    }
}

/// Why the settings do not hold together. Each is a usage error: exit code 64.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A value is not of its form.
    #[error("{parameter} from {from}: found {found}, expected {expected}")]
    Bad {
        /// The parameter, as it is called there.
        parameter: String,
        /// Where it came from.
        from: Source,
        /// What was found; of a token only how long it is.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// Nothing says what must be said.
    #[error(
        "missing: --{flag}, {} in the environment or {KERNEL_PREFIX}{flag}= on the kernel command line",
        variable(flag)
    )]
    Missing {
        /// The flag.
        flag: &'static str,
    },
    /// A flag that is none, or lacks its value.
    #[error("flags")]
    Flags {
        /// What is wrong.
        source: lexopt::Error,
    },
    /// The file of hooks.
    #[error(transparent)]
    Hooks(#[from] super::hooks_file::HooksError),
    /// The kernel command line cannot be read.
    #[error("reading the kernel command line in {}", path.display())]
    KernelLine {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// A value as it was given.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) value: String,
    pub(super) source: Source,
}

/// The values that count, by flag name, not parsed yet.
pub(super) struct Values {
    given: BTreeMap<&'static str, Given>,
    pub(super) unknown: Vec<String>,
}

impl Values {
    /// Gathers from all three, the later over the earlier.
    pub(super) fn gather(
        flags: impl IntoIterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<OsString>,
        kernel_line: &Path,
    ) -> Result<Values, SettingsError> {
        let mut values = Values { given: BTreeMap::new(), unknown: Vec::new() };
        values.take_kernel_line(kernel_line)?;
        values.take_environment(environment)?;
        values.take_flags(flags)?;
        Ok(values)
    }

    pub(super) fn given(&self, flag: &'static str) -> Option<&Given> {
        self.given.get(flag)
    }

    /// Parses a value, where there is one. The function says what was expected instead.
    pub(super) fn parse<T>(
        &self,
        flag: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, SettingsError> {
        let Some(given) = self.given.get(flag) else { return Ok(None) };
        parse(&given.value).map(Some).map_err(|expected| given.bad(flag, expected))
    }

    pub(super) fn required<T>(
        &self,
        flag: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, SettingsError> {
        self.parse(flag, parse)?.ok_or(SettingsError::Missing { flag })
    }

    /// Whether something is switched on. Off where nothing says so.
    pub(super) fn switch(&self, flag: &'static str) -> Result<bool, SettingsError> {
        let parsed = self.parse(flag, |text| match text {
            "yes" | "true" | "1" | "on" => Ok(true),
            "no" | "false" | "0" | "off" => Ok(false),
            _ => Err("yes or no".to_owned()),
        })?;
        Ok(parsed.unwrap_or(false))
    }

    fn take_kernel_line(&mut self, path: &Path) -> Result<(), SettingsError> {
        let error = |source| SettingsError::KernelLine { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        match std::fs::File::open(path) {
            Ok(file) => file.take(KERNEL_LINE_BYTES_MAX).read_to_end(&mut bytes).map(drop).map_err(error)?,
            // A container without procfs has none, and needs none.
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(error(source)),
        }
        for (name, value) in kernel_line::parameters(&String::from_utf8_lossy(&bytes)) {
            let Some(flag) = name.strip_prefix(KERNEL_PREFIX) else { continue };
            match VALUES.iter().find(|(known, from_kernel)| *known == flag && *from_kernel) {
                Some((known, _)) => {
                    // One without a value gives none: a boot script may fill in what it does not know.
                    let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
                    let source = Source::KernelLine(path.to_owned());
                    self.given.insert(known, Given { value, source });
                }
                None => self.unknown.push(name.chars().take(80).collect()),
            }
        }
        Ok(())
    }

    fn take_environment(
        &mut self,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(), SettingsError> {
        for flag in VALUES.iter().map(|(flag, _)| *flag).chain(SWITCHES).chain([POD_UID, HEARTBEAT_INTERVAL])
        {
            // An empty variable is a line of an environment file that nobody has filled in.
            if let Some(value) = environment(&variable(flag)).filter(|value| !value.is_empty()) {
                self.insert(flag, value, Source::Environment)?;
            }
        }
        Ok(())
    }

    fn take_flags(&mut self, flags: impl IntoIterator<Item = OsString>) -> Result<(), SettingsError> {
        let error = |source| SettingsError::Flags { source };
        let mut parser = lexopt::Parser::from_args(flags);
        while let Some(argument) = parser.next().map_err(error)? {
            let lexopt::Arg::Long(name) = argument else { return Err(error(argument.unexpected())) };
            if let Some((flag, _)) = VALUES.iter().find(|(flag, _)| *flag == name) {
                let value = parser.value().map_err(error)?;
                self.insert(flag, value, Source::Flag)?;
            } else if let Some(flag) = SWITCHES.iter().find(|flag| **flag == name) {
                let value = parser.optional_value().unwrap_or_else(|| "yes".into());
                self.insert(flag, value, Source::Flag)?;
            } else {
                return Err(error(argument.unexpected()));
            }
        }
        Ok(())
    }

    fn insert(&mut self, flag: &'static str, value: OsString, source: Source) -> Result<(), SettingsError> {
        let text = value.into_string();
        let is_text = text.is_ok();
        let value = text.unwrap_or_else(|bytes| bytes.to_string_lossy().into_owned());
        let given = Given { value, source };
        if !is_text {
            return Err(given.bad(flag, "text in UTF-8".to_owned()));
        }
        self.given.insert(flag, given);
        Ok(())
    }
}

/// The environment variable of a flag.
fn variable(flag: &str) -> String {
    format!("GROUNDCREW_{}", flag.to_ascii_uppercase().replace('-', "_"))
}
