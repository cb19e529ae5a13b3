//! One step of a mode.

use std::collections::BTreeMap;
use std::fmt;

use super::Mode;
use crate::package::pyrepr;

/// Whether a step that has a flag runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotence {
    /// A flag says that it was done, and it is skipped.
    Auto,
    /// The step sees to it itself and runs every time.
    Disabled,
}

impl fmt::Display for Idempotence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "Idempotence.Auto",
            Self::Disabled => "Idempotence.Disabled",
        })
    }
}

/// An exit status that counts as success. JSON has whole numbers in two forms, which compare equal and are written
/// differently; names of flags hold what is written.
#[derive(Debug, Clone, PartialEq)]
pub enum ReturnCode {
    /// A whole number of any size, in decimal digits.
    Integer(String),
    /// A number that was written with a point or an exponent, and is whole.
    Float(f64),
}

impl ReturnCode {
    /// Takes the text of a JSON number.
    pub(super) fn from_json(text: &str) -> ReturnCode {
        if text.contains(['.', 'e', 'E']) {
            return Self::Float(text.parse().expect("JSON's numbers are Rust's too"));
        }
        Self::Integer(if text == "-0" { "0".to_owned() } else { text.to_owned() })
    }

    /// Whether an exit status (a signal is its negative number) is this one.
    pub fn accepts(&self, status: i32) -> bool {
        match self {
            Self::Integer(digits) => *digits == status.to_string(),
            Self::Float(value) => *value == f64::from(status),
        }
    }

    /// As Python's `repr` writes it.
    pub fn repr(&self) -> String {
        match self {
            Self::Integer(digits) => digits.clone(),
            Self::Float(value) => pyrepr::float(*value),
        }
    }
}

/// One step: a file of the package that is run.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What its author calls it; nothing depends on it.
    pub name: String,
    /// Its file, from the package's step folder, which it does not leave.
    pub path: String,
    /// As the config has them: `env:NAME` stands for a variable's value.
    pub arguments: Vec<String>,
    /// The exit statuses that count as success; at least one.
    pub returncodes: Vec<ReturnCode>,
    /// Its own environment, over the container's.
    pub env: BTreeMap<String, String>,
    /// Shown in the header, and of no other effect.
    pub on_host: bool,
    /// Whether a flag skips it.
    pub idempotence: Idempotence,
    /// Whether it is given the previous and the current version as arguments.
    pub upgrade_step: bool,
    /// Whether the config says `true` under that key, which nothing reads.
    pub requires_interrupt: bool,
}

impl Step {
    /// The list of return codes in Python's words.
    pub fn returncodes_repr(&self) -> String {
        pyrepr::list(self.returncodes.iter().map(ReturnCode::repr))
    }

    /// The line that is printed before it runs, with the arguments as they are by then: those of the config, and
    /// behind them what an upgrade adds, but never a value that came from `env:`.
    pub fn header(&self, mode: Mode, arguments: &[String]) -> String {
        format!(
            "{mode} {} {} {} {} {}",
            self.path,
            pyrepr::texts(arguments),
            self.returncodes_repr(),
            self.idempotence,
            pyrepr::boolean(self.on_host),
        )
    }

    /// The path under which its check is looked for: `_check` before what follows the last point of the whole path,
    /// or at its end. The reference does not stop at the file's name, so that `a.d/b` is checked by `a_check.d/b`.
    pub(super) fn check_path(&self) -> String {
        match self.path.rsplit_once('.') {
            Some((stem, extension)) if !extension.is_empty() => format!("{stem}_check.{extension}"),
            Some((stem, _)) => format!("{stem}_check"),
            None => format!("{}_check", self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn return_codes_compare_as_numbers_and_are_written_as_python_does() {
        for (text, accepted, refused, repr) in [
            ("0", 0, 1, "0"),
            ("-0", 0, 1, "0"),
            ("0.0", 0, 1, "0.0"),
            ("-0.0", 0, 1, "-0.0"),
            ("0.00", 0, 1, "0.0"),
            ("3", 3, -3, "3"),
            ("-15", -15, 15, "-15"),
            ("1e2", 100, 1, "100.0"),
            ("1E+2", 100, 1, "100.0"),
            ("1e0", 1, 0, "1.0"),
        ] {
            let code = ReturnCode::from_json(text);
            assert!(code.accepts(accepted) && !code.accepts(refused), "{text}");
            assert_eq!(code.repr(), repr, "{text}");
        }
        for (text, repr) in [
            ("12345678901234567890", "12345678901234567890"),
            ("-99999999999999999999999999", "-99999999999999999999999999"),
            ("1e22", "1e+22"),
        ] {
            let code = ReturnCode::from_json(text);
            assert_eq!(code.repr(), repr);
            assert!(!code.accepts(0) && !code.accepts(-1));
        }
    }
}
