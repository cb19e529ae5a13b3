//! From the orchestrator to the disk: over the pinned connection, with the run's token, in as many tries as it takes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use groundcrew_client::Error;
use groundcrew_protocol::limits::{CALL_TIMEOUT_MS, PACKAGE_BYTES_MAX};
use groundcrew_protocol::wire::LogLevel;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, sleep_until};

use super::part::Part;
use super::places::{Place, expect_room};
use super::{Around, FetchError, Wanted, words};
use crate::backoff::Backoff;
use crate::client::Orchestrator;

/// A connection that brings nothing for this long is given up, and another one goes on.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const CALL: Duration = Duration::from_millis(CALL_TIMEOUT_MS);
/// The log hears of every tenth.
const TENTHS: u64 = 10;

/// Fetches an archive until all of it is there and has the sum that is wanted.
pub(super) fn fetch(
    from: &Orchestrator,
    wanted: &Wanted,
    place: &Place,
    free_bytes_least: u64,
    around: &Around<'_>,
) -> Result<(), FetchError> {
    let system = FetchError::disk("starting to fetch", place.folder());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
    let mut fetching = Fetching {
        from,
        wanted,
        place,
        free_bytes_least,
        around,
        part: Part::open(place.fetched(), around)?,
        whole: None,
        told: 0,
        last: None,
    };
    let done = runtime.block_on(fetching.run_until_stopped());
    let done = done.and_then(|()| place.sync_fetched());
    match &done {
        // What has come is gone on with.
        Ok(()) | Err(FetchError::Stopped | FetchError::Late { .. } | FetchError::Refused(_)) => {}
        // What is there is of no use, or keeps the room from the agent's results and lines.
        Err(
            FetchError::OtherContent { .. }
            | FetchError::TooLarge { .. }
            | FetchError::NoRoom { .. }
            | FetchError::Archive(_)
            | FetchError::Disk { .. },
        ) => place.remove_fetched()?,
    }
    done
}

struct Fetching<'a> {
    from: &'a Orchestrator,
    wanted: &'a Wanted,
    place: &'a Place,
    free_bytes_least: u64,
    around: &'a Around<'a>,
    part: Part,
    /// Bytes of the whole archive, once the orchestrator has said so.
    whole: Option<u64>,
    /// Tenths of it that the log was told of.
    told: u64,
    /// What went wrong last.
    last: Option<String>,
}

/// Why one try did not bring the rest.
enum Broken {
    /// The call; another one may do better.
    Call(Error),
    /// All else.
    Final(FetchError),
}

impl From<FetchError> for Broken {
    fn from(error: FetchError) -> Broken {
        Broken::Final(error)
    }
}

