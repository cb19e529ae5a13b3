//! Takes away what is past its time or over its size, and forgets ended runs that nobody asks for.

use std::sync::Arc;

use super::Passed;
use crate::api::app::App;
use crate::live::clock::wall_now;

/// An ended run is forgotten after so much silence; it is read again when somebody asks.
const FORGET_AFTER_MS: u64 = 3_600_000;

/// A pass.
pub async fn pass(app: Arc<App>) -> Passed {
    let swept = app.store.sweep(wall_now()).await?;
    let mut forgotten = 0;
    for live in app.live.all() {
        let idle = live.state().ended.is_some() && app.live.quiet_ms(&live) >= FORGET_AFTER_MS;
        if idle && !live.feed.is_watched() {
            app.live.forget(&live.id);
            forgotten += 1;
        }
    }
    Ok(format!(
        "swept {} runs, {} chunks of log, {} bytes of segments, {} artifacts, {} events, {} ended agents; forgot {forgotten} ended runs",
        swept.runs, swept.log_chunks, swept.segment_bytes, swept.artifacts, swept.events, swept.agents
    ))
}
