//! Logs in to the machine of a held run, with the key of its hold where no operator has registered one.
//!
//! The key and the machine's host keys lie in a folder of this process's own while ssh runs, and go with it. A SIGINT is ssh's
//! affair, which has it from the terminal too; a SIGTERM or SIGHUP ends ssh first.

use std::ffi::OsString;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use groundcrew_protocol::hold::RunHoldKey;
use groundcrew_protocol::ids::RunId;
use http::Method;
use tokio::process::Child;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Desk;
use crate::api::{Answer, run_path};
use crate::arguments::{RunKeyArguments, SshArguments};
use crate::error::{Ended, Interrupted, Refusal};
use crate::output::print_exactly;

/// What a command ends with whose signal nobody names: the shell's own way is 128 and more.
const BY_SIGNAL: u8 = 128;

/// What ssh needs to know of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Login {
    user: Option<String>,
    host: String,
    port: u16,
    host_keys: Vec<String>,
    command: Vec<String>,
}

/// The signals that end a command.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Stop {
    fn listen() -> Result<Stop> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Stop {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }
}

/// Prints the key of a hold, or writes it to a file.
pub(super) async fn hold_key(desk: &Desk, asked: RunKeyArguments) -> Result<()> {
    let answer = hand_out(desk, &asked.run).await?;
    let Some(path) = asked.output else {
        return desk.show(&answer, |answer| Ok(answer.parse::<RunHoldKey>()?.private_key));
    };
    let key = answer.parse::<RunHoldKey>()?.private_key;
    write_new(&path, key.as_bytes())?;
    print_exactly(format!("{}\n", path.display()).as_bytes())
}

async fn hand_out(desk: &Desk, run: &RunId) -> Result<Answer> {
    desk.api.send(Method::POST, &run_path(run, "/hold-key"), Bytes::new()).await
}

/// Logs in.
pub(super) async fn log_in(desk: &Desk, asked: SshArguments) -> Result<()> {
    let (key, user, ip, host_keys) = match hand_out(desk, &asked.run).await {
        Ok(answer) => {
            let key: RunHoldKey = answer.parse()?;
            (Some(key.private_key), key.user, key.ip, key.host_keys)
        }
        // The operator's own, which ssh finds where it always does.
        Err(error) if error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.code == "registered") => {
            let view = desk.api.run(&asked.run).await?;
            (None, view.hold_user, view.ip, view.host_keys)
        }
        Err(error) => return Err(error),
    };
    let SshArguments { run, user: given, host, port, command } = asked;
    let login = Login { user: given.or(user), host: host_of(host, &ip)?, port, host_keys, command };
    // Before there is anything to remove.
    let mut stop = Stop::listen()?;
    let folder = private_folder()?;
    let known = known_hosts(&run, &login.host_keys);
    if known.is_empty() {
        bail!(
            "the agent of run {run} has told no host keys of an SSH server, so that nobody could tell that it is this machine: \
             look whether one runs there, or log in yourself (`groundcrewctl run hold-key {run} --output FILE`)"
        );
    }
    write_new(&folder.path().join("known_hosts"), known.as_bytes())?;
    if let Some(key) = &key {
        write_new(&folder.path().join("key"), key.as_bytes())?;
    }
    let arguments = arguments(&run, &login, folder.path(), key.is_some());
    let ended = run_ssh(&arguments, &mut stop).await;
    folder.close().context("removing the key of the hold")?;
    let status = ended?;
    match status.success() {
        true => Ok(()),
        false => Err(Ended(code_of(status)).into()),
    }
}

/// The address to log in to. What an agent says of itself is an address and nothing else.
fn host_of(given: Option<String>, ip: &str) -> Result<String> {
    match (given, ip.parse::<IpAddr>()) {
        (Some(host), _) => Ok(host),
        (None, Ok(ip)) => Ok(ip.to_string()),
        (None, Err(_)) => bail!("the agent names no address of its machine ({ip:?}): name one with --host"),
    }
}

/// A folder that only this user can look into, in memory where the session has a place for that.
fn private_folder() -> Result<tempfile::TempDir> {
    let of_session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_dir());
    let place = of_session.unwrap_or_else(std::env::temp_dir);
    let mut builder = tempfile::Builder::new();
    builder.prefix("groundcrew-ssh-").permissions(std::fs::Permissions::from_mode(0o700));
    builder.tempdir_in(&place).with_context(|| format!("making a folder for the key in {}", place.display()))
}

/// Writes a file that only this user reads, and that was not there.
fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes)).with_context(|| format!("writing {}", path.display()))
}

/// How the machine is called in the list of host keys: its address may be another's tomorrow.
fn alias(run: &RunId) -> String {
    format!("groundcrew-{run}")
}

