//! Nodes and profiles.

use groundcrew_protocol::ids::{MacAddress, NodeName, ProfileName};
use groundcrew_protocol::operator::Node;
use groundcrew_protocol::profile::Profile;
use groundcrew_protocol::time::WallMs;

use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Sqlite};

use super::{NewAudit, Store, StoreError, events, text};

/// Rows of one part of a list.
const PAGE_MAX: u32 = 1_000;
/// Nodes that one serial or set of MACs can find.
const FOUND_MAX: i64 = 16;
/// Interfaces of one machine that are looked at.
const MACS_MAX: usize = 1_000;

/// A stored profile.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileRow {
    /// Its text, as the operator wrote it (TOML).
    pub text: String,
    /// What it says.
    pub profile: Profile,
    /// When it was last written.
    pub updated: WallMs,
}

impl Store {
    /// Makes or replaces a node.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where another node has one of its MACs, and those of the database.
    pub async fn put_node(&self, node: Node, audit: NewAudit) -> Result<(), StoreError> {
        let doc = text::to_json("a node", &node)?;
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    write_node(connection, &node, &doc, audit.at).await?;
                    events::insert_audits(connection, [&audit].into_iter()).await
                })
            })
            .await
    }

    /// A node.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn node(&self, name: &NodeName) -> Result<Option<Node>, StoreError> {
        let doc: Option<String> = sqlx::query_scalar("SELECT doc FROM nodes WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(&self.inner.readers)
            .await
            .map_err(StoreError::database("reading a node"))?;
        doc.map(|doc| text::from_json("a node", &doc)).transpose()
    }

    /// Nodes in order of their names, at most `limit` after `after`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn nodes(&self, after: Option<&NodeName>, limit: u32) -> Result<Vec<Node>, StoreError> {
        let docs: Vec<String> =
            sqlx::query_scalar("SELECT doc FROM nodes WHERE name > ? ORDER BY name LIMIT ?")
                .bind(after.map_or("", |name| name.as_str()))
                .bind(text::limit(limit, PAGE_MAX))
                .fetch_all(&self.inner.readers)
                .await
                .map_err(StoreError::database("listing nodes"))?;
        docs.iter().map(|doc| text::from_json("a node", doc)).collect()
    }

    /// Nodes with this serial, or with one of these MACs, each once, at most 16.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn find_nodes(
        &self,
        serial: Option<&str>,
        macs: &[MacAddress],
    ) -> Result<Vec<Node>, StoreError> {
        let mut query = QueryBuilder::<Sqlite>::new("SELECT doc FROM nodes WHERE serial = ");
        query.push_bind(serial);
        if !macs.is_empty() {
            query.push(" OR name IN (SELECT node FROM node_macs WHERE mac IN (");
            let mut list = query.separated(", ");
            for mac in macs.iter().take(MACS_MAX) {
                list.push_bind(mac.as_str());
            }
            query.push("))");
        }
        query.push(" ORDER BY name LIMIT ").push_bind(FOUND_MAX);
        let docs: Vec<String> = query
            .build_query_scalar()
            .fetch_all(&self.inner.readers)
            .await
            .map_err(StoreError::database("looking for a node"))?;
        docs.iter().map(|doc| text::from_json("a node", doc)).collect()
    }

    /// Deletes a node. False where there is none. Its runs stay.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where a run of it has not ended, and those of the database.
    pub async fn delete_node(&self, name: &NodeName, audit: NewAudit) -> Result<bool, StoreError> {
        let name = name.clone();
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    let failed = StoreError::database("deleting a node");
                    let going: Option<String> =
                        sqlx::query_scalar("SELECT id FROM runs WHERE node = ? AND ended IS NULL LIMIT 1")
                            .bind(name.as_str())
                            .fetch_optional(&mut *connection)
                            .await
                            .map_err(&failed)?;
                    if let Some(run) = going {
                        return Err(StoreError::InUse(format!("run {run} of node {name} has not ended")));
                    }
                    let done = sqlx::query("DELETE FROM nodes WHERE name = ?")
                        .bind(name.as_str())
                        .execute(&mut *connection)
                        .await
                        .map_err(&failed)?;
                    if done.rows_affected() == 0 {
                        return Ok(false);
                    }
                    events::insert_audits(connection, [&audit].into_iter()).await.map(|()| true)
                })
            })
            .await
    }

    /// Makes or replaces a profile. Runs keep the profile that they were made with.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn put_profile(
        &self,
        toml: String,
        profile: Profile,
        audit: NewAudit,
    ) -> Result<(), StoreError> {
        let doc = text::to_json("a profile", &profile)?;
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    let put = "INSERT INTO profiles (name, updated, text, doc) VALUES (?, ?, ?, ?) ON CONFLICT (name) \
                               DO UPDATE SET updated = excluded.updated, text = excluded.text, doc = excluded.doc";
                    sqlx::query(put)
                        .bind(profile.name.as_str())
                        .bind(audit.at.0)
                        .bind(toml)
                        .bind(doc)
                        .execute(&mut *connection)
                        .await
                        .map_err(StoreError::database("storing a profile"))?;
                    events::insert_audits(connection, [&audit].into_iter()).await
                })
            })
            .await
    }

    /// A profile.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn profile(&self, name: &ProfileName) -> Result<Option<ProfileRow>, StoreError> {
        let row: Option<(String, String, i64)> =
            sqlx::query_as("SELECT text, doc, updated FROM profiles WHERE name = ?")
                .bind(name.as_str())
                .fetch_optional(&self.inner.readers)
                .await
                .map_err(StoreError::database("reading a profile"))?;
        row.map(|(toml, doc, updated)| {
            let profile = text::from_json("a profile", &doc)?;
            Ok(ProfileRow { text: toml, profile, updated: WallMs(updated) })
        })
        .transpose()
    }

    /// The names of all profiles, in order, at most `limit` after `after`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn profiles(
        &self,
        after: Option<&ProfileName>,
        limit: u32,
    ) -> Result<Vec<ProfileName>, StoreError> {
        let names: Vec<String> =
            sqlx::query_scalar("SELECT name FROM profiles WHERE name > ? ORDER BY name LIMIT ?")
                .bind(after.map_or("", |name| name.as_str()))
                .bind(text::limit(limit, PAGE_MAX))
                .fetch_all(&self.inner.readers)
                .await
                .map_err(StoreError::database("listing profiles"))?;
        names.iter().map(|name| text::parse("the name of a profile", name)).collect()
    }

    /// Deletes a profile. False where there is none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_profile(&self, name: &ProfileName, audit: NewAudit) -> Result<bool, StoreError> {
        let name = name.clone();
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    let done = sqlx::query("DELETE FROM profiles WHERE name = ?")
                        .bind(name.as_str())
                        .execute(&mut *connection)
                        .await
                        .map_err(StoreError::database("deleting a profile"))?;
                    if done.rows_affected() == 0 {
                        return Ok(false);
                    }
                    events::insert_audits(connection, [&audit].into_iter()).await.map(|()| true)
                })
            })
            .await
    }
}

