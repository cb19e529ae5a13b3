//! Runs a task in a second process: this test binary again, with only its ignored test `victim`.

use std::path::Path;
use std::process::Command;

/// What the victim is to do.
pub const TASK: &str = "DURABLE_TEST_TASK";
/// The folder in which it does it.
pub const FOLDER: &str = "DURABLE_TEST_FOLDER";

/// The command that runs `task` in `folder`, as the argument list `before` and this binary.
pub fn victim(before: &[&str], task: &str, folder: &Path) -> Command {
    let binary = std::env::current_exe().unwrap();
    let mut command = match before {
        [] => Command::new(&binary),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(&binary);
            command
        }
    };
    command.args(["victim", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(TASK, task).env(FOLDER, folder);
    command
}

/// The task and folder given to this process; `None` where it is no victim.
pub fn given_task() -> Option<(String, std::path::PathBuf)> {
    Some((std::env::var(TASK).ok()?, std::env::var_os(FOLDER)?.into()))
}
