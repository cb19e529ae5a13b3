//! What an operator may interrupt a node with, and the text in which it is handed over: JSON in base64.
//!
//! The names, the commands and the lenient base64 are the reference agent's and an interface. [`Interrupt::inflate`]
//! is pure and takes any text.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde_json::{Map, Value};

/// The kinds, as the reference lists them.
pub const KINDS: [&str; 5] =
    ["no_op", "node_restart", "restart_all_services", "script_interrupt", "service_restart"];

/// Greatest length of the base64 text: a command line holds at most 128 KiB in one argument (`MAX_ARG_STRLEN`).
const TEXT_BYTES_MAX: usize = 128 * 1024;
/// Greatest number of services in one interrupt. Each is a command, a flag and a log of its own.
const SERVICES_MAX: usize = 1_000;

/// An interrupt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interrupt {
    /// Nothing is run; that it was asked for is flagged.
    NoOp,
    /// The machine is rebooted.
    NodeRestart,
    /// systemd reads its units again, then restarts these.
    ServiceRestart {
        /// Names of units.
        services: Vec<String>,
    },
    /// Every service is told to reload its settings.
    RestartAllServices,
    /// Kept for operators that send it; it has no command.
    ScriptInterrupt,
}

/// An interrupt that could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// No base64, even when everything outside its alphabet is passed over.
    #[error("reading the interrupt: found {found}, expected base64 of a JSON object")]
    Base64 {
        /// What is wrong with it.
        found: String,
    },
    /// Base64 of something else than a JSON object.
    #[error("reading the interrupt: found {found}, expected a JSON object as {{\"type\": \"node_restart\"}}")]
    Json {
        /// What was found.
        found: String,
    },
    /// A type that nobody knows.
    #[error("reading the interrupt's type: found {found}, expected one of {}", KINDS.join(", "))]
    Type {
        /// What was found.
        found: String,
    },
    /// Services that are no list of unit names.
    #[error(
        "reading the interrupt's services: found {found}, expected a list of at most {SERVICES_MAX} names of units"
    )]
    Services {
        /// What was found.
        found: String,
    },
}

impl Interrupt {
    /// Its name, which also begins its flags and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Interrupt::NoOp => "no_op",
            Interrupt::NodeRestart => "node_restart",
            Interrupt::ServiceRestart { .. } => "service_restart",
            Interrupt::RestartAllServices => "restart_all_services",
            Interrupt::ScriptInterrupt => "script_interrupt",
        }
    }

    /// The commands, in order, each a list of arguments.
    pub fn commands(&self) -> Vec<Vec<String>> {
        let command = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<String>>();
        match self {
            Interrupt::NoOp | Interrupt::ScriptInterrupt => Vec::new(),
            Interrupt::NodeRestart => vec![command(&["reboot"])],
            Interrupt::RestartAllServices => vec![command(&["service", "procps", "force-reload"])],
            Interrupt::ServiceRestart { services } => {
                std::iter::once(command(&["systemctl", "daemon-reload"]))
                    .chain(services.iter().map(|service| command(&["systemctl", "restart", service])))
                    .collect()
            }
        }
    }

    /// The text that [`Interrupt::inflate`] reads, the same bytes as the reference writes for names in ASCII.
    pub fn serialise(&self) -> String {
        let kind = self.kind();
        let json = match self {
            Interrupt::ServiceRestart { services } => {
                let names: Vec<String> =
                    services.iter().map(|name| Value::from(name.as_str()).to_string()).collect();
                format!("{{\"type\": \"{kind}\", \"services\": [{}]}}", names.join(", "))
            }
            Interrupt::NoOp
            | Interrupt::NodeRestart
            | Interrupt::RestartAllServices
            | Interrupt::ScriptInterrupt => format!("{{\"type\": \"{kind}\"}}"),
        };
        STANDARD.encode(json)
    }

    /// Reads an interrupt from its base64 text.
    ///
    /// # Errors
    /// What was found instead, and the known types where the type is none of them.
    pub fn inflate(text: &str) -> Result<Interrupt, InflateError> {
        let bytes = decode_leniently(text)?;
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| InflateError::Json { found: format!("{} ({error})", shown(&bytes)) })?;
        let Value::Object(fields) = value else {
            return Err(InflateError::Json { found: shown(&bytes) });
        };
        match fields.get("type") {
            Some(Value::String(kind)) => Interrupt::of_kind(kind, &fields),
            Some(other) => Err(InflateError::Type { found: shown(other.to_string().as_bytes()) }),
            None => Err(InflateError::Type { found: "none".to_owned() }),
        }
    }

    fn of_kind(kind: &str, fields: &Map<String, Value>) -> Result<Interrupt, InflateError> {
        match kind {
            "no_op" => Ok(Interrupt::NoOp),
            "node_restart" => Ok(Interrupt::NodeRestart),
            "restart_all_services" => Ok(Interrupt::RestartAllServices),
            "script_interrupt" => Ok(Interrupt::ScriptInterrupt),
            "service_restart" => {
                Ok(Interrupt::ServiceRestart { services: services(fields.get("services"))? })
            }
            _ => Err(InflateError::Type { found: format!("{kind:?}") }),
        }
    }
}

