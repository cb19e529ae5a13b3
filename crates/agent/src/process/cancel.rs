//! A handle by which one thread asks another's work to end, that can also be waited for with poll(2).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Asks work to end. Clones are the same handle; once asked, it stays asked.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    asked: AtomicBool,
    /// Why, where whoever asked said so first.
    why: OnceLock<&'static str>,
    /// Readable once asked, and never read: every waiter sees it.
    event: OwnedFd,
}

impl Cancel {
    /// A handle that nobody has used yet.
    ///
    /// # Errors
    /// Where the process has no file descriptor left.
    pub fn new() -> std::io::Result<Cancel> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Cancel(Arc::new(Inner { asked: AtomicBool::new(false), why: OnceLock::new(), event })))
    }

    /// Asks. Doing so again changes nothing.
    pub fn ask(&self) {
        self.0.asked.store(true, Ordering::SeqCst);
        // It fails only where the counter is full, and then it is readable as it should be.
        let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
    }

    /// Asks, and says why. The first reason stays.
    pub fn ask_because(&self, why: &'static str) {
        self.0.why.get_or_init(|| why);
        self.ask();
    }

    /// Why somebody asked; `None` where no reason was given.
    pub fn why(&self) -> Option<&'static str> {
        self.0.why.get().copied()
    }

    /// Waits for somebody to ask; true where that has come within `time`.
    pub fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).ok();
            // Interrupted or not, the question that follows is the same.
            let _asked_below = poll(&mut [PollFd::new(self, PollFlags::IN)], timeout.as_ref());
            if self.is_asked() || left.is_zero() {
                return self.is_asked();
            }
        }
    }

    /// True once somebody asked.
    pub fn is_asked(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst)
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
