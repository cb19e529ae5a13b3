//! A way between an agent and its orchestrator that a test closes behind some bytes: what is large is then held in the
//! middle, for as long as the test wants.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Server;

/// Bytes that are passed on at a time.
const PART_BYTES: usize = 16 * 1024;

/// Passes on what comes, until more than so many bytes have come down one connection.
#[derive(Debug)]
pub struct Gate {
    url: String,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    to: Mutex<String>,
    /// Bytes that come down a connection before it is held.
    holds_after: AtomicU64,
    held: Mutex<Vec<TcpStream>>,
}

impl Gate {
    /// One before a server, which may be killed and started again.
    pub fn before(server: &Server, holds_after: u64) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let (to, holds_after) = (Mutex::new(address_of(server)), AtomicU64::new(holds_after));
        let state = Arc::new(State { to, holds_after, held: Mutex::default() });
        let passes = Arc::clone(&state);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let state = Arc::clone(&passes);
                std::thread::spawn(move || state.pass(&near));
            }
        });
        Gate { url: format!("https://{address}"), state }
    }

    /// Where an agent finds its server behind it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits until a connection is held.
    pub fn wait_held(&self) {
        super::eventually("a connection that is held", || (!self.state.held().is_empty()).then_some(()));
    }

    /// Leads connections to another server from now on. Those that stand stay.
    pub fn lead_to(&self, server: &Server) {
        *self.state.to.lock().unwrap_or_else(PoisonError::into_inner) = address_of(server);
    }

    /// Ends the connections that are held, and holds the next ones behind so many bytes.
    pub fn cut(&self, holds_after: u64) {
        self.state.holds_after.store(holds_after, Ordering::SeqCst);
        for end in self.state.held().drain(..) {
            // Its other end may be gone already.
            let _gone = end.shutdown(Shutdown::Both);
        }
    }
}

fn address_of(server: &Server) -> String {
    server.url().trim_start_matches("https://").to_owned()
}

impl State {
    fn held(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass(&self, near: &TcpStream) {
        // A server that is down is one that ends the connection.
        let to = self.to.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Ok(far) = TcpStream::connect(to) else { return };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                copy(near, &far, |_bytes| true);
                // What was asked for last may still come: only this way is closed.
                let _gone = far.shutdown(Shutdown::Write);
            });
            let is_whole = copy(&far, near, |bytes| bytes <= self.holds_after.load(Ordering::SeqCst));
            if is_whole {
                let _gone = near.shutdown(Shutdown::Both);
                return;
            }
            let ends = [near.try_clone(), far.try_clone()];
            self.held().extend(ends.into_iter().map(|end| end.expect("there are descriptors left")));
        });
    }
}

/// Passes bytes on for as long as their number pleases. False where it pleased no longer.
fn copy(mut from: &TcpStream, mut to: &TcpStream, pleases: impl Fn(u64) -> bool) -> bool {
    let (mut buffer, mut passed) = (vec![0; PART_BYTES], 0);
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            return true;
        }
        passed += read as u64;
        if !pleases(passed) {
            return false;
        }
    }
}
