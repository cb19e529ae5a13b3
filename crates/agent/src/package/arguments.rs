//! The argument forms of the package agent, which operators of every age use.
//!
//! ```text
//! MODE ROOT_MOUNT COPY_DIR            MODE COPY_DIR                   (the root mount is /root)
//! MODE ROOT_MOUNT COPY_DIR INTERRUPT  interrupt COPY_DIR INTERRUPT    (the root mount is /root)
//! ```
//! Three arguments that begin with `interrupt` are always the old form, also where a root mount was meant: the
//! reference reads them so. A mode that is not known is no error here: it is shown in the banner, warned of, and
//! the agent ends with 0, because newer operators meet older agents.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use super::config::Mode;
use super::quoted::quoted;

/// The names under which the binary takes these arguments directly.
pub const PROGRAM_NAMES: [&str; 2] = ["skyhook-agent", "controller"];
/// The root mount of the forms without one.
pub const ROOT_MOUNT_DEFAULT: &str = "/root";
/// What a call that cannot be understood is answered with, on stderr.
pub const USAGE: &str = "\
usage: groundcrew package MODE ROOT_MOUNT COPY_DIR [INTERRUPT]
       groundcrew package MODE COPY_DIR                  (ROOT_MOUNT is /root)
       groundcrew package interrupt COPY_DIR INTERRUPT   (ROOT_MOUNT is /root)";

/// Whether the binary was called by one of [`PROGRAM_NAMES`], by whatever path.
pub fn is_package_agent(program: &OsStr) -> bool {
    let name = Path::new(program).file_name();
    name.is_some_and(|name| PROGRAM_NAMES.iter().any(|known| name == *known))
}

/// The mode that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedMode {
    /// One that this agent knows.
    Known(Mode),
    /// One that it does not: see [`unknown_mode_warning`].
    Unknown(String),
}

impl AskedMode {
    fn parse(text: &str) -> AskedMode {
        Mode::parse(text).map_or_else(|| AskedMode::Unknown(text.to_owned()), AskedMode::Known)
    }
}

impl fmt::Display for AskedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(mode) => mode.fmt(f),
            Self::Unknown(text) => f.write_str(text),
        }
    }
}

/// The line on stderr for a mode that is not known, after which the agent ends with 0.
pub fn unknown_mode_warning(found: &str) -> String {
    let known = Mode::ALL.map(Mode::name).join(",");
    format!("WARNING:root:This version of the Agent doesn't support the {found} mode. Options are: {known}.")
}

/// One call of the package agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What is to be done.
    pub mode: AskedMode,
    /// The host's root, as given; `local` means that there is none to enter.
    pub root_mount: PathBuf,
    /// The package's folder beneath it, as given: it begins with a slash, or the call fails when it is used.
    pub copy_dir: PathBuf,
    /// The interrupt, in base64, as given. Modes other than `interrupt` show it and use it for nothing.
    pub interrupt: Option<String>,
}

/// A call that cannot be understood: exit status 64, and [`USAGE`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadCall {
    /// Too few or too many.
    #[error("found {found} arguments, expected 2, 3 or 4")]
    Count {
        /// How many there were.
        found: usize,
    },
    /// Bytes where words are needed.
    #[error("{what}: found {found}, expected UTF-8")]
    NotText {
        /// Which argument.
        what: &'static str,
        /// What it was, as far as it can be shown.
        found: String,
    },
}

impl Call {
    /// Reads the arguments behind the program's (or the subcommand's) name.
    ///
    /// # Errors
    /// Another count than 2, 3 or 4, or a mode or interrupt that is not UTF-8.
    pub fn parse(arguments: &[OsString]) -> Result<Call, BadCall> {
        let root = OsStr::new(ROOT_MOUNT_DEFAULT);
        let (mode, root_mount, copy_dir, interrupt) = match arguments {
            [mode, copy_dir] => (mode, root, copy_dir, None),
            [mode, copy_dir, data] if mode == Mode::Interrupt.name() => (mode, root, copy_dir, Some(data)),
            [mode, root_mount, copy_dir] => (mode, root_mount.as_os_str(), copy_dir, None),
            [mode, root_mount, copy_dir, data] => (mode, root_mount.as_os_str(), copy_dir, Some(data)),
            other => return Err(BadCall::Count { found: other.len() }),
        };
        Ok(Call {
            mode: AskedMode::parse(words("MODE", mode)?),
            root_mount: root_mount.into(),
            copy_dir: copy_dir.into(),
            interrupt: interrupt.map(|data| words("INTERRUPT", data).map(str::to_owned)).transpose()?,
        })
    }
}

