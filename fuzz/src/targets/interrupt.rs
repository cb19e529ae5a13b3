//! The argument of `groundcrew package interrupt`: base64 of JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use groundcrew_agent::interrupt::Interrupt;

/// Tries one input: as the argument itself, and as what the argument encodes.
pub fn check(bytes: &[u8]) {
    if let Ok(argument) = std::str::from_utf8(bytes) {
        inflated(argument);
    }
    inflated(&STANDARD.encode(bytes));
}

fn inflated(argument: &str) {
    match Interrupt::inflate(argument) {
        Ok(interrupt) => {
            assert_eq!(Interrupt::inflate(&interrupt.serialise()).as_ref(), Ok(&interrupt));
            for command in interrupt.commands() {
                runs_what_it_should(&command);
            }
        }
        Err(refused) => assert!(!refused.to_string().contains('\n'), "more than one line: {refused}"),
    }
}

/// No text of others becomes a program, an option or a line of its own.
fn runs_what_it_should(command: &[String]) {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    match words[..] {
        ["reboot"] | ["systemctl", "daemon-reload"] | ["service", "procps", "force-reload"] => {}
        ["systemctl", "restart", unit] => {
            assert!(
                !unit.is_empty() && !unit.starts_with('-') && !unit.contains(char::is_control),
                "{unit:?}"
            );
        }
        _ => panic!("{words:?} is none of the commands"),
    }
}
