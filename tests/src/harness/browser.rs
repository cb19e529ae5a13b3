//! Chromium without a screen, for what a page's script does. It is spoken to in the DevTools protocol over two FIFOs
//! (`--remote-debugging-pipe`): JSON with a zero byte behind each message, and no port that anybody else could reach.
//!
//! Nothing here waits for a time: a page is waited for by the event of its load, what a script changes by an observer in
//! the page itself, and both give up after [`STUCK`].

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Instant;

use base64::Engine;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Process, STUCK, Server, fifo, programs};

/// A page that loads itself again takes its script's world with it; more often than this it is not asked again.
const ASKED_MAX: usize = 20;

/// A browser with one tab. It trusts the key of one server and finds no name at all.
#[derive(Debug)]
pub struct Browser {
    process: Process,
    orders: File,
    told: File,
    /// Told and not yet taken apart.
    rest: Vec<u8>,
    /// Events that nobody has asked for yet.
    events: VecDeque<Value>,
    last_id: u64,
    session: Option<String>,
}

impl Browser {
    /// Starts one that takes the certificate of `server`, and opens a tab.
    pub fn start(server: &Server) -> Browser {
        let folder = server.beside("browser");
        std::fs::create_dir(&folder).expect("the folder is ours");
        let script = folder.join("chromium.sh");
        programs::write_program(&script, include_str!("chromium.sh"));
        let (orders, told) = (fifo(&folder.join("orders")), fifo(&folder.join("told")));
        let mut command = Command::new(&script);
        command
            .arg(&folder)
            .args(["--headless", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu"])
            // Whoever is root, as in a container, cannot have Chromium's sandbox; it loads nothing but our own pages.
            .args(["--no-sandbox", "--disable-dev-shm-usage"])
            // It asks its maker for nothing, and could not find it.
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--disable-default-apps", "--disable-breakpad", "--no-proxy-server"])
            .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.*")
            .arg(format!("--ignore-certificate-errors-spki-list={}", key_of(server)))
            .arg(format!("--user-data-dir={}", folder.join("profile").display()))
            .env_clear()
            .env("HOME", &folder)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let process = Process::start("chromium (Debian's package of that name)", &mut command);
        let (rest, events) = (Vec::new(), VecDeque::new());
        let mut browser = Browser { process, orders, told, rest, events, last_id: 0, session: None };
        let tab = browser.must("Target.createTarget", &json!({"url": "about:blank"}));
        let tab = json!({"targetId": tab["targetId"], "flatten": true});
        let session = browser.must("Target.attachToTarget", &tab);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.must(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&mut self, url: &str) {
        let went = self.must("Page.navigate", &json!({"url": url}));
        assert!(went.get("errorText").is_none(), "opening {url}: {went}");
        self.wait_loaded();
    }

    /// Waits for the next load of a page.
    pub fn wait_loaded(&mut self) {
        loop {
            let event = self.events.pop_front().unwrap_or_else(|| self.next_message());
            if let Some(wrong) = wrong_of(&event) {
                panic!("the page: {wrong}");
            }
            if event["method"] == "Page.loadEventFired" {
                return;
            }
        }
    }

    /// The value of an expression in the page. It is asked for again where the page loads itself anew meanwhile.
    pub fn read(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        for _ in 0..ASKED_MAX {
            match self.call("Runtime.evaluate", &asked) {
                Ok(answer) => {
                    let thrown = answer.get("exceptionDetails");
                    assert!(thrown.is_none(), "{expression}: {thrown:?}");
                    return answer["result"]["value"].clone();
                }
                Err(_its_world_is_gone) => self.wait_loaded(),
            }
        }
        panic!("the page is never there long enough for {expression}");
    }

    /// The text of an element.
    pub fn text(&mut self, selector: &str) -> String {
        let text = self.read(&format!("document.querySelector({selector:?}).textContent"));
        text.as_str().map(str::to_owned).expect("a text is a string")
    }

    /// Types into an element.
    pub fn type_into(&mut self, selector: &str, text: &str) {
        self.read(&format!("document.querySelector({selector:?}).focus()"));
        self.must("Input.insertText", &json!({"text": text}));
    }

    /// Clicks an element, and waits for the page that this leads to.
    pub fn follow(&mut self, selector: &str) {
        self.read(&format!("document.querySelector({selector:?}).click()"));
        self.wait_loaded();
    }

    /// Waits until an element's text holds `part`, looking again with each change of the page.
    pub fn wait_for_text(&mut self, selector: &str, part: &str) {
        let observed = format!(
            "new Promise((done) => {{
               const look = () => {{
                 const found = document.querySelector({selector:?});
                 if (found && found.textContent.includes({part:?})) {{ observer.disconnect(); done(true); }}
               }};
               const observer = new MutationObserver(look);
               observer.observe(document, {{ subtree: true, childList: true, characterData: true }});
               look();
             }})"
        );
        self.read(&observed);
    }

