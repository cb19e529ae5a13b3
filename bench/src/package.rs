//! A package for the agent under measurement, and calls of `groundcrew package apply` with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::peak;

/// The root mount: the machine's own root, which chroot(2) enters as it enters any other. Everything else is named by
/// its path from there, and lies in the benchmark's folder.
pub const ROOT: &str = "/";

/// A package in a folder of its own.
pub struct Package {
    agent: PathBuf,
    folder: PathBuf,
}

impl Package {
    /// Writes a package whose apply steps are these shell scripts, in this order.
    ///
    /// # Errors
    /// Where its files cannot be written.
    pub fn write(agent: &Path, folder: &Path, scripts: &[String]) -> Result<Package> {
        let package = Package { agent: agent.to_owned(), folder: folder.to_owned() };
        let steps = folder.join("data/skyhook_dir");
        fs::create_dir_all(&steps).with_context(|| format!("making {}", steps.display()))?;
        let names: Vec<String> = (0..scripts.len()).map(|index| format!("step{index}.sh")).collect();
        let script = |name: &str, text: &str| -> Result<()> {
            let file = steps.join(name);
            fs::write(&file, format!("#!/bin/sh\n{text}\n"))
                .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o755)))
                .with_context(|| format!("writing {}", file.display()))
        };
        for (name, text) in names.iter().zip(scripts) {
            script(name, text)?;
        }
        script("check.sh", "exit 0")?;
        let listed: Vec<Value> = names.iter().map(|name| step(name)).collect();
        let config = json!({
            "schema_version": "v1", "package_name": "bench", "package_version": "1.0.0", "expected_config_files": [],
            "modes": {"apply": listed, "apply-check": [step("check.sh")]},
        });
        fs::write(folder.join("data/config.json"), config.to_string())
            .context("writing the package's config")?;
        Ok(package)
    }

    /// Where its steps lie.
    pub fn steps(&self) -> PathBuf {
        self.folder.join("data/skyhook_dir")
    }

    /// A call that applies it in a place of its own, where no flag says that anything was done.
    pub fn apply(&self, place: &Path, with_logs: bool) -> Command {
        self.dressed(Command::new(&self.agent), place, with_logs)
    }

    /// The same, where the most memory that the agent had is written into a file.
    ///
    /// # Errors
    /// See [`peak::watched`].
    pub fn apply_watched(&self, place: &Path, with_logs: bool, peak: &Path) -> Result<Command> {
        Ok(self.dressed(peak::watched(self.agent.as_os_str(), peak)?, place, with_logs))
    }

    fn dressed(&self, mut command: Command, place: &Path, with_logs: bool) -> Command {
        command.args(["package", "apply", ROOT]).arg(place.join("copy")).env_clear().envs([
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("SKYHOOK_RESOURCE_ID", "groundcrew-bench-0_bench_1.0.0"),
            ("COPY_RESOLV", "false"),
            ("SKYHOOK_AGENT_WRITE_LOGS", if with_logs { "true" } else { "false" }),
        ]);
        command
            .env("SKYHOOK_DATA_DIR", self.folder.join("data"))
            .env("SKYHOOK_ROOT_DIR", place.join("state"))
            .env("SKYHOOK_LOG_DIR", place.join("log"))
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }
}

fn step(path: &str) -> Value {
    json!({
        "name": path, "path": path, "arguments": [], "returncodes": [0],
        "on_host": true, "idempotence": true, "upgrade_step": false,
    })
}
