//! A way from a guest to a server on the host: the guest's 10.0.2.2 is the host's 127.0.0.1 alone, and the servers of
//! tests have loopback addresses of their own.

use std::io::copy;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A port of 127.0.0.1 that leads to another address until this is dropped. A server that is away refuses, as it would
/// by itself.
#[derive(Debug)]
pub struct Relay {
    own: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Relay {
    /// Leads to `target`.
    pub fn to(target: SocketAddr) -> Relay {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let own = listener.local_addr().expect("a listener has an address");
        let is_over = Arc::new(AtomicBool::new(false));
        let of_thread = is_over.clone();
        std::thread::spawn(move || {
            for incoming in listener.incoming() {
                if of_thread.load(Ordering::Acquire) {
                    break;
                }
                let Ok(incoming) = incoming else { break };
                // Dropped where nobody listens there: the guest sees its connection closed.
                if let Ok(outgoing) = TcpStream::connect(target) {
                    join(&incoming, &outgoing);
                }
            }
        });
        Relay { own, is_over }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.own.port()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        // Wakes the listener. It fails only where that is gone already.
        let _woken = TcpStream::connect(self.own);
    }
}

fn join(one: &TcpStream, other: &TcpStream) {
    for (from, to) in [(one, other), (other, one)] {
        let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
        std::thread::spawn(move || {
            // However it ends, the other side hears of the end.
            let _copied = copy(&mut from, &mut to);
            let _told = to.shutdown(Shutdown::Write);
        });
    }
}
