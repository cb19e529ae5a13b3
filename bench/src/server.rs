//! The orchestrator under measurement: the release binary, on loopback, on a data folder of its own.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use groundcrew_protocol::ids::Sha256Hex;

use crate::load::Connector;
use crate::load::request::Caller;
use crate::process::{Memory, Service, line_with, memory_of};

/// The limit per token stays in force and out of the way: the benchmark makes all runs with one operator's token.
const REQUESTS_PER_SECOND_MAX: &str = "1000000";

/// A running orchestrator.
pub struct Server {
    /// Opens connections to it.
    pub connector: Connector,
    /// SHA-256 of its certificate.
    pub fingerprint: Sha256Hex,
    /// Its operator.
    pub operator: Caller,
    service: Service,
    log: PathBuf,
}

/// Where a server's files are.
#[derive(Debug, Clone)]
pub struct Place {
    /// The binary.
    pub binary: PathBuf,
    /// A folder of the benchmark's own; the data folder and the server's log lie in it.
    pub folder: PathBuf,
}

impl Place {
    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }
}

impl Server {
    /// Starts it and waits until it listens.
    pub fn start(place: &Place) -> Result<Server> {
        Server::start_with(place, &[])
    }

    /// Starts it with more arguments and waits until it listens.
    pub fn start_with(place: &Place, more: &[OsString]) -> Result<Server> {
        let token_file = place.folder.join("operator-token");
        let log = place.folder.join("groundcrewd.log");
        let errors =
            File::options().create(true).append(true).open(&log).context("making the server's log")?;
        let mut command = Command::new(&place.binary);
        command.arg("serve").arg("--data").arg(place.data()).arg("--print-token-to").arg(&token_file);
        // What is measured is the same on a disk that is nearly full.
        command.args(["--keep-free-percent", "0"]);
        command.args(["--listen", "127.0.0.1:0", "--requests-per-second-max", REQUESTS_PER_SECOND_MAX]);
        command.args(more).stderr(errors);
        let (service, mut lines) = Service::start(command, "groundcrewd")?;
        let said = || format!("starting groundcrewd; what it said is:\n{}", tail(&log));
        let fingerprint: Sha256Hex = line_with(&mut lines, "certificate SHA-256 ")
            .with_context(said)?
            .parse()
            .map_err(|why| anyhow!("the fingerprint that groundcrewd printed: {why}"))?;
        let address = line_with(&mut lines, "listening on https://").with_context(said)?;
        let token = std::fs::read_to_string(&token_file).context("reading the operator's token")?;
        let operator = Caller { host: address.clone(), token: token.trim().to_owned() };
        let address = address.parse().with_context(|| format!("reading the address {address:?}"))?;
        let connector = Connector::new(address, fingerprint.clone());
        Ok(Server { connector, fingerprint, operator, service, log })
    }

    /// Its memory now.
    pub fn memory(&self) -> Result<Memory> {
        memory_of(self.service.pid())
    }

    /// Its address, for an agent.
    pub fn url(&self) -> String {
        format!("https://{}", self.connector.address)
    }

    /// Somebody who calls it with this token.
    pub fn caller(&self, token: &str) -> Caller {
        Caller { host: self.operator.host.clone(), token: token.to_owned() }
    }

    /// Ends it in order.
    pub fn stop(self) -> Result<()> {
        let Server { service, log, .. } = self;
        let status = service.stop()?;
        ensure!(status.success(), "groundcrewd ended with {status}; what it said last is:\n{}", tail(&log));
        Ok(())
    }
}

/// The last lines of a file, for an error.
fn tail(path: &Path) -> String {
    const LINES: usize = 12;
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| format!("nothing that can be read: {error}"));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