impl Fetching<'_> {
    async fn run_until_stopped(&mut self) -> Result<(), FetchError> {
        let cancelled = self.asked_to_end().map_err(FetchError::disk("waiting for", self.place.folder()))?;
        let deadline = self.around.deadline;
        tokio::select! {
            biased;
            _asked = cancelled.readable() => return Err(FetchError::Stopped),
            () = sleep_until(deadline.into()) => {}
            done = self.run() => return done,
        }
        Err(FetchError::Late { came: self.came(), last: self.last.take() })
    }

    /// Readable once it is to end.
    fn asked_to_end(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let handle = self.around.cancel.as_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` is one open descriptor, the same for as long as it lives, and nothing takes it out.
        let registered = unsafe { AsyncFd::register(handle) };
        registered.map_err(io::Error::from)
    }

    async fn run(&mut self) -> Result<(), FetchError> {
        // All of it may have come before an agent was killed.
        if self.part.sha256() == self.wanted.sha256 {
            return Ok(());
        }
        let mut is_resumed = self.part.bytes() > 0;
        self.say(LogLevel::Info, format!("fetches {}, SHA-256 {}", words(self.wanted), self.wanted.sha256));
        loop {
            self.run_tries().await?;
            let found = self.part.sha256();
            if found == self.wanted.sha256 {
                return Ok(());
            }
            self.part.restart()?;
            (self.whole, self.told) = (None, 0);
            if !std::mem::take(&mut is_resumed) {
                return Err(FetchError::OtherContent { found, expected: self.wanted.sha256.clone() });
            }
            // What an earlier try has left may be what is wrong.
            let again = format!("what came has SHA-256 {found}, and is fetched again from its beginning");
            self.say(LogLevel::Warn, again);
        }
    }

    /// Asks until everything has come.
    async fn run_tries(&mut self) -> Result<(), FetchError> {
        let mut backoff = Backoff::default();
        loop {
            let before = self.part.bytes();
            let error = match self.run_try().await {
                Ok(()) => return Ok(()),
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Call(error)) => error,
            };
            if is_final(&error) {
                return Err(FetchError::Refused(error));
            }
            if error.status() == Some(416) {
                // There is more here than the orchestrator has.
                self.part.restart()?;
            }
            if self.part.bytes() > before {
                backoff.reset();
            }
            let pause = error.retry_after_s().map(|seconds| backoff.asked_for(seconds));
            let pause = pause.unwrap_or_else(|| backoff.next_pause());
            let why = error.chain();
            self.say(
                LogLevel::Warn,
                format!("{} has come; goes on in {} s: {why}", self.came(), pause.as_secs()),
            );
            self.last = Some(why);
            sleep(pause).await;
        }
    }

    /// Asks once for what is missing.
    async fn run_try(&mut self) -> Result<(), Broken> {
        let Wanted { name, version, .. } = self.wanted;
        let asked = self.part.bytes();
        if asked > 0 && self.whole == Some(asked) {
            return Ok(());
        }
        let download = self.from.package(name, version, asked, CALL).await;
        let mut download = download.map_err(Broken::Call)?;
        if download.whole() > PACKAGE_BYTES_MAX {
            let (found, most) = (download.whole(), PACKAGE_BYTES_MAX);
            return Err(Broken::Final(FetchError::TooLarge { found, most }));
        }
        if download.from() != asked {
            self.part.restart()?;
        } else if asked > 0 {
            self.say(LogLevel::Info, format!("goes on behind the first {asked} bytes"));
        }
        self.whole = Some(download.whole());
        let missing = download.whole().saturating_sub(self.part.bytes());
        expect_room(self.place.folder(), missing, self.free_bytes_least)?;
        while let Some(bytes) = download.next(SILENCE_MAX).await.map_err(Broken::Call)? {
            self.part.add(&bytes)?;
            self.tell();
        }
        Ok(())
    }

    fn tell(&mut self) {
        let whole = self.whole.unwrap_or_default().max(1);
        let bytes = self.part.bytes();
        (self.around.show)(bytes as f64 / whole as f64, format!("fetching {}", words(self.wanted)));
        let tenths = tenths(bytes, whole);
        if tenths > self.told {
            self.told = tenths;
            self.say(LogLevel::Info, format!("{} has come", self.came()));
        }
    }

    fn came(&self) -> String {
        let bytes = self.part.bytes();
        match self.whole {
            Some(whole) => format!("{bytes} of {whole} bytes"),
            None => format!("{bytes} bytes"),
        }
    }

    fn say(&self, level: LogLevel, text: String) {
        (self.around.say)(level, text);
    }
}

/// Tenths of a whole that have come.
fn tenths(bytes: u64, whole: u64) -> u64 {
    bytes.min(whole).saturating_mul(TENTHS) / whole.max(1)
}

/// What no further try within a stage mends: a server that is another one, and a refusal that is no matter of time.
fn is_final(error: &Error) -> bool {
    match error.status() {
        Some(408 | 416 | 429) => false,
        Some(status) => (400..500).contains(&status),
        None => matches!(error, Error::WrongPin { .. } | Error::Unsendable { .. }),
    }
}
