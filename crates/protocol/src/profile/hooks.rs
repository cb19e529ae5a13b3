//! The file of hooks of a node: what is run around its drains and at the ends of its runs.
//!
//! ```toml
//! [drain]
//! before = { argv = ["kubectl", "drain", "{hostname}", "--ignore-daemonsets"], deadline = "15m" }
//! after = { argv = ["kubectl", "uncordon", "{hostname}"], deadline = "1m" }
//!
//! [ready]
//! on_completed = { argv = ["/usr/local/sbin/in-service"], deadline = "1m" }
//! on_hold = { argv = ["/usr/local/sbin/out-of-service"], deadline = "1m" }
//! ```
//!
//! It is the node's own file and no part of a profile: what it names runs as the agent does, and an orchestrator has no say
//! in that. It is read by the rules of a profile, so that every refusal knows its line and key.

use serde::{Deserialize, Serialize};

use super::BadProfile;
use super::part::{Field, Part, bad_syntax};

/// Largest file of hooks. Four commands take a hundredth of it.
pub const HOOKS_BYTES_MAX: usize = 64 * 1024;
/// Words of a command; more is a script that belongs into a file.
const ARGV_MAX: usize = 64;
/// Longest word of a command, in bytes.
const WORD_BYTES_MAX: usize = 4_096;
/// Deadlines that a hook may have: one of less than a second fails by chance, one of more than a day is forgotten.
const DEADLINE_MS: std::ops::RangeInclusive<u64> = 1_000..=86_400_000;

const FILE_KEYS: [&str; 2] = ["drain", "ready"];
const DRAIN_KEYS: [&str; 2] = ["before", "after"];
const READY_KEYS: [&str; 2] = ["on_completed", "on_hold"];
const HOOK_KEYS: [&str; 2] = ["argv", "deadline"];

/// A command with its deadline. No shell reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCommand {
    /// The program, by an absolute path or by a name that is looked for, and its arguments.
    pub argv: Vec<String>,
    /// How long it may take, in milliseconds.
    pub deadline_ms: u64,
}

/// What is run, and when. Each may be absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before the node counts as drained, once nothing else is active.
    pub before_drain: Option<HookCommand>,
    /// After a drain for which `before_drain` was run.
    pub after_drain: Option<HookCommand>,
    /// When the run is completed.
    pub on_completed: Option<HookCommand>,
    /// When the run is held.
    pub on_hold: Option<HookCommand>,
}

impl Hooks {
    /// Reads a file of hooks.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line and key.
    pub fn parse(text: &str) -> Result<Hooks, BadProfile> {
        if text.len() > HOOKS_BYTES_MAX {
            let (found, expected) =
                (format!("{} bytes", text.len()), format!("hooks of at most {HOOKS_BYTES_MAX} bytes"));
            return Err(BadProfile { line: 1, key: String::new(), found, expected });
        }
        let document = toml::de::DeTable::parse(text).map_err(|error| bad_syntax(text, &error))?;
        let root = Part::root(text, &document, &FILE_KEYS)?;
        let drain = root.optional("drain", |field| field.table(&DRAIN_KEYS))?;
        let ready = root.optional("ready", |field| field.table(&READY_KEYS))?;
        let of = |part: &Option<Part<'_>>, key: &str| match part {
            Some(part) => part.optional(key, |field| command(&field)),
            None => Ok(None),
        };
        let hooks = Hooks {
            before_drain: of(&drain, "before")?,
            after_drain: of(&drain, "after")?,
            on_completed: of(&ready, "on_completed")?,
            on_hold: of(&ready, "on_hold")?,
        };
        match (&drain, &hooks) {
            (Some(part), Hooks { before_drain: None, after_drain: Some(_), .. }) => {
                Err(part
                    .lacks("before", "a hook that `after` undoes: `after` is run for a `before` that ran"))
            }
            _ if hooks == Hooks::default() => Err(root.refuse(
                "no hook",
                "at least one of drain.before, drain.after, ready.on_completed, ready.on_hold",
            )),
            _ => Ok(hooks),
        }
    }
}

