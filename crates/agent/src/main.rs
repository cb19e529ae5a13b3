//! `groundcrew`: the agent on a node.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use groundcrew_agent::console::{self, Console};
use groundcrew_agent::package;
use groundcrew_agent::process::{chroot_exec, launcher};
use groundcrew_agent::settings::{FLAGS_HELP, KERNEL_LINE, Settings, SettingsError};
use groundcrew_agent::{cli, errors, home, init, supervise, vet};

const HELP: &str = "\
groundcrew - the agent on a node

  groundcrew agent [FLAGS]        claim the run and walk it
  groundcrew status [--json]      what the agent of a home says of itself, and whether it still holds
  groundcrew drain begin|wait|cancel|status|run
                                  quiesce the agent, wait for it, take that back (drain --help)
  groundcrew vet --profile FILE   do a profile's stages with no orchestrator (vet --help)
  groundcrew package MODE ROOT_MOUNT COPY_DIR [INTERRUPT]
                                  apply a package's steps, or interrupt the node (package --help)
  groundcrew --version

";
/// Exit status of a call that cannot be understood (EX_USAGE of sysexits.h).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    // What else the kernel hands its first process are words of its command line that it does not know.
    if std::env::args_os().next().is_some_and(|program| init::is_asked_for(&program)) {
        init::run();
    }
    // In a container of the reference agent's operator, the binary stands under the reference's name.
    if arguments.next().is_some_and(|program| package::arguments::is_package_agent(&program)) {
        let arguments: Vec<OsString> = arguments.collect();
        return match arguments.first().and_then(|first| first.to_str()) {
            // It is started again through /proc/self/exe, and may keep the name.
            Some(chroot_exec::SUBCOMMAND) => chroot_exec::run(),
            _ => cli::package::run(&arguments),
        };
    }
    let Some(command) = arguments.next() else {
        console::complain(format_args!("{HELP}{FLAGS_HELP}"));
        return ExitCode::from(USAGE);
    };
    let rest: Vec<OsString> = arguments.collect();
    match command.to_str() {
        Some(launcher::SUBCOMMAND) => launcher::run_tool(&rest),
        Some(chroot_exec::SUBCOMMAND) => chroot_exec::run(),
        Some("agent") => run_agent(rest),
        Some("drain") => cli::drain::run(&rest),
        Some("status") => cli::status::run(&rest),
        Some("vet") => vet::command::run(&rest),
        Some("package") => cli::package::run_subcommand(&rest),
        Some("--version" | "-V") => printed(format!("groundcrew {}", env!("CARGO_PKG_VERSION"))),
        Some("--help" | "-h" | "help") => printed(format!("{HELP}flags of `agent`:\n{FLAGS_HELP}")),
        _ => {
            console::complain(format_args!(
                "groundcrew: found {command:?}, expected agent, drain, status, vet, package, --help or --version"
            ));
            ExitCode::from(USAGE)
        }
    }
}

fn printed(text: String) -> ExitCode {
    match console::print(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::complain(format_args!("groundcrew: printing: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run_agent(flags: Vec<OsString>) -> ExitCode {
    if flags.iter().any(|flag| flag == "--help" || flag == "-h") {
        return printed(format!("groundcrew agent [FLAGS]\n{FLAGS_HELP}"));
    }
    let settings = match Settings::load(flags, |name| std::env::var_os(name), Path::new(KERNEL_LINE)) {
        Ok(settings) => settings,
        Err(error) => {
            console::complain(format_args!("groundcrew agent: {}", errors::chain(&error)));
            return ExitCode::from(USAGE);
        }
    };
    // Without either it would ask for ever, and nobody could mend that but by another start.
    if settings.token.is_none() && !home::has_claimed(&settings.home, &settings.run) {
        let missing = errors::chain(&SettingsError::Missing { flag: "token" });
        let (home, run) = (settings.home.display(), &settings.run);
        console::complain(format_args!(
            "groundcrew agent: {missing}: no agent with the home {home} has claimed run {run} yet"
        ));
        return ExitCode::from(USAGE);
    }
    match start(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            console::complain(format_args!("groundcrew agent: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn start(settings: Settings) -> Result<(), String> {
    let console = Console::start().map_err(|error| format!("starting the console's thread: {error}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("starting the runtime: {error}"))?;
    let ended = runtime.block_on(supervise::run(settings, console));
    // A task that hangs in a name service or a disk does not hold up the end.
    runtime.shutdown_background();
    ended.map_err(|error| errors::chain(&error))
}
