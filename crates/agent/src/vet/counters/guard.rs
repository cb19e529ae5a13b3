//! A load that can be ended for the machine's heat without an operator's word.
//!
//! The stage gets a cancel handle of its own, which is asked where the operator's is, and by whoever watches the heat. So what
//! was stopped for its heat is told from what somebody cancelled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use groundcrew_protocol::plan::names;

use crate::process::Cancel;
use crate::vet::StageContext;

/// How long the thread that hands on an operator's word may outlive the stage.
const LINGER: Duration = Duration::from_millis(500);

/// A stage's context, guarded where its plan has limits for its heat.
pub(in crate::vet) struct Guarded {
    /// What the stage is done with.
    pub context: StageContext,
    is_guarded: bool,
    over: Arc<AtomicBool>,
}

impl Guarded {
    /// Guards a stage.
    pub fn over(context: &StageContext) -> Guarded {
        let over = Arc::new(AtomicBool::new(false));
        let is_load = context.whole_plan().iter().any(|planned| planned.name == names::CRITICAL_TEMPERATURE);
        let own = is_load.then(|| hand_on(&context.cancel, &over)).flatten();
        let is_guarded = own.is_some();
        let cancel = own.unwrap_or_else(|| context.cancel.clone());
        Guarded { context: StageContext { cancel, ..context.clone() }, is_guarded, over }
    }

    /// What ends the load.
    pub fn guards(&self) -> Option<Cancel> {
        self.is_guarded.then(|| self.context.cancel.clone())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A handle that is asked where another is. None where the system has no descriptor or thread left: the stage then runs
/// unguarded, and its check says that nobody looked.
fn hand_on(outer: &Cancel, over: &Arc<AtomicBool>) -> Option<Cancel> {
    let inner = Cancel::new().ok()?;
    if outer.is_asked() {
        tell(outer, &inner);
    }
    let (outer, told, over) = (outer.clone(), inner.clone(), Arc::clone(over));
    let wait = move || {
        while !over.load(Ordering::Relaxed) {
            if outer.wait(LINGER) {
                tell(&outer, &told);
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("guard".into()).stack_size(128 * 1024).spawn(wait);
    thread.is_ok().then_some(inner)
}

fn tell(outer: &Cancel, inner: &Cancel) {
    match outer.why() {
        Some(why) => inner.ask_because(why),
        None => inner.ask(),
    }
}
