//! A run's document: its JSON, and what that means once somebody has read it.

use std::any::Any;
use std::sync::{Arc, OnceLock};

/// A run's document. What it means is remembered with it, so that a run that changes often is not read anew each time.
/// The store knows nothing of the meaning; two documents are equal where their JSON is.
#[derive(Clone)]
pub struct RunDoc {
    json: Arc<str>,
    meaning: Arc<OnceLock<Arc<dyn Any + Send + Sync>>>,
}

impl RunDoc {
    /// A document that nobody has read.
    pub fn of(json: impl Into<Arc<str>>) -> RunDoc {
        RunDoc { json: json.into(), meaning: Arc::default() }
    }

    /// The JSON of something that is at hand.
    pub fn written<T: Send + Sync + 'static>(json: impl Into<Arc<str>>, meaning: Arc<T>) -> RunDoc {
        let known = OnceLock::new();
        let _empty = known.set(meaning as Arc<dyn Any + Send + Sync>);
        RunDoc { json: json.into(), meaning: Arc::new(known) }
    }

    /// The JSON.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// What it means: remembered, or found by `read`. A document is always read as the same type; asked for as another,
    /// it is read again.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn read<T: Send + Sync + 'static, E>(
        &self,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let known = self.meaning.get().cloned().and_then(|meaning| meaning.downcast::<T>().ok());
        if let Some(known) = known {
            return Ok(known);
        }
        let found = Arc::new(read(&self.json)?);
        // Where somebody else was quicker, theirs is the same.
        let _first = self.meaning.set(found.clone());
        Ok(found)
    }
}

impl PartialEq for RunDoc {
    fn eq(&self, other: &RunDoc) -> bool {
        self.json == other.json
    }
}

impl Eq for RunDoc {}

impl std::fmt::Debug for RunDoc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.json, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_once_and_what_was_written_is_known() {
        let count = |json: &str| json.parse::<u64>();
        let doc = RunDoc::of("7");
        assert_eq!(doc.read(count), Ok(Arc::new(7)));
        let again = doc.clone().read(|_json| -> Result<u64, ()> { panic!("read again") });
        assert_eq!(again, Ok(Arc::new(7)));
        assert_eq!(doc.read(|json| Ok::<_, ()>(json.to_owned())), Ok(Arc::new("7".to_owned())));
        assert!(RunDoc::of("x").read(count).is_err());

        let written = RunDoc::written("8", Arc::new(8_u64));
        let known = written.read(|_json| -> Result<u64, ()> { panic!("read what was written") });
        assert_eq!(known, Ok(Arc::new(8)));
        assert_eq!(written, RunDoc::of("8"));
        assert_ne!(written, doc);
    }
}
