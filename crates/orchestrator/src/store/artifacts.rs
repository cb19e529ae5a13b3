//! Artifacts: raw output of tools, one file each.

use groundcrew_protocol::ids::{Attempt, RunId, Sha256Hex};
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;

use super::{Store, StoreError, Taken};

/// Longest name of an artifact, in bytes.
pub const ARTIFACT_NAME_BYTES_MAX: usize = 128;

/// An artifact that is to be stored.
#[derive(Debug, Clone)]
pub struct NewArtifact {
    /// The run.
    pub run: RunId,
    /// The stage.
    pub stage: Stage,
    /// The attempt.
    pub attempt: Attempt,
    /// Its name, kept as text: no path is made of it.
    pub name: String,
    /// What its content must hash to.
    pub sha256: Sha256Hex,
    /// When it came.
    pub at: WallMs,
    /// Its content.
    pub content: bytes::Bytes,
}

/// A stored artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactRow {
    /// The stage.
    pub stage: Stage,
    /// The attempt.
    pub attempt: Attempt,
    /// Its name.
    pub name: String,
    /// SHA-256 of its content.
    pub sha256: Sha256Hex,
    /// Bytes of its content.
    pub bytes: u64,
    /// When it came.
    pub at: WallMs,
}

impl Store {
    /// Stores an artifact: the file first, durably, then its row.
    ///
    /// # Errors
    /// [`StoreError::TooMuch`] where it or their number is over the protocol's limits, its name is too long or its
    /// content does not hash to what it should; those of files and of the database.
    pub async fn put_artifact(&self, _artifact: NewArtifact) -> Result<Taken, StoreError> {
        unreachable!("being written")
    }

    /// The artifacts of a run.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn artifacts(&self, _run: &RunId) -> Result<Vec<ArtifactRow>, StoreError> {
        unreachable!("being written")
    }

    /// The content of an artifact that [`Store::artifacts`] lists.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] where the file does not hash to what it should, and those of files.
    pub async fn artifact_content(&self, _artifact: &ArtifactRow) -> Result<Vec<u8>, StoreError> {
        unreachable!("being written")
    }
}