fn command(field: &Field<'_>) -> Result<HookCommand, BadProfile> {
    let words = "an array of texts: the program and its arguments";
    let part = field.table(&HOOK_KEYS)?;
    let argv = part.needed("argv", words)?;
    let mut texts = Vec::new();
    for item in argv.items(words, ARGV_MAX)? {
        texts.push(item.text_of("a text of at most 4096 bytes without a zero byte", |text| {
            text.len() <= WORD_BYTES_MAX && !text.contains('\0')
        })?);
    }
    let is_program = |program: &&String| {
        let is_name = !program.contains('/');
        !program.trim().is_empty() && (is_name || program.starts_with('/'))
    };
    if texts.first().filter(is_program).is_none() {
        return Err(argv.refuse("a program first: an absolute path, or a name without slashes"));
    }
    let deadline_ms = part.needed("deadline", "how long it may take, as in \"1m\"")?.span_ms(DEADLINE_MS)?;
    Ok(HookCommand { argv: texts, deadline_ms })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "[drain]\n\
        before = { argv = [\"kubectl\", \"drain\", \"{hostname}\"], deadline = \"15m\" }\n\
        after = { argv = [\"kubectl\", \"uncordon\", \"{hostname}\"], deadline = \"1m\" }\n\
        [ready]\non_hold = { argv = [\"/bin/true\"], deadline = \"1s\" }\n";

    #[test]
    fn a_file_says_what_is_run_and_for_how_long() {
        let hooks = Hooks::parse(GOOD).unwrap();
        let before = hooks.before_drain.unwrap();
        assert_eq!((before.argv.len(), before.deadline_ms), (3, 900_000));
        assert_eq!(hooks.after_drain.unwrap().argv[1], "uncordon");
        assert_eq!(hooks.on_hold.unwrap().argv, ["/bin/true"]);
        assert_eq!(hooks.on_completed, None);
    }

    #[test]
    fn the_examples_that_are_shipped_are_read() {
        for text in [
            include_str!("../../../../deploy/hooks/kubernetes.toml"),
            include_str!("../../../../deploy/hooks/slurm.toml"),
        ] {
            let hooks = Hooks::parse(text).unwrap();
            assert!(hooks.before_drain.is_some() && hooks.after_drain.is_some());
            assert!(hooks.on_completed.is_some() && hooks.on_hold.is_some());
        }
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_line_and_key() {
        let hook = |argv: &str, deadline: &str| {
            format!("[drain]\nbefore = {{ argv = {argv}, deadline = {deadline} }}\n")
        };
        let long = format!("[\"{}\"]", "x".repeat(WORD_BYTES_MAX + 1));
        let many = format!("[{}]", "\"x\",".repeat(ARGV_MAX + 1));
        let cases = [
            (String::new(), 1, "", "at least one of"),
            ("[drain]\n".to_owned(), 1, "", "at least one of"),
            ("[drian]\n".to_owned(), 1, "drian", "is drain meant?"),
            ("[drain]\nbefor = 1\n".to_owned(), 2, "drain.befor", "is before meant?"),
            ("[drain]\nbefore = \"x\"\n".to_owned(), 2, "drain.before", "a table"),
            ("[drain]\nbefore = { argv = [\"a\"] }\n".to_owned(), 2, "drain.before.deadline", "how long"),
            ("[drain]\nbefore = { deadline = \"1m\" }\n".to_owned(), 2, "drain.before.argv", "an array"),
            (hook("\"a b\"", "\"1m\""), 2, "drain.before.argv", "an array of texts"),
            (hook("[]", "\"1m\""), 2, "drain.before.argv", "a program first"),
            (hook("[\"\"]", "\"1m\""), 2, "drain.before.argv", "a program first"),
            (hook("[\"bin/x\"]", "\"1m\""), 2, "drain.before.argv", "an absolute path"),
            (hook("[1]", "\"1m\""), 2, "drain.before.argv[1]", "a text of at most"),
            (hook("[\"a\\u0000\"]", "\"1m\""), 2, "drain.before.argv[1]", "without a zero byte"),
            (hook(&long, "\"1m\""), 2, "drain.before.argv[1]", "at most 4096"),
            (hook(&many, "\"1m\""), 2, "drain.before.argv", "at most 64"),
            (hook("[\"a\"]", "60"), 2, "drain.before.deadline", "as in"),
            (hook("[\"a\"]", "\"999ms\""), 2, "drain.before.deadline", "from 1s"),
            (hook("[\"a\"]", "\"25h\""), 2, "drain.before.deadline", "from 1s"),
            (
                "[drain]\nafter = { argv = [\"a\"], deadline = \"1m\" }\n".to_owned(),
                1,
                "drain.before",
                "`after` undoes",
            ),
            ("[drain".to_owned(), 1, "drain", "TOML"),
            (format!("#{}", "x".repeat(HOOKS_BYTES_MAX)), 1, "", "at most 65536 bytes"),
        ];
        for (text, line, key, expected) in cases {
            let error = Hooks::parse(&text).unwrap_err();
            let shown: String = text.chars().take(80).collect();
            assert_eq!((error.line, error.key.as_str()), (line, key), "{shown}: {error}");
            assert!(error.expected.contains(expected), "{shown}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(\\[drain\\]\n)?[ -~\n]{0,80}") {
            let _read_or_refused = Hooks::parse(&text);
        }
    }
}
