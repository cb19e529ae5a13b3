//! Running other programs: cargo itself, and what cargo built. Every command is printed before it runs, and one that
//! fails is named in the error.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// The root of the workspace: the parent of this package's own folder.
pub fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let own = own.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    own.parent().expect("the package lies one folder beneath the workspace").to_path_buf()
}

/// A cargo command in the root of the workspace, of the same toolchain that runs this task.
///
/// `cargo run` tells its program which package that belongs to. Handed on, those variables would look like a change to
/// build scripts that watch them (ring's does), and half of the workspace would be built anew each time.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        if tells_of_a_package(&name) {
            command.env_remove(name);
        }
    }
    command
}

fn tells_of_a_package(variable: &OsStr) -> bool {
    let Some(name) = variable.to_str() else { return false };
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

/// Runs a command to its end with our own standard streams.
///
/// Ctrl-C reaches the whole foreground process group, hence the child and us at once; there is nothing to forward.
pub fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.status().with_context(|| format!("starting {}", shown(command)))?;
    ensure!(status.success(), "{} ended with {status}", shown(command));
    Ok(())
}

/// Runs a command that changes nothing and returns what it printed; its standard error stays ours.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting {}", shown(command)))?;
    ensure!(output.status.success(), "{} ended with {}", shown(command), output.status);
    String::from_utf8(output.stdout).with_context(|| format!("reading what {} printed", shown(command)))
}

/// Becomes the command: same process, same terminal, its exit status. Returns only if it could not be started.
///
/// cargo becomes this program in the same way, so a signal meant for the task reaches the program itself and nothing
/// between the two could die before it or hide its status.
pub fn become_command(command: &mut Command) -> Result<()> {
    announce(command);
    let error = command.exec();
    Err(error).with_context(|| format!("starting {}", shown(command)))
}

/// The folder that cargo builds into.
pub fn target_folder() -> Result<PathBuf> {
    let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version=1"]))?;
    let Some(folder) = text_field(&metadata, "target_directory") else {
        bail!("`cargo metadata` names no target_directory that can be read without unescaping");
    };
    Ok(PathBuf::from(folder))
}

/// The triple that this toolchain builds for by itself.
pub fn host_triple() -> Result<String> {
    let text = output(Command::new("rustc").arg("-vV").current_dir(root()))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_string())
}

/// A string field of flat JSON. One field does not earn a parser; a value with an escape in it is not understood.
fn text_field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let start = json.find(&format!("\"{name}\":\""))? + name.len() + 4;
    let value = &json[start..start + json[start..].find('"')?];
    (!value.contains('\\')).then_some(value)
}

fn announce(command: &Command) {
    eprintln!("+ {}", shown(command));
}

fn shown(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_field_is_found_and_an_escaped_one_is_not_guessed() {
        let json = r#"{"packages":[],"target_directory":"/a/b c","build_directory":"/x","odd":"a\"b"}"#;
        assert_eq!(text_field(json, "target_directory"), Some("/a/b c"));
        assert_eq!(text_field(json, "absent"), None);
        assert_eq!(text_field(json, "odd"), None);
    }

    #[test]
    fn a_failed_command_is_named_with_its_arguments_and_status() {
        let error = run(Command::new("/bin/false").arg("--now")).unwrap_err().to_string();
        assert!(error.contains("false --now") && error.contains("exit status: 1"), "{error}");
        let error = run(&mut Command::new("/no/such-program")).unwrap_err().to_string();
        assert!(error.contains("starting such-program"), "{error}");
    }

    #[test]
    fn what_tells_of_our_package_is_not_handed_on() {
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH"] {
            assert!(tells_of_a_package(OsStr::new(name)), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_TARGET_DIR", "PATH", "CARGO"] {
            assert!(!tells_of_a_package(OsStr::new(name)), "{name}");
        }
    }
}
