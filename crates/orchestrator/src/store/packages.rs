//! Packages that operators store: one file each, named by its sum, and a row for each name and version.
//!
//! A file is written beside its place under a name of its own ([`Upload`]), and gets its name and its row only when all of
//! it is on the disk. What is stored under a name and version never changes.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use groundcrew_durable::whole;
use groundcrew_protocol::ids::{PackageName, PackageVersion, RandomId, Sha256Hex, Sha256Sum};
use groundcrew_protocol::operator::PackageView;
use groundcrew_protocol::time::WallMs;

use super::{NewAudit, Store, StoreError, events, manifest, text};
use crate::owner;

/// Name of the folder of packages in the data folder.
pub(super) const PACKAGES_FOLDER: &str = "packages";
/// Begins the name of a file that is being written. No sum begins so.
const UPLOAD_PREFIX: &str = "upload-";
/// Greatest number of packages: each version of everything that a fleet was ever given.
const PACKAGES_MAX: i64 = 10_000;
/// Rows of one part of a list.
const PAGE_MAX: u32 = 1_000;

/// A package's archive that is being written. It is removed unless it is stored.
#[derive(Debug)]
pub struct Upload {
    path: PathBuf,
    file: File,
    sum: Sha256Sum,
    bytes: u64,
}

impl Upload {
    /// Writes more of it. It may block for as long as the disk does.
    ///
    /// # Errors
    /// Those of files.
    pub fn write(&mut self, part: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(part).map_err(StoreError::file("writing", &self.path))?;
        self.sum.add(part);
        self.bytes += part.len() as u64;
        Ok(())
    }

    /// Bytes that were written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The sum of what was written.
    pub fn sha256(&self) -> Sha256Hex {
        self.sum.clone().of_all()
    }

    /// What was written, to be read from its beginning.
    ///
    /// # Errors
    /// Those of files.
    pub fn open(&self) -> Result<File, StoreError> {
        File::open(&self.path).map_err(StoreError::file("opening", &self.path))
    }

    /// Makes it durable and gives it its name.
    fn finish(&self, folder: &Path, data: &Path) -> Result<(), StoreError> {
        self.file.sync_all().map_err(StoreError::file("syncing", &self.path))?;
        owner::give(&self.path, data)
            .map_err(StoreError::file("giving to the owner of the data folder", &self.path))?;
        let place = folder.join(self.sha256().as_str());
        std::fs::rename(&self.path, &place).map_err(StoreError::file("renaming", &self.path))?;
        manifest::sync_folder(folder)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // It has its own name by now, or is of no use; what a power cut leaves goes at the next start.
        let _stored_or_left = std::fs::remove_file(&self.path);
    }
}

impl Store {
    /// Begins to write a package's archive.
    ///
    /// # Errors
    /// Those of files.
    pub async fn begin_package(&self, name: RandomId) -> Result<Upload, StoreError> {
        let (folder, data) = (self.packages_folder(), self.inner.data.clone());
        blocking(move || {
            whole::create_folder(&folder, 0o700)
                .map_err(|error| StoreError::file("making", &folder)(std::io::Error::other(error)))?;
            owner::give(&folder, &data)
                .map_err(StoreError::file("giving to the owner of the data folder", &folder))?;
            let path = folder.join(format!("{UPLOAD_PREFIX}{name}"));
            let mut options = std::fs::OpenOptions::new();
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options.write(true).create_new(true).open(&path);
            let file = file.map_err(StoreError::file("making", &path))?;
            Ok(Upload { path, file, sum: Sha256Sum::default(), bytes: 0 })
        })
        .await
    }