fn services(value: Option<&Value>) -> Result<Vec<String>, InflateError> {
    let refused = |found: String| InflateError::Services { found };
    let Some(value) = value else { return Err(refused("none".to_owned())) };
    let Value::Array(names) = value else { return Err(refused(shown(value.to_string().as_bytes()))) };
    if names.len() > SERVICES_MAX {
        return Err(refused(format!("{} names", names.len())));
    }
    names
        .iter()
        .map(|name| unit_name(name).ok_or_else(|| refused(shown(name.to_string().as_bytes()))))
        .collect()
}

/// A name that systemctl takes for a unit: one that begins with a dash would be an option.
fn unit_name(value: &Value) -> Option<String> {
    let name = value.as_str()?;
    let fits = !name.is_empty() && !name.starts_with('-') && !name.contains(char::is_control);
    fits.then(|| name.to_owned())
}

/// What was found, short enough for a line.
fn shown(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 80;
    let text = String::from_utf8_lossy(bytes);
    let cut: String = text.chars().take(SHOWN_MAX).collect();
    if cut.len() == text.len() { format!("{cut:?}") } else { format!("{cut:?}…") }
}

/// Base64 as Python's `b64decode` takes it unless told to be strict: characters outside the alphabet are passed over,
/// and whatever follows a complete padding too.
fn decode_leniently(text: &str) -> Result<Vec<u8>, InflateError> {
    let wrong = |found: String| InflateError::Base64 { found };
    if text.len() > TEXT_BYTES_MAX {
        return Err(wrong(format!("{} characters, more than {TEXT_BYTES_MAX}", text.len())));
    }
    let whole = |kept: &[u8]| LENIENT.decode(kept).map_err(|error| wrong(error.to_string()));
    let (mut kept, mut pads) = (Vec::with_capacity(text.len()), 0);
    for byte in text.bytes() {
        let filled = kept.len() % 4;
        if byte == b'=' {
            pads += 1;
            if filled >= 2 && filled + pads >= 4 {
                return whole(&kept);
            }
        } else if byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/' {
            pads = 0;
            kept.push(byte);
        }
    }
    match kept.len() % 4 {
        0 => whole(&kept),
        1 => Err(wrong(format!("{} characters, one more than a multiple of 4", kept.len()))),
        _ => Err(wrong("text that ends without its padding".to_owned())),
    }
}

