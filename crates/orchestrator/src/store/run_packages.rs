//! Which packages of the store a run uses: a row each, written with the run and gone with its end, so that whoever is about
//! to delete a package finds by an index whether it may.

use groundcrew_protocol::ids::{PackageName, PackageVersion, RunId};
use sqlx::SqliteConnection;

use super::{RunColumns, Store, StoreError, text};

/// A package by its name and version.
pub type PackageKey = (PackageName, PackageVersion);

/// The runs that have not ended and use a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageUsers {
    /// The first of them, by their ids.
    pub named: Vec<RunId>,
    /// How many there are.
    pub count: u64,
}

/// Writes what a new run uses.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    run: &RunId,
    columns: &RunColumns,
) -> Result<(), StoreError> {
    // One that was made as ended uses nothing.
    let packages = if columns.ended.is_some() { &[][..] } else { &columns.packages };
    for package in packages {
        insert_one(&mut *connection, run, package).await?;
    }
    Ok(())
}

async fn insert_one(
    connection: &mut SqliteConnection,
    run: &RunId,
    (name, version): &PackageKey,
) -> Result<(), StoreError> {
    // A profile may have a package twice, with other settings.
    sqlx::query("INSERT OR IGNORE INTO run_packages (name, version, run) VALUES (?, ?, ?)")
        .bind(name.as_str())
        .bind(version.as_str())
        .bind(run.as_str())
        .execute(connection)
        .await
        .map(|_done| ())
        .map_err(StoreError::database("storing which packages a run uses"))
}

/// Removes what a run has used that has ended.
pub(super) async fn remove(connection: &mut SqliteConnection, run: &RunId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM run_packages WHERE run = ?")
        .bind(run.as_str())
        .execute(connection)
        .await
        .map(|_done| ())
        .map_err(StoreError::database("removing which packages a run has used"))
}

impl Store {
    /// The runs that use a package, and the ids of at most `named_max` of them.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn package_users(
        &self,
        name: &PackageName,
        version: &PackageVersion,
        named_max: u32,
    ) -> Result<PackageUsers, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT run, count(*) OVER () FROM run_packages WHERE name = ? AND version = ? ORDER BY run LIMIT ?",
        )
        .bind(name.as_str())
        .bind(version.as_str())
        .bind(named_max)
        .fetch_all(&self.inner.readers)
        .await
        .map_err(StoreError::database("looking for the runs that use a package"))?;
        let count = rows.first().map_or(0, |(_run, count)| text::unsigned(*count));
        let named = rows.iter().map(|(run, _count)| text::parse("the id of a run", run));
        Ok(PackageUsers { named: named.collect::<Result<_, _>>()?, count })
    }

    /// Whether [`Store::package_users`] knows all runs; false where some were made by a version that kept no such rows.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn knows_package_users(&self) -> Result<bool, StoreError> {
        let read: Option<String> = sqlx::query_scalar("SELECT value FROM meta WHERE key = 'run_packages'")
            .fetch_optional(&self.inner.readers)
            .await
            .map_err(StoreError::database("reading whether the packages of runs are known"))?;
        Ok(read.as_deref() == Some("read"))
    }

    /// Writes what those runs use and, where they are all that there are, that it is known from now on. No run may be changed
    /// meanwhile.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn learn_package_users(
        &self,
        used: Vec<(RunId, PackageKey)>,
        are_all: bool,
    ) -> Result<(), StoreError> {
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    for (run, package) in &used {
                        insert_one(&mut *connection, run, package).await?;
                    }
                    if !are_all {
                        return Ok(());
                    }
                    sqlx::query("UPDATE meta SET value = 'read' WHERE key = 'run_packages'")
                        .execute(connection)
                        .await
                        .map(|_done| ())
                        .map_err(StoreError::database("noting that the packages of runs are known"))
                })
            })
            .await
    }
}