fn words<'a>(what: &'static str, argument: &'a OsStr) -> Result<&'a str, BadCall> {
    let not_text = || BadCall::NotText { what, found: quoted(&argument.to_string_lossy()) };
    argument.to_str().ok_or_else(not_text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Call, BadCall> {
        Call::parse(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn every_form_is_read_as_the_reference_does() {
        let table = [
            (&["apply", "/copy"][..], ("apply", "/root", "/copy", None)),
            (&["apply-check", "/host", "/copy"], ("apply-check", "/host", "/copy", None)),
            (&["interrupt", "/copy", "e30="], ("interrupt", "/root", "/copy", Some("e30="))),
            // The old form, even if a root mount was meant.
            (&["interrupt", "/host", "/copy"], ("interrupt", "/root", "/host", Some("/copy"))),
            (&["interrupt", "/copy"], ("interrupt", "/root", "/copy", None)),
            (&["interrupt", "/host", "/copy", "e30="], ("interrupt", "/host", "/copy", Some("e30="))),
            (&["apply", "/host", "/copy", "e30="], ("apply", "/host", "/copy", Some("e30="))),
        ];
        for (arguments, (mode, root_mount, copy_dir, interrupt)) in table {
            let expected = Call {
                mode: AskedMode::Known(Mode::parse(mode).unwrap()),
                root_mount: root_mount.into(),
                copy_dir: copy_dir.into(),
                interrupt: interrupt.map(str::to_owned),
            };
            assert_eq!(parse(arguments), Ok(expected), "{arguments:?}");
        }
    }

    #[test]
    fn other_counts_are_refused() {
        for count in [0, 1, 5, 6] {
            let error = parse(&vec!["apply"; count]).unwrap_err();
            assert_eq!(error, BadCall::Count { found: count });
        }
        assert_eq!(parse(&[]).unwrap_err().to_string(), "found 0 arguments, expected 2, 3 or 4");
    }

    #[test]
    fn an_unknown_mode_is_a_call_all_the_same() {
        let call = parse(&["frobnicate", "/host", "/copy"]).unwrap();
        assert_eq!(call.mode, AskedMode::Unknown("frobnicate".to_owned()));
        assert_eq!(call.mode.to_string(), "frobnicate");
        assert_eq!(
            unknown_mode_warning("frobnicate"),
            "WARNING:root:This version of the Agent doesn't support the frobnicate mode. Options are: \
             uninstall,uninstall-check,upgrade,upgrade-check,apply,apply-check,config,config-check,interrupt,\
             post-interrupt,post-interrupt-check."
        );
        // The reference compares the words as they are.
        assert!(matches!(parse(&["Apply", "/copy"]).unwrap().mode, AskedMode::Unknown(_)));
    }

    #[test]
    fn folders_may_be_any_bytes_and_words_may_not() {
        let bytes = OsString::from_vec(b"/h\xff".to_vec());
        let call = Call::parse(&["apply".into(), bytes.clone(), "/copy".into()]).unwrap();
        assert_eq!(call.root_mount.as_os_str(), bytes);
        let error = Call::parse(&[bytes, "/copy".into()]).unwrap_err();
        assert_eq!(error.to_string(), "MODE: found \"/h\u{fffd}\", expected UTF-8");
    }

    #[test]
    fn the_binary_is_known_by_its_name() {
        for (program, expected) in [
            ("controller", true),
            ("/usr/bin/skyhook-agent", true),
            ("groundcrew", false),
            ("/controller/x", false),
            ("", false),
        ] {
            assert_eq!(is_package_agent(OsStr::new(program)), expected, "{program}");
        }
    }
}