/// What is left of a text once its padding was seen, and bits beyond the last whole byte passed over as Python does.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(json: &str) -> String {
        STANDARD.encode(json)
    }

    #[test]
    fn every_kind_has_its_name_and_its_commands() {
        let services = vec!["a".to_owned(), "b@1.service".to_owned()];
        let table: [(Interrupt, &str, &[&str]); 5] = [
            (Interrupt::NoOp, "no_op", &[]),
            (Interrupt::NodeRestart, "node_restart", &["reboot"]),
            (Interrupt::RestartAllServices, "restart_all_services", &["service procps force-reload"]),
            (Interrupt::ScriptInterrupt, "script_interrupt", &[]),
            (
                Interrupt::ServiceRestart { services },
                "service_restart",
                &["systemctl daemon-reload", "systemctl restart a", "systemctl restart b@1.service"],
            ),
        ];
        for (interrupt, kind, commands) in table {
            assert_eq!(interrupt.kind(), kind);
            assert!(KINDS.contains(&kind));
            let joined: Vec<String> = interrupt.commands().iter().map(|command| command.join(" ")).collect();
            assert_eq!(joined, commands);
            assert_eq!(Interrupt::inflate(&interrupt.serialise()), Ok(interrupt));
        }
    }

    #[test]
    fn the_text_is_the_references() {
        assert_eq!(Interrupt::NoOp.serialise(), "eyJ0eXBlIjogIm5vX29wIn0=");
        assert_eq!(Interrupt::NodeRestart.serialise(), "eyJ0eXBlIjogIm5vZGVfcmVzdGFydCJ9");
        let services = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(
            Interrupt::ServiceRestart { services }.serialise(),
            "eyJ0eXBlIjogInNlcnZpY2VfcmVzdGFydCIsICJzZXJ2aWNlcyI6IFsiYSIsICJiIl19"
        );
    }

    #[test]
    fn what_is_refused_is_named() {
        let told = |text: &str| Interrupt::inflate(text).unwrap_err().to_string();
        let table = [
            ("not base64!".to_owned(), "9 characters, one more than a multiple of 4"),
            ("eyJ0eXBlIjogIm5vX29wIn0".to_owned(), "ends without its padding"),
            (encoded("[]"), "found \"[]\", expected a JSON object"),
            (encoded("{"), "expected a JSON object"),
            (String::new(), "expected a JSON object"),
            (encoded("{}"), "type: found none, expected one of no_op, node_restart"),
            (encoded("{\"type\": 7}"), "type: found \"7\""),
            (
                encoded("{\"type\": \"kexec\"}"),
                "found \"kexec\", expected one of no_op, node_restart, restart_all_services, script_interrupt, service_restart",
            ),
            (encoded("{\"type\": \"service_restart\"}"), "services: found none"),
            (encoded("{\"type\": \"service_restart\", \"services\": \"a\"}"), "found \"\\\"a\\\"\""),
            (encoded("{\"type\": \"service_restart\", \"services\": [\"--now\"]}"), "--now"),
            (encoded("{\"type\": \"service_restart\", \"services\": [\"\"]}"), "services: found"),
            ("A".repeat(TEXT_BYTES_MAX + 1), "more than"),
        ];
        for (text, expected) in table {
            let told = told(&text);
            assert!(told.contains(expected), "{told}\ndoes not say: {expected}");
            assert!(!told.contains('\n'), "{told}");
        }
    }

    #[test]
    fn characters_outside_the_alphabet_are_passed_over() {
        for text in [
            "eyJ0eXBl\nIjogIm5v X29wIn0=",
            "-eyJ0eXBlIjogIm5vX29wIn0=_",
            "eyJ0eXBlIjogIm5vX29wIn0=and more",
            // Padding that comes too early, and bits beyond the last byte.
            "ey=J0eXBlIjogIm5vX29wIn0=",
            "=eyJ0eXBlIjogIm5vX29wIn0=",
            "eyJ0eXBlIjogIm5vX29wIn1=",
        ] {
            assert_eq!(Interrupt::inflate(text), Ok(Interrupt::NoOp), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_answer(text in ".*") {
            let _ = Interrupt::inflate(&text);
        }

        #[test]
        fn any_object_is_an_answer(json in "\\{\"type\": ?\"(no_op|service_restart|x)\"(, \"services\": .{0,30})?\\}") {
            let _ = Interrupt::inflate(&encoded(&json));
        }

        #[test]
        fn proper_base64_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = STANDARD.encode(&bytes);
            prop_assert_eq!(decode_leniently(&text), Ok(bytes));
        }
    }
}
