//! A way between an agent and its orchestrator that a test closes behind some bytes: what is large is then held in the
//! middle, for as long as the test wants, be it an answer or what an agent sends.

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
    /// Bytes that go up a connection after an answer and before the next, before it is held.
    asks_max: AtomicU64,
    held: Mutex<Vec<TcpStream>>,
}

impl Gate {
    /// One before a server, which may be killed and started again.
    pub fn before(server: &Server, holds_after: u64) -> Gate {
        Gate::with(server, holds_after, u64::MAX)
    }

    /// One before a server that holds each connection over which more than so many bytes are sent at a time, before all of
    /// them have come.
    pub fn before_what_is_sent(server: &Server, asks_max: u64) -> Gate {
        Gate::with(server, u64::MAX, asks_max)
    }

    fn with(server: &Server, holds_after: u64, asks_max: u64) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let (to, holds_after) = (Mutex::new(address_of(server)), AtomicU64::new(holds_after));
        let state =
            Arc::new(State { to, holds_after, asks_max: AtomicU64::new(asks_max), held: Mutex::default() });
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

    /// Ends the connections that are held, and holds the next ones behind so many bytes that come down; what is sent passes.
    pub fn cut(&self, holds_after: u64) {
        self.state.holds_after.store(holds_after, Ordering::SeqCst);
        self.state.asks_max.store(u64::MAX, Ordering::SeqCst);
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
        let sent = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let fits = |part| {
                    let before = sent.fetch_add(part, Ordering::SeqCst);
                    before.saturating_add(part) <= self.asks_max.load(Ordering::SeqCst)
                };
                match copy(near, &far, fits) {
                    // What was asked for last may still come: only this way is closed.
                    true => drop(far.shutdown(Shutdown::Write)),
                    false => self.hold([near, &far]),
                }
            });
            let mut came = 0;
            let fits = |part| {
                sent.store(0, Ordering::SeqCst);
                came += part;
                came <= self.holds_after.load(Ordering::SeqCst)
            };
            match copy(&far, near, fits) {
                true => drop(near.shutdown(Shutdown::Both)),
                false => self.hold([near, &far]),
            }
        });
    }

    fn hold(&self, ends: [&TcpStream; 2]) {
        self.held().extend(ends.map(|end| end.try_clone().expect("there are descriptors left")));
    }
}

/// Passes bytes on for as long as each part of them pleases. False where one pleased no longer.
fn copy(mut from: &TcpStream, mut to: &TcpStream, mut pleases: impl FnMut(u64) -> bool) -> bool {
    let mut buffer = vec![0; PART_BYTES];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        if read == 0 {
            return true;
        }
        if !pleases(read as u64) {
            return false;
        }
        if to.write_all(&buffer[..read]).is_err() {
            return true;
        }
    }
}
