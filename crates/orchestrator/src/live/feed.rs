//! What watchers of a run are told the moment it happens: a bounded broadcast, made when the first watcher comes.
//!
//! A watcher that is too slow loses the oldest and is told so; it reads stored events again from the store.

use std::sync::{Arc, Mutex};

use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::LogLine;
use tokio::sync::broadcast;

/// As many tellings wait for a slow watcher: a few megabytes of log at worst.
const TELLINGS_MAX: usize = 64;
/// Text of log in one telling: escaped six times over it is still an event that clients take.
const TELLING_BYTES_MAX: usize = 64 * 1024;
/// What a line costs beside its text.
const LINE_FRAME_BYTES: usize = 96;

/// Something to tell.
#[derive(Debug, Clone)]
pub enum Telling {
    /// There are new events in the store.
    Events,
    /// Lines of log of one stage, or framing lines.
    Log {
        /// The stage.
        stage: Option<Stage>,
        /// The lines.
        lines: Arc<Vec<LogLine>>,
    },
    /// What the agent says of itself has changed.
    Agent,
}

/// The watchers of one run.
#[derive(Debug, Default)]
pub struct Feed {
    sender: Mutex<Option<broadcast::Sender<Telling>>>,
}

impl Feed {
    /// Begins to watch.
    pub fn watch(&self) -> broadcast::Receiver<Telling> {
        let mut sender = self.sender.lock().expect("no holder of this lock panics");
        sender.get_or_insert_with(|| broadcast::Sender::new(TELLINGS_MAX)).subscribe()
    }

    /// True where somebody watches. The channel goes with the last watcher.
    pub fn is_watched(&self) -> bool {
        let mut sender = self.sender.lock().expect("no holder of this lock panics");
        let watched = sender.as_ref().is_some_and(|sender| sender.receiver_count() > 0);
        if !watched {
            *sender = None;
        }
        watched
    }

    /// Tells all watchers.
    pub fn tell(&self, telling: Telling) {
        let sender = self.sender.lock().expect("no holder of this lock panics");
        if let Some(sender) = sender.as_ref() {
            // Without a watcher there is nobody to tell, which is no failure.
            let _watchers = sender.send(telling);
        }
    }

    /// Tells lines of log, those of each stage together, in their order.
    pub fn tell_lines(&self, lines: &[LogLine]) {
        let mut groups: Vec<(Option<Stage>, Vec<LogLine>)> = Vec::new();
        let mut room_bytes = 0;
        for line in lines {
            match groups.last_mut() {
                Some((stage, group)) if *stage == line.stage && line.text.len() <= room_bytes => {
                    group.push(line.clone());
                }
                Some(_) | None => {
                    groups.push((line.stage.clone(), vec![line.clone()]));
                    room_bytes = TELLING_BYTES_MAX;
                }
            }
            room_bytes = room_bytes.saturating_sub(line.text.len() + LINE_FRAME_BYTES);
        }
        for (stage, lines) in groups {
            self.tell(Telling::Log { stage, lines: Arc::new(lines) });
        }
    }
}
