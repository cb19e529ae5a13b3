//! Sends artifacts, one at a time, over a connection of its own: it may take long, and delays nothing.

use std::sync::Arc;

use bytes::Bytes;
use groundcrew_client::Error;
use groundcrew_protocol::ids::ClaimNumber;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::{Known, Store};
use crate::backoff::Backoff;
use crate::client::Orchestrator;
use crate::io_thread::IoThread;

/// What the task works with.
pub struct Uploader {
    /// Where the artifacts lie.
    pub store: Store,
    /// The thread for the disk.
    pub io: IoThread,
    /// The connection.
    pub orchestrator: Orchestrator,
    /// The claim: without one nothing is sent.
    pub claim: watch::Receiver<ClaimNumber>,
    /// Told when something was kept.
    pub kept: Arc<Notify>,
    /// Takes what is to be said.
    pub say: Box<dyn Fn(String) + Send + Sync>,
}

impl Uploader {
    /// Sends what is there and what comes, until it is dropped.
    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            if self.claim.wait_for(|claim| claim.0 > 0).await.is_err() {
                return;
            }
            let (store, mut notes) = (self.store.clone(), Vec::new());
            let look = move || store.oldest(&mut notes).map(|found| (found, notes));
            let (found, notes) = match self.io.run("reading an artifact", look).await {
                Ok(found) => found,
                Err(error) => {
                    (self.say)(crate::errors::chain(&error));
                    sleep(backoff.next_pause()).await;
                    continue;
                }
            };
            notes.into_iter().for_each(&self.say);
            match found {
                None => self.kept.notified().await,
                Some((number, known, content)) => self.send(number, known, content, &mut backoff).await,
            }
        }
    }

    async fn send(&self, number: u64, known: Known, content: Vec<u8>, backoff: &mut Backoff) {
        let (stage, name) = (known.stage, known.name);
        let sent = self.orchestrator.artifact(&stage, known.attempt, &name, Bytes::from(content)).await;
        match sent {
            Ok(_) => backoff.reset(),
            Err(error) if is_final(&error) => {
                (self.say)(format!("{stage}: artifact {name} was refused for good: {}", error.chain()));
            }
            Err(error) => return sleep(backoff.after(&error)).await,
        }
        let store = self.store.clone();
        if let Err(error) = self.io.run("removing an artifact", move || store.remove(number)).await {
            // It is sent again, which changes nothing there.
            (self.say)(crate::errors::chain(&error));
            sleep(backoff.next_pause()).await;
        }
    }
}

/// Refused for good, as a result would be.
fn is_final(error: &Error) -> bool {
    matches!(error.status(), Some(400 | 410 | 413 | 422)) || matches!(error, Error::Unsendable { .. })
}
