//! Drains that operators asked for.

use groundcrew_protocol::drain::{Drain, DrainEnd, EndDrains};
use groundcrew_protocol::ids::NodeName;

use sqlx::sqlite::SqliteConnection;

use super::{NewAudit, Store, StoreError, events, text};

/// Drains that are active at a time. Each is read every second; a fleet is drained by labels, not by thousands of them.
pub const ACTIVE_MAX: i64 = 1_000;
/// Ended ones that are kept for whoever asks why a node was drained; the audit trail has them for longer.
const ENDED_KEPT: i64 = 1_000;

impl Store {
    /// Stores a drain.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where there are as many as there may be, and those of the database.
    pub async fn add_drain(&self, drain: Drain, audit: NewAudit) -> Result<(), StoreError> {
        let doc = text::to_json("a drain", &drain)?;
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    let failed = StoreError::database("storing a drain");
                    let put = "INSERT INTO drains (id, ended, doc) SELECT ?, NULL, ? \
                               WHERE (SELECT count(*) FROM drains WHERE ended IS NULL) < ?";
                    let done = sqlx::query(put)
                        .bind(drain.id.as_str())
                        .bind(doc)
                        .bind(ACTIVE_MAX)
                        .execute(&mut *connection)
                        .await
                        .map_err(&failed)?;
                    if done.rows_affected() == 0 {
                        return Err(StoreError::Exists(format!(
                            "{ACTIVE_MAX} drains are active: end some, or drain nodes by a label"
                        )));
                    }
                    events::insert_audits(connection, [&audit].into_iter()).await
                })
            })
            .await
    }

    /// Drains that have not ended, oldest id first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn drains_active(&self) -> Result<Vec<Drain>, StoreError> {
        let docs: Vec<String> =
            sqlx::query_scalar("SELECT doc FROM drains WHERE ended IS NULL ORDER BY id LIMIT ?")
                .bind(ACTIVE_MAX)
                .fetch_all(&self.inner.readers)
                .await
                .map_err(StoreError::database("reading drains"))?;
        docs.iter().map(|doc| text::from_json("a drain", doc)).collect()
    }

    /// Drains that have ended, the latest first, at most `limit`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn drains_ended(&self, limit: u32) -> Result<Vec<Drain>, StoreError> {
        let docs: Vec<String> = sqlx::query_scalar(
            "SELECT doc FROM drains WHERE ended IS NOT NULL ORDER BY ended DESC, id LIMIT ?",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.inner.readers)
        .await
        .map_err(StoreError::database("reading drains"))?;
        docs.iter().map(|doc| text::from_json("a drain", doc)).collect()
    }

    /// Ends those of the active drains that are meant, and gives them as they are then. None is no error.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn end_drains(
        &self,
        which: EndDrains,
        end: DrainEnd,
        audit: impl Fn(&Drain) -> NewAudit + Send + 'static,
    ) -> Result<Vec<Drain>, StoreError> {
        self.inner
            .writer
            .small(move |connection| {
                Box::pin(async move {
                    let mut ended = Vec::new();
                    for mut drain in
                        active(connection).await?.into_iter().filter(|drain| is_meant(&which, drain))
                    {
                        drain.ended = Some(end.clone());
                        write_end(connection, &drain, &end).await?;
                        events::insert_audits(connection, [&audit(&drain)].into_iter()).await?;
                        ended.push(drain);
                    }
                    forget_oldest(connection).await?;
                    Ok(ended)
                })
            })
            .await
    }

    /// The names of the nodes with this label.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn nodes_labelled(&self, key: &str, value: &str) -> Result<Vec<NodeName>, StoreError> {
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT nodes.name FROM nodes, json_each(nodes.doc, '$.labels') AS label \
             WHERE label.key = ? AND label.value = ?",
        )
        .bind(key)
        .bind(value)
        .fetch_all(&self.inner.readers)
        .await
        .map_err(StoreError::database("looking for nodes with a label"))?;
        names.iter().map(|name| text::parse("the name of a node", name)).collect()
    }
}

fn is_meant(which: &EndDrains, drain: &Drain) -> bool {
    match which {
        EndDrains::Id(id) => drain.id == *id,
        EndDrains::Target(target) => drain.target == *target,
    }
}

async fn active(connection: &mut SqliteConnection) -> Result<Vec<Drain>, StoreError> {
    let docs: Vec<String> = sqlx::query_scalar("SELECT doc FROM drains WHERE ended IS NULL ORDER BY id")
        .fetch_all(connection)
        .await
        .map_err(StoreError::database("reading drains"))?;
    docs.iter().map(|doc| text::from_json("a drain", doc)).collect()
}

