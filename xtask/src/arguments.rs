//! The command line of `cargo xtask`, parsed into a [`Task`]. Decides nothing and runs nothing.

use std::ffi::OsString;

use lexopt::Arg::{Long, Short, Value};
use lexopt::{Parser, ValueExt};

use crate::{fuzz, image, test};

/// What `cargo xtask --help` prints, and what follows a usage error.
pub const USAGE: &str = "\
usage: cargo xtask TASK [OPTION..]

  up            vet this very machine: orchestrator, agent and one run of the demo profile
  test          build everything and run every test
  guest         prepare what the tests boot: QEMU, a kernel and a small Debian, into target/guest
  image         build the live image that machines are vetted in: a kernel and an initramfs with tools and agent
  fuzz          search for inputs that break a rule, with libFuzzer
  bench         measure the orchestrator and the agent on this machine
  dist          build the static binaries that are shipped, into target/dist
  check-layers  hold the arrows between crates, and between the modules inside them

`cargo xtask TASK --help` tells more of each. `up`, `test`, `guest`, `image`, `fuzz`, `bench` and `dist` install the Debian
packages that they miss when run as root, and name them otherwise. Exit codes: 0 done, 1 failed, 64 usage.";

const UP: &str = "\
usage: cargo xtask up [--keep]

Builds the release binaries, starts the orchestrator on loopback with a fresh data folder, makes a run for this machine
with profiles/demo.toml (about a minute, no writing to any disk), starts the agent and follows the run. Ends with
`Completed` and exit code 0, or says what holds the run and exits with 1. What is missing (a C compiler, stress-ng) is
installed for root. The report and what both programs printed are in target/up; all else is removed, after Ctrl-C too,
which ends everything that was started and exits with 130.

  --keep   leave orchestrator and agent running, and say how to ask them and how to end them";

const TEST: &str = "\
usage: cargo xtask test [--no-vm] [--seeds N] [--fresh] [FILTER..]

Builds every binary and test of the workspace and runs them with `cargo test`.

  --no-vm     leave out the tests that boot a guest
  --seeds N   seeds of the model test (10000 unless told)
  --fresh     let the property tests draw inputs that nobody has drawn before, as PROPTEST_CASES says so many
  FILTER      run only the tests whose names hold one of these";

const GUEST: &str = "\
usage: cargo xtask guest

Prepares what the tests that boot a guest need, in target/guest, and prints that folder: `test` does it as well. Takes root
and apt's mirrors, and a minute; what is there is used again until its recipe in xtask/src changes.";

const IMAGE: &str = "\
usage: cargo xtask image [--pin URL,SHA256[,SHA256]] [--set NAME=VALUE].. [--agent FILE] [--out DIR]

Builds the live image: vmlinuz, initramfs.img with the tools of all stages, an SSH server and the static agent as its first
process, a manifest of what it holds, and SHA256SUMS, in target/image. docs/live-image.md says how to boot it. Takes root
and apt's mirrors, and a minute for what is made once; after that the seconds that the agent takes.

  --pin URL,SHA256[,SHA256]
                    the orchestrator and its certificate, which then beat the kernel command line
  --set NAME=VALUE  a setting of the agent by its variable, as in GROUNDCREW_ALLOW_PACKAGES=yes; it beats the kernel
                    command line, too
  --agent FILE      take this agent instead of building one
  --out DIR         put the image there";

const FUZZ: &str = "\
usage: cargo xtask fuzz [TARGET] [--seconds N]

Builds the targets of fuzz/ with coverage compiled in, and lets libFuzzer search for inputs that break one of their rules:
all targets one after another, or TARGET. Such an input stays in target/fuzz/found; mend the cause, and commit the input to
fuzz/corpus/TARGET, which `test` tries every time.

  --seconds N   how long each target is tried (60 unless told)";

const BENCH: &str = "\
usage: cargo xtask bench [ARGUMENT..]

