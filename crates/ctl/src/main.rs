//! `groundcrewctl`, the operators' tool: thin over the orchestrator's API, and `up`, which brings everything up on one
//! machine.

mod api;
mod arguments;
mod commands;
mod context;
mod error;
mod kin;
mod output;
mod profile_file;
#[cfg(test)]
mod sample;
mod tables;
mod up;
mod watch;
mod why;
mod words;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = match arguments::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(help) => {
            if let Some(line) = error::clap_json(&help, std::env::args_os()) {
                output::say_aside(&line);
                return error::clap_code(&help);
            }
            // Where even the help cannot be printed, the exit code still says it.
            let _printed = help.print();
            return error::clap_code(&help);
        }
    };
    let json = arguments.json;
    // One thread, and it is the one that began: children are tied to the life of the thread that starts them.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::say_aside(&format!("groundcrewctl: starting the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(commands::run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if error::is_said_aloud(&failure) {
                output::say_aside(&error::said(&failure, json));
            }
            error::exit_code(&failure)
        }
    }
}