async fn write_node(
    connection: &mut SqliteConnection,
    node: &Node,
    doc: &str,
    at: WallMs,
) -> Result<(), StoreError> {
    let failed = StoreError::database("storing a node");
    let put = "INSERT INTO nodes (name, serial, updated, doc) VALUES (?, ?, ?, ?) ON CONFLICT (name) \
               DO UPDATE SET serial = excluded.serial, updated = excluded.updated, doc = excluded.doc";
    sqlx::query(put)
        .bind(node.name.as_str())
        .bind(node.serial.as_deref())
        .bind(at.0)
        .bind(doc)
        .execute(&mut *connection)
        .await
        .map_err(&failed)?;
    sqlx::query("DELETE FROM node_macs WHERE node = ?")
        .bind(node.name.as_str())
        .execute(&mut *connection)
        .await
        .map_err(&failed)?;
    for mac in &node.macs {
        // The update that changes nothing makes RETURNING tell whose address it is.
        let put = "INSERT INTO node_macs (mac, node) VALUES (?1, ?2) ON CONFLICT (mac) DO UPDATE SET mac = mac \
                   RETURNING node";
        let owner: String = sqlx::query_scalar(put)
            .bind(mac.as_str())
            .bind(node.name.as_str())
            .fetch_one(&mut *connection)
            .await
            .map_err(&failed)?;
        if owner != node.name.as_str() {
            return Err(StoreError::Exists(format!("{mac} is an address of node {owner}")));
        }
    }
    Ok(())
}