    /// Everything that a page or its script did wrong since it was asked last.
    pub fn wrong(&mut self) -> Vec<String> {
        self.events.drain(..).filter_map(|event| wrong_of(&event)).collect()
    }

    /// Ends it in order.
    pub fn close(mut self) {
        self.session = None;
        self.must("Browser.close", &json!({}));
        self.process.wait();
    }

    fn must(&mut self, method: &str, parameters: &Value) -> Value {
        self.call(method, parameters).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// One call. Events that come before its answer are kept.
    fn call(&mut self, method: &str, parameters: &Value) -> Result<Value, Value> {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let bytes = format!("{message}\0");
        self.orders.write_all(bytes.as_bytes()).expect("a FIFO holds one small message");
        loop {
            let mut message = self.next_message();
            if message["id"] == self.last_id {
                return match message.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok(message["result"].take()),
                };
            }
            self.events.push_back(message);
        }
    }

    fn next_message(&mut self) -> Value {
        let until = Instant::now() + STUCK;
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == 0) {
                let message: Vec<u8> = self.rest.drain(..=end).collect();
                return serde_json::from_slice(&message[..end]).expect("the protocol is JSON");
            }
            // Asked before reading: what it told before it ended is there by then.
            let may_tell_more = self.process.is_alive();
            let mut bytes = [0; 65_536];
            if let Ok(count) = self.told.read(&mut bytes) {
                self.rest.extend_from_slice(&bytes[..count]);
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && may_tell_more, "the browser tells nothing more");
            let left = Timespec::try_from(left).expect("two minutes fit");
            let readable = [Some(self.told.as_fd()), self.process.end()].into_iter().flatten();
            let mut readable: Vec<_> =
                readable.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            // An interrupted poll is one more turn.
            let _ready = poll(&mut readable, Some(&left));
        }
    }
}

/// What an event says that went wrong.
fn wrong_of(event: &Value) -> Option<String> {
    let parameters = &event["params"];
    let is_wrong = match event["method"].as_str()? {
        "Runtime.exceptionThrown" => true,
        "Runtime.consoleAPICalled" => {
            ["error", "warning", "assert"].iter().any(|one| parameters["type"] == *one)
        }
        "Log.entryAdded" => ["error", "warning"].iter().any(|one| parameters["entry"]["level"] == *one),
        _other => false,
    };
    is_wrong.then(|| parameters.to_string())
}

/// SHA-256 of the key of a server's certificate, in base64: what Chromium calls a pin.
fn key_of(server: &Server) -> String {
    let pem = std::fs::read(server.data().join("tls/current.pem")).expect("the server has a certificate");
    let certificate = CertificateDer::from_pem_slice(&pem).expect("the file holds a certificate");
    base64::engine::general_purpose::STANDARD.encode(Sha256::digest(public_key_info(&certificate)))
}

/// The SubjectPublicKeyInfo of a certificate (RFC 5280, 4.1): the seventh part of its first part, where the first is
/// the version.
fn public_key_info(certificate: &[u8]) -> &[u8] {
    let (_, certificate, _) = der(certificate);
    let (_, mut parts, _) = der(certificate);
    for _before in 0..6 {
        (_, _, parts) = der(parts);
    }
    der(parts).0
}

/// The first element of a text in DER: all of it, its content, and what follows it.
fn der(bytes: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let short = usize::from(bytes[1]);
    let (head, length) = match short.checked_sub(0x80) {
        None => (2, short),
        Some(count) => {
            (2 + count, bytes[2..2 + count].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
        }
    };
    let (element, rest) = bytes.split_at(head + length);
    (element, &element[head..], rest)
}
