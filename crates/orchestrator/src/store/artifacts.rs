//! Artifacts: raw output of tools, one file each.

use groundcrew_protocol::ids::{Attempt, RunId, Sha256Hex};
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::time::WallMs;

use std::path::{Path, PathBuf};

use groundcrew_durable::whole;
use groundcrew_protocol::limits;

use super::{Store, StoreError, Taken, text};

/// Name of the folder of artifacts in the data folder.
pub(super) const ARTIFACTS_FOLDER: &str = "artifacts";

/// Longest name of an artifact, in bytes.
pub const ARTIFACT_NAME_BYTES_MAX: usize = 128;

/// Greatest number of artifacts of a run, and their bytes: dozens of attempts with what their tools write, many times over.
const OF_RUN_MAX: i64 = 1_024;
const OF_RUN_BYTES_MAX: i64 = 4 << 30;

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
    pub async fn put_artifact(&self, artifact: NewArtifact) -> Result<Taken, StoreError> {
        check(&artifact)?;
        // Held until the row is there, so that no sweep takes the file for one that nobody names.
        let _held = self.inner.artifacts.lock().await;
        let stage = artifact.stage.to_string();
        let stored: Vec<(String, String)> =
            sqlx::query_as("SELECT name, sha256 FROM artifacts WHERE run = ? AND stage = ? AND attempt = ?")
                .bind(artifact.run.as_str())
                .bind(&stage)
                .bind(i64::from(artifact.attempt.0))
                .fetch_all(&self.inner.readers)
                .await
                .map_err(StoreError::database("reading the artifacts of an attempt"))?;
        if let Some((_name, sha256)) = stored.iter().find(|(name, _)| *name == artifact.name) {
            let same = *sha256 == artifact.sha256.as_str();
            return Ok(if same { Taken::Repeated } else { Taken::OtherContent });
        }
        if stored.len() >= limits::ARTIFACTS_MAX {
            let most = limits::ARTIFACTS_MAX;
            return Err(StoreError::TooMuch(format!(
                "attempt {} of {stage} has {most} artifacts",
                artifact.attempt
            )));
        }
        self.expect_room_of_run(&artifact).await?;
        let path = self.artifact_path(&artifact.sha256);
        let content = artifact.content.clone();
        blocking(move || write(&path, &content)).await?;
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO artifacts (run, stage, attempt, name, at, sha256, bytes) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    )
                    .bind(artifact.run.as_str())
                    .bind(&stage)
                    .bind(i64::from(artifact.attempt.0))
                    .bind(&artifact.name)
                    .bind(artifact.at.0)
                    .bind(artifact.sha256.as_str())
                    .bind(artifact.content.len() as i64)
                    .execute(connection)
                    .await
                    .map(|_done| Taken::First)
                    .map_err(StoreError::database("storing the row of an artifact"))
                })
            })
            .await
    }

    async fn expect_room_of_run(&self, artifact: &NewArtifact) -> Result<(), StoreError> {
        let (count, bytes): (i64, i64) =
            sqlx::query_as("SELECT count(*), coalesce(sum(bytes), 0) FROM artifacts WHERE run = ?")
                .bind(artifact.run.as_str())
                .fetch_one(&self.inner.readers)
                .await
                .map_err(StoreError::database("counting the artifacts of a run"))?;
        if count >= OF_RUN_MAX || bytes.saturating_add(artifact.content.len() as i64) > OF_RUN_BYTES_MAX {
            return Err(StoreError::TooMuch(format!(
                "run {} has {count} artifacts of {bytes} bytes together; {OF_RUN_MAX} and {OF_RUN_BYTES_MAX} are allowed",
                artifact.run
            )));
        }
        Ok(())
    }

    /// The artifacts of a run.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn artifacts(&self, run: &RunId) -> Result<Vec<ArtifactRow>, StoreError> {
        let rows: Vec<(String, i64, String, String, i64, i64)> = sqlx::query_as(
            "SELECT stage, attempt, name, sha256, bytes, at FROM artifacts WHERE run = ? ORDER BY id",
        )
        .bind(run.as_str())
        .fetch_all(&self.inner.readers)
        .await
        .map_err(StoreError::database("reading the artifacts of a run"))?;
        rows.into_iter()
            .map(|(stage, attempt, name, sha256, bytes, at)| {
                Ok(ArtifactRow {
                    stage: Stage::from(stage),
                    attempt: Attempt(text::small(attempt)),
                    name,
                    sha256: text::parse("the hash of an artifact", &sha256)?,
                    bytes: text::unsigned(bytes),
                    at: WallMs(at),
                })
            })
            .collect()
    }

    /// The content of an artifact that [`Store::artifacts`] lists.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] where the file does not hash to what it should, and those of files.
    pub async fn artifact_content(&self, artifact: &ArtifactRow) -> Result<Vec<u8>, StoreError> {
        let path = self.artifact_path(&artifact.sha256);
        let sha256 = artifact.sha256.clone();
        blocking(move || {
            let content = std::fs::read(&path).map_err(StoreError::file("reading", &path))?;
            if Sha256Hex::of(&content) != sha256 {
                let why = "it does not hash to its name".into();
                return Err(StoreError::Unreadable { what: format!("the artifact {path:?}"), why });
            }
            Ok(content)
        })
        .await
    }

    /// Named by its content: no word of an agent's gets into a path, and equal artifacts share a file.
    fn artifact_path(&self, sha256: &Sha256Hex) -> PathBuf {
        self.inner.data.join(ARTIFACTS_FOLDER).join(sha256.as_str())
    }

    /// Removes files that no row names, at most `most`.
    pub(super) async fn sweep_artifact_files(&self, most: usize) -> Result<(), StoreError> {
        let _held = self.inner.artifacts.lock().await;
        let folder = self.inner.data.join(ARTIFACTS_FOLDER);
        let listed = folder.clone();
        let names = blocking(move || list(&listed)).await?;
        let mut removed = 0;
        for name in names {
            let named: Option<i64> = sqlx::query_scalar("SELECT 1 FROM artifacts WHERE sha256 = ? LIMIT 1")
                .bind(&name)
                .fetch_optional(&self.inner.readers)
                .await
                .map_err(StoreError::database("looking for an artifact's row"))?;
            if named.is_none() {
                let path = folder.join(&name);
                std::fs::remove_file(&path).map_err(StoreError::file("removing", &path))?;
                removed += 1;
                if removed >= most {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn check(artifact: &NewArtifact) -> Result<(), StoreError> {
    let bytes = artifact.content.len();
    if bytes > limits::ARTIFACT_BYTES_MAX {
        let most = limits::ARTIFACT_BYTES_MAX;
        return Err(StoreError::TooMuch(format!("the artifact has {bytes} bytes; {most} are allowed")));
    }
    let name = &artifact.name;
    if name.is_empty() || name.len() > ARTIFACT_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(StoreError::TooMuch(format!(
            "the artifact's name {name:?} is not 1 to {ARTIFACT_NAME_BYTES_MAX} bytes of printable text"
        )));
    }
    let found = Sha256Hex::of(&artifact.content);
    if found != artifact.sha256 {
        let said = &artifact.sha256;
        return Err(StoreError::TooMuch(format!(
            "the artifact hashes to {found}, and was announced as {said}"
        )));
    }
    Ok(())
}

/// Writes the file unless it is there: its name is its content.
fn write(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let other = |error| StoreError::file("writing", path)(std::io::Error::other(error));
    if path.metadata().is_ok_and(|found| found.len() == content.len() as u64) {
        return Ok(());
    }
    let folder = path.parent().expect("an artifact lies in a folder");
    whole::create_folder(folder, 0o700).map_err(other)?;
    whole::write_whole(path, content, &whole::Options::default()).map_err(other)
}

/// Names of the artifacts' files.
fn list(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::file("reading", folder)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::file("reading", folder))?;
        // Temporary files of a write that was cut short have other names, and are swept by those who made them.
        if let Ok(name) = entry.file_name().into_string()
            && name.parse::<Sha256Hex>().is_ok()
        {
            names.push(name);
        }
    }
    Ok(names)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StoreError::Unreadable { what: "an artifact".into(), why: error.to_string() })?
}
