//! The limit for durable results: one bare insert for each, committed in groups, with SQLite set up as the store has it
//! (a write-ahead log, `synchronous=FULL`, its cache, its checkpoints) and driven through the same library.
//!
//! It is a generous limit. A row holds the bytes of one result's body, the median of those that are sent, and nothing
//! else: no index but the row's number, no network, no JSON, nothing read before. A result that counts stores its body
//! too, and beside it the checks as they were judged, the run's document by compare-and-set, two or three events, and
//! an entry in two indexes. A group is as large as the orchestrator's could be at best: a row for every connection that
//! waits for its answer. Each row is a statement of its own, made ready once, as callers who know nothing of each other
//! have them; that the store puts many rows into one statement is part of what is measured.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use sqlx::sqlite::{
    SqliteAutoVacuum, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Executor};

use crate::load::Round;
use crate::load::drive::Window;

/// The database of the limit.
pub struct BareInserts {
    connection: SqliteConnection,
    row: String,
    group: usize,
}

impl BareInserts {
    /// An empty table in `folder`. Each commit has `group` rows of this text.
    pub async fn open(folder: &Path, row: String, group: usize) -> Result<BareInserts> {
        let mut connection = SqliteConnectOptions::new()
            .filename(folder.join("bare.sqlite"))
            .create_if_missing(true)
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("cache_size", "-65536")
            .pragma("wal_autocheckpoint", "16384")
            .disable_statement_logging()
            .connect()
            .await
            .context("opening a database of the benchmark's own")?;
        let table = "CREATE TABLE bare (id INTEGER PRIMARY KEY AUTOINCREMENT, row TEXT NOT NULL) STRICT";
        connection.execute(table).await.context("making the table")?;
        Ok(BareInserts { connection, row, group })
    }

    /// Commits groups for a window.
    pub async fn run_round(&mut self, window: Window) -> Result<Round> {
        let begins = Instant::now() + window.warm_up;
        let ends = begins + window.counted;
        let mut round = Round { seconds: window.counted.as_secs_f64(), ..Round::default() };
        let mut asked = Instant::now();
        while asked < ends {
            self.commit_group().await.context("inserting into the benchmark's own database")?;
            let now = Instant::now();
            if now >= begins && now < ends {
                round.answers += self.group as u64;
                round.latencies_us.push(u32::try_from((now - asked).as_micros()).unwrap_or(u32::MAX));
            }
            asked = now;
        }
        round.latencies_us.sort_unstable();
        Ok(round)
    }

    async fn commit_group(&mut self) -> Result<(), sqlx::Error> {
        self.connection.execute("BEGIN IMMEDIATE").await?;
        for _row in 0..self.group {
            let insert = sqlx::query("INSERT INTO bare (row) VALUES (?)").bind(&self.row);
            insert.execute(&mut self.connection).await?;
        }
        self.connection.execute("COMMIT").await.map(|_done| ())
    }

    /// Closes the database.
    pub async fn close(self) -> Result<()> {
        self.connection.close().await.context("closing the benchmark's own database")
    }
}
