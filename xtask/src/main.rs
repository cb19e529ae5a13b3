//! The project's own tasks: `cargo xtask up | test | guest | image | fuzz | bench | dist | check-layers`.
//!
//! Each task is one file; `cargo.rs` is the only place that runs other programs, `packages.rs` the only one that
//! installs any. Nothing here is part of what is shipped.

mod apt;
mod arguments;
mod bench;
mod cargo;
mod debian;
mod dist;
mod elf;
mod fuzz;
mod guest;
mod image;
mod layers;
mod packages;
mod release;
mod test;
mod up;

use std::process::ExitCode;

use arguments::Task;

/// What a wrong command line ends with, as in every binary of this project (sysexits' EX_USAGE).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let task = match arguments::parse(lexopt::Parser::from_env()) {
        Ok(task) => task,
        Err(error) => {
            eprintln!("xtask: {error}\n\n{}", arguments::USAGE);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match run(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Help(text) => {
            println!("{text}");
            Ok(())
        }
        Task::Up { keep } => up::run(keep),
        Task::Test(options) => test::run(&options),
        Task::Guest => {
            println!("{}", guest::prepare()?.display());
            Ok(())
        }
        Task::Image(options) => image::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Bench { arguments } => bench::run(&arguments),
        Task::Dist => dist::run(),
        Task::CheckLayers => layers::run(),
    }
}
