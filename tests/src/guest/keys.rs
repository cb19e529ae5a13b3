//! An operator's own key, with which they log in to a machine that is held.

use std::path::{Path, PathBuf};
use std::process::Command;

use http::Method;
use serde_json::{Value, json};

use super::live::Live;
use crate::harness::{Server, eventually};

/// How ssh(1) ends that did not get in.
const NO_LOGIN: i32 = 255;

/// A pair of SSH's, whose public half an orchestrator knows.
#[derive(Debug)]
pub struct OperatorKey {
    folder: tempfile::TempDir,
}

impl OperatorKey {
    /// Makes one and registers it.
    pub fn registered(server: &Server) -> OperatorKey {
        let key = OperatorKey { folder: tempfile::tempdir().expect("there is a temporary folder") };
        let mut make = Command::new("ssh-keygen");
        let made = make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key.path()).status();
        assert!(made.expect("ssh-keygen can be started").success());
        let public = std::fs::read_to_string(key.path().with_extension("pub")).expect("it was just made");
        let body = json!({"authorized_key": public.trim()});
        let _kept: Value = server.must(Method::PUT, "/api/v1/hold-key", &body);
        key
    }

    /// Its private half.
    pub fn path(&self) -> PathBuf {
        Path::join(self.folder.path(), "key")
    }

    /// Logs in as soon as that is possible. What the command says, which must succeed.
    pub fn log_in(&self, machine: &Live, command: &str) -> String {
        // Whatever the command ends with, ssh then ends with 0 or 1.
        let script = format!("(\n{command}\n)\n[ $? = 0 ]");
        let output = eventually("a login with the key of the hold", || {
            let output = machine.ssh(&self.path(), &script).output().expect("ssh can be started");
            (output.status.code() != Some(NO_LOGIN)).then_some(output)
        });
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}
