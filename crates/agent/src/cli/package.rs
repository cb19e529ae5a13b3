//! `groundcrew package …`, and the binary under the reference agent's names: from arguments to an exit status.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::ExitCode;

use crate::console;
use crate::interrupt;
use crate::package::arguments::{AskedMode, BadCall, Call, USAGE, unknown_mode_warning};
use crate::package::config::Mode;
use crate::package::resource_id::ResourceId;
use crate::package::session::{Ended, Session};
use crate::package::settings::Settings;
use crate::package::{banner, controller};
use crate::process::tee::{self, Helper, ParentStream, Tee};
use crate::process::{Cancel, termination};

/// Exit status of a call that cannot be understood (EX_USAGE of sysexits.h).
const EXIT_USAGE: u8 = 64;

/// What `groundcrew package --help` prints behind the usage. By one of the reference's names the binary has no help, as
/// the reference has none.
const HELP: &str = "
Applies a package's steps on a node, checks them, takes them back, or interrupts the node, as an operator's
container of skyhook-agent does. Steps run in a chroot of ROOT_MOUNT; their output is passed on, stamped and logged.

  MODE        apply, config, upgrade, uninstall or post-interrupt, each also with -check; or interrupt
  ROOT_MOUNT  where the root of the node is mounted
  COPY_DIR    where the package is copied to, a path below ROOT_MOUNT
  INTERRUPT   with interrupt: the kind and its services, as BASE64 of JSON

From the environment: SKYHOOK_DATA_DIR, the package (default /skyhook-package); SKYHOOK_RESOURCE_ID, whose flags and
history these are; SKYHOOK_ROOT_DIR and SKYHOOK_LOG_DIR, where those and the logs lie below ROOT_MOUNT (default
/etc/skyhook and /var/log/skyhook).

Exit status: 0 done, or done before; 1 a step failed, or something kept it from running; 64 usage";

/// Runs `groundcrew package`. `arguments` are those behind it.
pub fn run_subcommand(arguments: &[OsString]) -> ExitCode {
    match arguments {
        [only] if only == "--help" || only == "-h" => {
            console::print(format_args!("{USAGE}\n{HELP}")).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
        }
        _ => run(arguments),
    }
}

/// Runs a call. `arguments` are those behind the subcommand, or behind the program where that has one of the
/// reference's names.
pub fn run(arguments: &[OsString]) -> ExitCode {
    match start(arguments) {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::Failed) => ExitCode::FAILURE,
        Err(error) => {
            let usage = error.is::<BadCall>();
            // Where nobody reads it, the exit status says it alone.
            let _nobody_reads = writeln!(std::io::stderr(), "groundcrew package: {error:#}");
            if usage {
                let _nobody_reads = writeln!(std::io::stderr(), "{USAGE}");
            }
            ExitCode::from(if usage { EXIT_USAGE } else { 1 })
        }
    }
}

fn start(arguments: &[OsString]) -> anyhow::Result<Ended> {
    let settings = Settings::read(|name| std::env::var_os(name))?;
    let cancel = termination::on_sigterm()?;
    let mut tee = tee_of(&settings, &cancel)?;
    tee.stdout().write_all(banner::OPENING.as_bytes())?;
    let call = Call::parse(arguments)?;
    tee.stdout().write_all(&banner::configuration(&call, &settings))?;
    // Parsed before anything is written: a call for nobody knows what does nothing.
    let id = ResourceId::parse(&settings.resource_id)?;
    tee.stdout().write_all(banner::folders(&settings, &id).as_bytes())?;
    let mode = match &call.mode {
        AskedMode::Known(mode) => *mode,
        // An operator that is newer than this agent asks for what it does not know. That stops nothing.
        AskedMode::Unknown(found) => {
            writeln!(tee.stderr(), "{}", unknown_mode_warning(found))?;
            return Ok(Ended::Done);
        }
    };
    let mut session = Session { call, settings, id, tee, cancel };
    let root = session.open_root()?;
    let ended = match mode {
        Mode::Interrupt => interrupt::perform::run(&mut session, &root)?,
        Mode::Apply
        | Mode::ApplyCheck
        | Mode::Config
        | Mode::ConfigCheck
        | Mode::Upgrade
        | Mode::UpgradeCheck
        | Mode::Uninstall
        | Mode::UninstallCheck
        | Mode::PostInterrupt
        | Mode::PostInterruptCheck => controller::run(&mut session, &root, mode)?,
    };
    session.tee.drain();
    Ok(ended)
}

fn tee_of(settings: &Settings, cancel: &Cancel) -> anyhow::Result<Tee> {
    let own = |name, stream: std::os::fd::BorrowedFd<'_>| {
        stream.try_clone_to_owned().map(|stream| ParentStream::new(name, stream, cancel.clone()))
    };
    let stdout = own("stdout", std::io::stdout().as_fd())?;
    let stderr = own("stderr", std::io::stderr().as_fd())?;
    let settings = tee::Settings {
        helper: Helper::this_program(),
        read_bytes: settings.buffer_limit,
        term_grace: settings.term_grace,
        cancel: cancel.clone(),
    };
    Ok(Tee::new(settings, stdout, stderr))
}