Builds the release binaries and the benchmark and runs it; every ARGUMENT is handed to it as it stands.
`cargo xtask bench -- --help` shows what it takes.";

const DIST: &str = "\
usage: cargo xtask dist

Builds groundcrew, groundcrewd and groundcrewctl with a static C library, proves from their program headers that they
ask for no interpreter and no shared library, and leaves them in target/dist.";

const CHECK_LAYERS: &str = "\
usage: cargo xtask check-layers

Holds the table in xtask/src/layers/table.rs: which crate may use which, what a crate's dependency tree must not hold,
and the order of the modules inside a crate. Each finding is printed as FILE:LINE: what is wrong.";

/// One task, with its options parsed.
#[derive(Debug, PartialEq, Eq)]
pub enum Task {
    Help(&'static str),
    Up { keep: bool },
    Test(test::Options),
    Guest,
    Image(image::Options),
    Fuzz(fuzz::Options),
    Bench { arguments: Vec<OsString> },
    Dist,
    CheckLayers,
}

/// Reads the command line; an error is what the caller did wrong, in one sentence.
pub fn parse(mut parser: Parser) -> Result<Task, lexopt::Error> {
    let name = match parser.next()? {
        Some(Value(name)) => name.string()?,
        Some(Short('h') | Long("help")) => return Ok(Task::Help(USAGE)),
        Some(other) => return Err(other.unexpected()),
        None => return Err("no task was named".into()),
    };
    match name.as_str() {
        "up" => up(&mut parser),
        "test" => test(&mut parser),
        "guest" => bare(&mut parser, Task::Guest, GUEST),
        "image" => image(&mut parser),
        "fuzz" => fuzz(&mut parser),
        "bench" => bench(&mut parser),
        "dist" => bare(&mut parser, Task::Dist, DIST),
        "check-layers" => bare(&mut parser, Task::CheckLayers, CHECK_LAYERS),
        other => Err(format!("there is no task '{other}'").into()),
    }
}

fn up(parser: &mut Parser) -> Result<Task, lexopt::Error> {
    let mut keep = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("keep") => keep = true,
            Short('h') | Long("help") => return Ok(Task::Help(UP)),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Task::Up { keep })
}

fn test(parser: &mut Parser) -> Result<Task, lexopt::Error> {
    let mut options = test::Options::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("no-vm") => options.guests = false,
            Long("fresh") => options.fresh = true,
            Long("seeds") => options.seeds = parser.value()?.parse()?,
            Short('h') | Long("help") => return Ok(Task::Help(TEST)),
            Value(filter) => options.filters.push(filter.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Task::Test(options))
}

fn image(parser: &mut Parser) -> Result<Task, lexopt::Error> {
    let mut options = image::Options::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("pin") => options.pin = Some(image::Pin::parse(&parser.value()?.string()?)?),
            Long("set") => options.set.push(image::setting(&parser.value()?.string()?)?),
            Long("agent") => options.agent = Some(parser.value()?.into()),
            Long("out") => options.out = Some(parser.value()?.into()),
            Short('h') | Long("help") => return Ok(Task::Help(IMAGE)),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Task::Image(options))
}

fn fuzz(parser: &mut Parser) -> Result<Task, lexopt::Error> {
    let mut options = fuzz::Options::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seconds") => options.seconds = parser.value()?.parse()?,
            Short('h') | Long("help") => return Ok(Task::Help(FUZZ)),
            Value(target) if options.target.is_none() => options.target = Some(target.string()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Task::Fuzz(options))
}

/// Everything belongs to the benchmark, but for a leading `--help` (ours) and a leading `--` (a mere divider).
fn bench(parser: &mut Parser) -> Result<Task, lexopt::Error> {
    let mut arguments: Vec<OsString> = parser.raw_args()?.collect();
    match arguments.first().and_then(|first| first.to_str()) {
        Some("-h" | "--help") => return Ok(Task::Help(BENCH)),
        Some("--") => drop(arguments.remove(0)),
        Some(_) | None => {}
    }
    Ok(Task::Bench { arguments })
}

