//! For measuring: hands on what `cat FILE` prints, as a step's output, to standard output and, where one is named, to a
//! log. `tee FILE [LOG]`

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use groundcrew_agent::process::tee::{Command, Helper, Log, ParentStream, Settings, Tee};
use groundcrew_agent::process::{ControlData, chroot_exec, termination};

/// The default of `SKYHOOK_AGENT_BUFFER_LIMIT`.
const READ_BYTES: usize = 8192;

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == chroot_exec::SUBCOMMAND) {
        return Ok(chroot_exec::run());
    }
    let (input, log) = (arguments.first().context("expected a file")?, arguments.get(1));
    let log = log.map(|path| File::create(path).map(|file| Log::new(file, path)));
    let cancel = termination::on_sigterm()?;
    let stdout = std::io::stdout().as_fd().try_clone_to_owned()?;
    let stderr = std::io::stderr().as_fd().try_clone_to_owned()?;
    let stdout = ParentStream::new("stdout", stdout, cancel.clone());
    let stderr = ParentStream::new("stderr", stderr, cancel.clone());
    let settings = Settings {
        helper: Helper::this_program(),
        read_bytes: READ_BYTES,
        term_grace: Duration::ZERO,
        cancel,
    };
    let program = ControlData {
        argv: vec!["cat".into(), input.clone()],
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        root: None,
        directory: std::env::current_dir()?,
        no_chmod: true,
    };
    let ended = Tee::new(settings, stdout, stderr).run(Command {
        program,
        write_command: false,
        stdout_log: log.transpose().context("making the log")?,
        stderr_log: None,
        term_grace: None,
        record: &mut |_pid| Ok(()),
    });
    ensure!(ended.exit == 0 && ended.notes.is_empty(), "{ended:?}");
    Ok(ExitCode::SUCCESS)
}