    /// Stores what was uploaded: the file first, durably, then its row. The view is of what was uploaded; given back is what is
    /// stored now under its name and version, which may be another content that was there before. Let it come to its end.
    ///
    /// # Errors
    /// [`StoreError::TooMuch`] where there are too many, and those of files and of the database.
    pub async fn put_package(
        &self,
        upload: Upload,
        view: PackageView,
        audit: NewAudit,
    ) -> Result<PackageView, StoreError> {
        // Held until the row is there, so that no sweep takes the file for one that nobody names.
        let _held = self.inner.packages.lock().await;
        if let Some(stored) = self.package(&view.name, &view.version).await? {
            if stored.sha256 != view.sha256 {
                return Ok(stored);
            }
            // The same bytes again, in the place of the file: it may be lost, or damaged.
            let (folder, data) = (self.packages_folder(), self.inner.data.clone());
            blocking(move || upload.finish(&folder, &data)).await?;
            return Ok(stored);
        }
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM packages")
            .fetch_one(&self.inner.readers)
            .await
            .map_err(StoreError::database("counting packages"))?;
        if count >= PACKAGES_MAX {
            return Err(StoreError::TooMuch(format!(
                "{count} packages are stored, and {PACKAGES_MAX} are allowed; delete some that nobody needs"
            )));
        }
        let (folder, data) = (self.packages_folder(), self.inner.data.clone());
        blocking(move || upload.finish(&folder, &data)).await?;
        let stored = view.clone();
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO packages (name, version, sha256, bytes, unpacked_bytes, at, actor) \
                         VALUES (?, ?, ?, ?, ?, ?, ?)",
                    )
                    .bind(view.name.as_str())
                    .bind(view.version.as_str())
                    .bind(view.sha256.as_str())
                    .bind(text::signed(view.bytes))
                    .bind(text::signed(view.unpacked_bytes))
                    .bind(view.at.0)
                    .bind(&view.by)
                    .execute(&mut *connection)
                    .await
                    .map_err(StoreError::database("storing the row of a package"))?;
                    events::insert_audits(connection, [&audit].into_iter()).await
                })
            })
            .await?;
        Ok(stored)
    }

    /// A package.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn package(
        &self,
        name: &PackageName,
        version: &PackageVersion,
    ) -> Result<Option<PackageView>, StoreError> {
        let row: Option<PackageRow> = sqlx::query_as(
            "SELECT name, version, sha256, bytes, unpacked_bytes, at, actor FROM packages WHERE name = ? AND version = ?",
        )
        .bind(name.as_str())
        .bind(version.as_str())
        .fetch_optional(&self.inner.readers)
        .await
        .map_err(StoreError::database("reading a package"))?;
        row.map(view_of).transpose()
    }

    /// Packages by name and version, at most `limit` after one of them.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn packages(
        &self,
        after: Option<&(PackageName, PackageVersion)>,
        limit: u32,
    ) -> Result<Vec<PackageView>, StoreError> {
        let (name, version) = after.map_or(("", ""), |(name, version)| (name.as_str(), version.as_str()));
        let rows: Vec<PackageRow> = sqlx::query_as(
            "SELECT name, version, sha256, bytes, unpacked_bytes, at, actor FROM packages \
             WHERE (name, version) > (?, ?) ORDER BY name, version LIMIT ?",
        )
        .bind(name)
        .bind(version)
        .bind(text::limit(limit, PAGE_MAX))
        .fetch_all(&self.inner.readers)
        .await
        .map_err(StoreError::database("listing packages"))?;
        rows.into_iter().map(view_of).collect()
    }

    /// The archive with this sum, open to be read, and its bytes; `None` where there is none.
    ///
    /// # Errors
    /// Those of files.
    pub async fn open_package(&self, sha256: &Sha256Hex) -> Result<Option<(File, u64)>, StoreError> {
        let path = self.packages_folder().join(sha256.as_str());
        blocking(move || match File::open(&path) {
            Ok(file) => {
                let bytes = file.metadata().map_err(StoreError::file("looking at", &path))?.len();
                Ok(Some((file, bytes)))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::file("opening", &path)(error)),
        })
        .await
    }

    /// Deletes a package. False where there is none. Whether a run still needs it is the caller's to know. Let it come to its
    /// end.
    ///
    /// # Errors
    /// Those of the database, and of its file.
    pub async fn delete_package(
        &self,
        name: &PackageName,
        version: &PackageVersion,
        audit: NewAudit,
    ) -> Result<bool, StoreError> {
        let (name, version) = (name.clone(), version.clone());
        let was_there = self
            .inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    let done = sqlx::query("DELETE FROM packages WHERE name = ? AND version = ?")
                        .bind(name.as_str())
                        .bind(version.as_str())
                        .execute(&mut *connection)
                        .await
                        .map_err(StoreError::database("deleting a package"))?;
                    if done.rows_affected() == 0 {
                        return Ok(false);
                    }
                    events::insert_audits(connection, [&audit].into_iter()).await.map(|()| true)
                })
            })
            .await?;
        if was_there {
            self.sweep_package_files().await?;
        }
        Ok(was_there)
    }

    /// Removes files that no row names. What is being written has a name of another form.
    pub(super) async fn sweep_package_files(&self) -> Result<(), StoreError> {
        let _held = self.inner.packages.lock().await;
        let folder = self.packages_folder();
        let listed = folder.clone();
        let files = blocking(move || list(&listed)).await?;
        for name in files.into_iter().filter(|name| name.parse::<Sha256Hex>().is_ok()) {
            let named: Option<i64> = sqlx::query_scalar("SELECT 1 FROM packages WHERE sha256 = ? LIMIT 1")
                .bind(&name)
                .fetch_optional(&self.inner.readers)
                .await
                .map_err(StoreError::database("looking for a package's row"))?;
            if named.is_none() {
                let path = folder.join(&name);
                std::fs::remove_file(&path).map_err(StoreError::file("removing", &path))?;
            }
        }
        Ok(())
    }

    fn packages_folder(&self) -> PathBuf {
        self.inner.data.join(PACKAGES_FOLDER)
    }
}

/// Removes what uploads left behind when the process before this one ended. The data folder is locked.
pub(super) fn remove_broken_uploads(data: &Path) -> Result<(), StoreError> {
    let folder = data.join(PACKAGES_FOLDER);
    for name in list(&folder)?.into_iter().filter(|name| name.starts_with(UPLOAD_PREFIX)) {
        let path = folder.join(name);
        std::fs::remove_file(&path).map_err(StoreError::file("removing", &path))?;
    }
    Ok(())
}

type PackageRow = (String, String, String, i64, i64, i64, String);

fn view_of(row: PackageRow) -> Result<PackageView, StoreError> {
    let (name, version, sha256, bytes, unpacked_bytes, at, by) = row;
    Ok(PackageView {
        name: text::parse("the name of a package", &name)?,
        version: text::parse("the version of a package", &version)?,
        sha256: text::parse("the sum of a package", &sha256)?,
        bytes: text::unsigned(bytes),
        unpacked_bytes: text::unsigned(unpacked_bytes),
        at: WallMs(at),
        by,
    })
}

/// Names of the files in the folder; none where it is missing.
fn list(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::file("reading", folder)(error)),
    };
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.map(|entry| entry.file_name().into_string().ok()).transpose()
    };
    let names = entries.filter_map(name).collect::<Result<_, _>>();
    names.map_err(StoreError::file("reading", folder))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StoreError::Unreadable { what: "a package".into(), why: error.to_string() })?
}