fn bare(parser: &mut Parser, task: Task, help: &'static str) -> Result<Task, lexopt::Error> {
    match parser.next()? {
        None => Ok(task),
        Some(Short('h') | Long("help")) => Ok(Task::Help(help)),
        Some(other) => Err(other.unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Task, String> {
        parse(Parser::from_args(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn every_task_parses_with_its_options() {
        assert_eq!(parsed(&["up"]), Ok(Task::Up { keep: false }));
        assert_eq!(parsed(&["up", "--keep"]), Ok(Task::Up { keep: true }));
        assert_eq!(parsed(&["dist"]), Ok(Task::Dist));
        assert_eq!(parsed(&["guest"]), Ok(Task::Guest));
        assert_eq!(parsed(&["check-layers"]), Ok(Task::CheckLayers));
        assert_eq!(parsed(&["image"]), Ok(Task::Image(image::Options::default())));
        let image = image::Options {
            out: Some("o".into()),
            agent: Some("a".into()),
            pin: None,
            set: vec![("GROUNDCREW_MAC".into(), "x".into())],
        };
        let arguments = ["image", "--out", "o", "--set", "GROUNDCREW_MAC=x", "--agent=a"];
        assert_eq!(parsed(&arguments), Ok(Task::Image(image)));
        assert_eq!(parsed(&["test"]), Ok(Task::Test(test::Options::default())));
        let options =
            test::Options { guests: false, seeds: 7, fresh: true, filters: vec!["a".into(), "b".into()] };
        assert_eq!(parsed(&["fuzz"]), Ok(Task::Fuzz(fuzz::Options::default())));
        let fuzz = fuzz::Options { target: Some("config".into()), seconds: 5 };
        assert_eq!(parsed(&["fuzz", "config", "--seconds=5"]), Ok(Task::Fuzz(fuzz)));
        assert_eq!(parsed(&["test", "a", "--seeds=7", "--fresh", "--no-vm", "b"]), Ok(Task::Test(options)));
    }

    #[test]
    fn the_benchmark_gets_its_arguments_untouched() {
        let arguments = vec!["--agents".into(), "5".into(), "--help".into()];
        assert_eq!(parsed(&["bench", "--agents", "5", "--help"]), Ok(Task::Bench { arguments }));
        assert_eq!(parsed(&["bench", "--", "--help"]), Ok(Task::Bench { arguments: vec!["--help".into()] }));
        assert_eq!(parsed(&["bench", "--help"]), Ok(Task::Help(BENCH)));
    }

    #[test]
    fn every_task_has_help() {
        for (task, help) in [
            ("up", UP),
            ("test", TEST),
            ("guest", GUEST),
            ("image", IMAGE),
            ("fuzz", FUZZ),
            ("bench", BENCH),
            ("dist", DIST),
            ("check-layers", CHECK_LAYERS),
        ] {
            assert_eq!(parsed(&[task, "--help"]), Ok(Task::Help(help)));
            assert!(help.starts_with(&format!("usage: cargo xtask {task}")), "{help}");
            assert!(USAGE.contains(&format!("\n  {task} ")), "the overview leaves out {task}");
        }
        assert_eq!(parsed(&["--help"]), Ok(Task::Help(USAGE)));
    }

    #[test]
    fn wrong_command_lines_are_refused_by_name() {
        assert_eq!(parsed(&[]), Err("no task was named".into()));
        assert_eq!(parsed(&["fly"]), Err("there is no task 'fly'".into()));
        for wrong in [
            &["up", "--loud"][..],
            &["up", "now"],
            &["dist", "x"],
            &["check-layers", "--all"],
            &["fuzz", "config", "interrupt"],
            &["test", "--seeds", "many"],
            &["test", "--seeds"],
            &["image", "--pin", "https://a"],
            &["image", "--set", "PATH=/tmp"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
