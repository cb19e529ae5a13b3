//! How many guests of one test binary are on at once: each emulated processor takes a whole one.

use std::sync::{Condvar, Mutex};

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

/// A place for a guest, free again when this is dropped.
#[derive(Debug)]
pub struct Slot(());

impl Slot {
    /// Waits for one.
    pub fn wait() -> Slot {
        let taken = TAKEN.lock().expect("no holder of this lock panics");
        let mut taken =
            FREED.wait_while(taken, |taken| *taken >= slots()).expect("no holder of this lock panics");
        *taken += 1;
        Slot(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *TAKEN.lock().expect("no holder of this lock panics") -= 1;
        FREED.notify_one();
    }
}

fn slots() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().clamp(1, 4))
}
