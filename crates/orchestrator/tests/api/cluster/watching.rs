//! What a watch of such a cluster says, and how it ends.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Inside, Quirk, Shared, answer, expired};

/// Bytes that come at a time where they dribble: less than any line has.
const DRIBBLED: usize = 7;

/// What a watch says of the events behind `from`, and whether it ends then.
fn lines(inside: &Inside, namespace: Option<&str>, from: u64) -> (Vec<u8>, bool) {
    let of_it = |event: &Value| namespace.is_none_or(|one| event["object"]["metadata"]["namespace"] == one);
    let news: Vec<&(u64, Value)> =
        inside.events.iter().filter(|(version, event)| *version > from && of_it(event)).collect();
    let mut text = String::new();
    let mut say = |event: &Value| text.push_str(&format!("{event}\n"));
    let expires = matches!(inside.quirk, Quirk::Expires | Quirk::ExpiresAtOnce);
    if expires && !news.is_empty() {
        say(&json!({"type": "ERROR", "object": expired()}));
        return (text.into_bytes(), true);
    }
    for (version, event) in &news {
        say(event);
        match inside.quirk {
            Quirk::Bookmarks => {
                say(&json!({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1",
                    "metadata": {"resourceVersion": version.to_string()}}}));
                return (text.into_bytes(), true);
            }
            Quirk::Doubles => (0..2).for_each(|_| say(event)),
            Quirk::Reorders => {
                inside
                    .events
                    .iter()
                    .rev()
                    .filter(|(earlier, _)| earlier < version)
                    .for_each(|(_, event)| say(event));
            }
            Quirk::None
            | Quirk::Expires
            | Quirk::ExpiresAtOnce
            | Quirk::Cuts
            | Quirk::CutsAtOnce
            | Quirk::Waits
            | Quirk::Dribbles
            | Quirk::PagesExpire => {}
        }
    }
    (text.into_bytes(), false)
}

/// A watch that was let in.
struct Watch {
    shared: Arc<Shared>,
    namespace: Option<String>,
    news: watch::Receiver<u64>,
    /// Which it is.
    number: usize,
    /// What it has told.
    from: u64,
    /// What it has begun to say.
    rest: Bytes,
    /// It ends after that; where its connection is cut, with an error.
    ends: Option<Result<(), std::io::Error>>,
}

impl Watch {
    /// What it says next; `None` once it has ended in order.
    async fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        loop {
            if !self.rest.is_empty() {
                let quirk = self.shared.lock().quirk;
                let size = if quirk == Quirk::Dribbles { DRIBBLED } else { usize::MAX };
                // What went before is sent before this.
                tokio::task::yield_now().await;
                return Some(Ok(self.rest.split_to(size.min(self.rest.len()))));
            }
            match self.ends.take() {
                Some(Err(error)) => {
                    self.ends = Some(Ok(()));
                    tokio::task::yield_now().await;
                    return Some(Err(error));
                }
                Some(Ok(())) => return None,
                None => {}
            }
            let (is_mute, has_ended) = {
                let inside = self.shared.lock();
                (self.number <= inside.mute, self.number <= inside.ended)
            };
            if is_mute {
                std::future::pending::<()>().await;
            }
            if !self.has_news() {
                if has_ended {
                    return None;
                }
                self.news.changed().await.ok()?;
            }
        }
    }

    /// Takes in what has happened. False where nothing has.
    fn has_news(&mut self) -> bool {
        let inside = self.shared.lock();
        let (mut bytes, ends) = lines(&inside, self.namespace.as_deref(), self.from);
        self.from = inside.version;
        let kept = match inside.quirk {
            Quirk::Cuts => bytes.len() / 2,
            Quirk::CutsAtOnce => 0,
            Quirk::None
            | Quirk::Bookmarks
            | Quirk::Expires
            | Quirk::ExpiresAtOnce
            | Quirk::Doubles
            | Quirk::Reorders
            | Quirk::Waits
            | Quirk::Dribbles
            | Quirk::PagesExpire => bytes.len(),
        };
        let has_news = !bytes.is_empty();
        if kept < bytes.len() {
            // The connection is cut, not closed.
            bytes.truncate(kept);
            self.ends = Some(Err(std::io::Error::other("cut")));
        } else if ends {
            self.ends = Some(Ok(()));
        }
        self.rest = bytes.into();
        has_news
    }
}

/// Lets a watch in.
pub(super) fn watching(
    shared: Arc<Shared>,
    namespace: Option<String>,
    query: &HashMap<String, String>,
) -> Response<Body> {
    let from: u64 = query["resourceVersion"].parse().unwrap();
    let (is_too_old, number) = {
        let mut inside = shared.lock();
        inside.watches += 1;
        shared.watched.send_replace(inside.watches);
        let has_expired = inside.quirk == Quirk::ExpiresAtOnce && inside.version > from;
        (has_expired || from < inside.forgotten, inside.watches)
    };
    if is_too_old {
        return answer(StatusCode::GONE, Body::from(expired().to_string()));
    }
    let news = shared.news.subscribe();
    let watch = Watch { shared, namespace, news, number, from, rest: Bytes::new(), ends: None };
    let stream = futures_util::stream::unfold(watch, async |mut watch| Some((watch.next().await?, watch)));
    answer(StatusCode::OK, Body::from_stream(stream))
}
