//! A real SSH server for the user of the test, on a loopback port that the kernel chose: a `sshd -i` for each connection.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Where Debian has it. It wants to be called by its whole path.
const SSHD: &str = "/usr/sbin/sshd";
/// Where a server of root's shuts itself in before it knows who comes; a boot with an SSH server makes it.
const SHUT_IN: &str = "/run/sshd";

/// The server. It ends with this value, and each connection with its client.
#[derive(Debug)]
pub struct Sshd {
    folder: PathBuf,
    port: u16,
    ends: Arc<AtomicBool>,
    accepts: Option<JoinHandle<()>>,
}

impl Sshd {
    /// Starts one with host keys of its own in `folder`, that lets in whom the keys in `authorized_keys` say.
    pub fn start(folder: &Path, authorized_keys: &Path) -> Sshd {
        std::fs::create_dir_all(folder).expect("the folder is ours");
        let key = folder.join("ssh_host_ed25519_key");
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
        assert!(made.expect("TEST needs ssh-keygen").success());
        if rustix::process::geteuid().is_root() {
            std::fs::create_dir_all(SHUT_IN).expect("root makes what a boot makes");
        }
        let config = folder.join("sshd_config");
        // The test's folder lies in one that everybody may write to, which strict modes refuse.
        let text = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\nPrintMotd no\n",
            key.display(),
            authorized_keys.display()
        );
        std::fs::write(&config, text).expect("the folder is ours");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let ends = Arc::new(AtomicBool::new(false));
        let accepts = {
            let ends = ends.clone();
            std::thread::spawn(move || accept(&listener, &config, &ends))
        };
        Sshd { folder: folder.to_owned(), port, ends, accepts: Some(accepts) }
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Tries to log in with a private key, as the user of the test, and runs a command there.
    pub fn log_in(&self, private_key: &Path, command: &str) -> Output {
        let host_key = std::fs::read_to_string(self.folder.join("ssh_host_ed25519_key.pub"));
        let known = self.folder.join("known_hosts");
        let line = format!("tested {}", host_key.expect("it was made"));
        std::fs::write(&known, line).expect("the folder is ours");
        Command::new("ssh")
            .args([
                "-F",
                "none",
                "-o",
                "HostKeyAlias=tested",
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "BatchMode=yes",
            ])
            .args(["-o", "StrictHostKeyChecking=yes", "-o", "CheckHostIP=no", "-o"])
            .arg(format!("UserKnownHostsFile={}", known.display()))
            .args(["-p", &self.port.to_string(), "-i"])
            .arg(private_key)
            .args(["127.0.0.1", command])
            .stdin(Stdio::null())
            .output()
            .expect("TEST needs ssh")
    }
}

fn accept(listener: &TcpListener, config: &Path, ends: &AtomicBool) {
    for stream in listener.incoming() {
        if ends.load(Ordering::Relaxed) {
            return;
        }
        let stream = OwnedFd::from(stream.expect("a loopback connection is taken"));
        let output = stream.try_clone().expect("there are descriptors");
        let mut command = Command::new(SSHD);
        // It reads times in the zone of the machine, which is what an agent writes them in.
        command.args(["-i", "-e", "-f"]).arg(config).env_remove("TZ").stdin(stream).stdout(output);
        let mut child = command.stderr(Stdio::null()).spawn().expect("TEST needs sshd");
        std::thread::spawn(move || child.wait());
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        // It looks at that when somebody comes; one whom nobody can reach any more is left to the end of the test.
        if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
            && let Some(accepts) = self.accepts.take()
        {
            let _panicked_before = accepts.join();
        }
    }
}