async fn write_end(
    connection: &mut SqliteConnection,
    drain: &Drain,
    end: &DrainEnd,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE drains SET ended = ?, doc = ? WHERE id = ?")
        .bind(end.at.0)
        .bind(text::to_json("a drain", drain)?)
        .bind(drain.id.as_str())
        .execute(connection)
        .await
        .map(|_done| ())
        .map_err(StoreError::database("ending a drain"))
}

async fn forget_oldest(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM drains WHERE id IN (SELECT id FROM drains WHERE ended IS NOT NULL \
         ORDER BY ended DESC, id LIMIT -1 OFFSET ?)",
    )
    .bind(ENDED_KEPT)
    .execute(connection)
    .await
    .map(|_done| ())
    .map_err(StoreError::database("forgetting ended drains"))
}

#[cfg(test)]
mod tests {
    use groundcrew_protocol::drain::DrainTarget;
    use groundcrew_protocol::operator::Node;
    use groundcrew_protocol::time::WallMs;

    use super::*;
    use crate::store::StoreOptions;

    fn audit(action: &str) -> NewAudit {
        NewAudit { at: WallMs(1), actor: "ann".into(), action: action.into(), run: None, text: String::new() }
    }

    fn drain(number: usize, target: &DrainTarget) -> Drain {
        Drain {
            id: format!("d-{number:04}").parse().unwrap(),
            target: target.clone(),
            by: "ann".into(),
            reason: "why".into(),
            created: WallMs(1),
            until: None,
            until_ms: None,
            run: None,
            suppress_notification: false,
            ended: None,
        }
    }

    fn end(at: i64) -> DrainEnd {
        DrainEnd { at: WallMs(at), why: "enough".into() }
    }

    #[tokio::test]
    async fn drains_are_kept_until_they_are_ended_and_for_a_while_after() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path(), StoreOptions::default()).await.unwrap();
        let node = DrainTarget::Node("n1".parse().unwrap());
        let label = DrainTarget::Label { key: "rack".into(), value: "1".into() };
        for (number, target) in [(1, &node), (2, &label), (3, &node)] {
            store.add_drain(drain(number, target), audit("drain")).await.unwrap();
        }
        store.close().await.unwrap();
        let store = Store::open(data.path(), StoreOptions::default()).await.unwrap();
        let ids =
            |drains: &[Drain]| -> Vec<String> { drains.iter().map(|drain| drain.id.to_string()).collect() };
        assert_eq!(ids(&store.drains_active().await.unwrap()), ["d-0001", "d-0002", "d-0003"]);
        let meant = EndDrains::Target(node.clone());
        let ended = store.end_drains(meant.clone(), end(5), |_| audit("end_drain")).await.unwrap();
        assert_eq!(ids(&ended), ["d-0001", "d-0003"]);
        assert_eq!(ended[0].ended, Some(end(5)));
        assert!(store.end_drains(meant, end(6), |_| audit("end_drain")).await.unwrap().is_empty(), "once");
        assert_eq!(ids(&store.drains_active().await.unwrap()), ["d-0002"]);
        let by_id = EndDrains::Id("d-0002".parse().unwrap());
        assert_eq!(store.end_drains(by_id, end(7), |_| audit("end_drain")).await.unwrap().len(), 1);
        assert_eq!(ids(&store.drains_ended(2).await.unwrap()), ["d-0002", "d-0001"]);
        let rows = store.audit_rows(u64::MAX, 20).await.unwrap();
        assert_eq!(rows.iter().filter(|row| row.audit.action == "end_drain").count(), 3);
    }

    #[tokio::test]
    async fn a_label_finds_its_nodes_whatever_its_letters() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path(), StoreOptions::default()).await.unwrap();
        let key = "a \"key\".with$[0]";
        for (name, value) in [("n1", "1"), ("n2", "2"), ("n3", "1")] {
            let labels = [(key.to_owned(), value.to_owned())].into();
            let node = Node { name: name.parse().unwrap(), serial: None, macs: Vec::new(), labels };
            store.put_node(node, audit("put_node")).await.unwrap();
        }
        let found = store.nodes_labelled(key, "1").await.unwrap();
        let mut found: Vec<&str> = found.iter().map(NodeName::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, ["n1", "n3"]);
        assert!(store.nodes_labelled("key", "1").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn there_are_no_more_active_drains_than_can_be_looked_at_each_second() {
        let data = tempfile::tempdir().unwrap();
        let store = Store::open(data.path(), StoreOptions::default()).await.unwrap();
        let node = DrainTarget::Node("n1".parse().unwrap());
        let max = usize::try_from(ACTIVE_MAX).unwrap();
        let many = (0..max).map(|number| store.add_drain(drain(number, &node), audit("drain")));
        for added in futures_util::future::join_all(many).await {
            added.unwrap();
        }
        let error = store.add_drain(drain(max, &node), audit("drain")).await.unwrap_err();
        assert!(matches!(&error, StoreError::Exists(text) if text.contains("1000 drains")), "{error}");
    }
}