/// The list of host keys (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT); what an agent says and is no key stays out.
fn known_hosts(run: &RunId, host_keys: &[String]) -> String {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=@.-".contains(&byte))
    };
    let line = |key: &String| {
        let mut words = key.split(' ');
        let (kind, blob) = (words.next()?, words.next()?);
        (is_word(kind) && is_word(blob) && !kind.starts_with('@'))
            .then(|| format!("{} {kind} {blob}\n", alias(run)))
    };
    host_keys.iter().filter_map(line).collect()
}

/// Arguments of ssh(1).
fn arguments(run: &RunId, login: &Login, folder: &Path, has_key: bool) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut option = |text: String| arguments.extend(["-o".into(), text.into()]);
    // Quoted, as the path may hold what would end the value.
    option(format!("UserKnownHostsFile=\"{}\"", folder.join("known_hosts").display()));
    option("GlobalKnownHostsFile=/dev/null".to_owned());
    option(format!("HostKeyAlias={}", alias(run)));
    option("CheckHostIP=no".to_owned());
    option("StrictHostKeyChecking=yes".to_owned());
    // A connection that is shared would be of another key and outlive the hold, and the machine is one that nobody trusts yet.
    for own in [
        "ControlMaster=no",
        "ControlPath=none",
        "ForwardAgent=no",
        "ForwardX11=no",
        "ClearAllForwardings=yes",
    ] {
        option(own.to_owned());
    }
    if has_key {
        option("IdentitiesOnly=yes".to_owned());
        arguments.extend(["-i".into(), folder.join("key").into_os_string()]);
    }
    arguments.extend(["-p".into(), login.port.to_string().into()]);
    if let Some(user) = &login.user {
        arguments.extend(["-l".into(), user.into()]);
    }
    arguments.extend(["--".into(), login.host.clone().into()]);
    arguments.extend(login.command.iter().map(OsString::from));
    arguments
}

/// Runs ssh to its end. It is an operator's session, and lasts as long as they want.
async fn run_ssh(arguments: &[OsString], stop: &mut Stop) -> Result<ExitStatus> {
    let mut command = tokio::process::Command::new("ssh");
    let mut child: Child = command
        .args(arguments)
        .kill_on_drop(true)
        .spawn()
        .context("starting ssh: is OpenSSH's client (Debian: openssh-client) installed here?")?;
    let interrupted = loop {
        tokio::select! {
            status = child.wait() => return status.context("waiting for ssh"),
            _ = stop.interrupt.recv() => {}
            _ = stop.terminate.recv() => break Interrupted { name: "SIGTERM", number: 15 },
            _ = stop.hang_up.recv() => break Interrupted { name: "SIGHUP", number: 1 },
        }
    };
    child.kill().await.context("ending ssh")?;
    Err(interrupted.into())
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.unwrap_or(BY_SIGNAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> RunId {
        text.parse().unwrap()
    }

    #[test]
    fn ssh_is_told_the_machine_by_its_run_and_never_by_what_an_agent_made_up() {
        let login = Login {
            user: Some("ann".to_owned()),
            host: host_of(None, "192.0.2.7").unwrap(),
            port: 2222,
            host_keys: Vec::new(),
            command: vec!["uptime".to_owned()],
        };
        let words = arguments(&run("r-1"), &login, Path::new("/run/x"), true);
        let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();
        let text = words.join(" ");
        for part in [
            "UserKnownHostsFile=\"/run/x/known_hosts\"",
            "StrictHostKeyChecking=yes",
            "HostKeyAlias=groundcrew-r-1",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.ends_with("-i /run/x/key -p 2222 -l ann -- 192.0.2.7 uptime"), "{text}");
        let own = arguments(&run("r-1"), &login, Path::new("/run/x"), false);
        assert!(own.iter().all(|word| word != "-i" && word != "IdentitiesOnly=yes"));
        for bad in ["", "-oProxyCommand=id", "example.org"] {
            assert!(host_of(None, bad).unwrap_err().to_string().contains("--host"), "{bad}");
        }
        assert_eq!(host_of(Some("gw".to_owned()), "").unwrap(), "gw");
    }

    #[test]
    fn host_keys_that_are_none_stay_out_of_the_list() {
        let keys = [
            "ssh-ed25519 AAAAC3Nz root@node",
            "@cert-authority AAAA",
            "ssh-rsa",
            "ssh-rsa AA;AA",
            "ecdsa-sha2-nistp256 BBBB",
        ];
        let keys = keys.map(str::to_owned);
        assert_eq!(
            known_hosts(&run("r-1"), &keys),
            "groundcrew-r-1 ssh-ed25519 AAAAC3Nz\ngroundcrew-r-1 ecdsa-sha2-nistp256 BBBB\n"
        );
    }

    #[test]
    fn a_key_is_written_where_nobody_else_reads_it_and_over_nothing() {
        let folder = private_folder().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.path()), 0o700);
        let path = folder.path().join("key");
        write_new(&path, b"secret").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(write_new(&path, b"other").unwrap_err().to_string().contains("key"));
        assert_eq!(std::fs::read(&path).unwrap(), b"secret");
    }
}
