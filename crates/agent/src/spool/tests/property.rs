//! Random orders of lines, waits, losses, repetitions and restarts.

use std::time::{Duration, Instant};

use groundcrew_protocol::limits::LOG_LINE_BYTES_MAX;
use proptest::prelude::*;

use super::model::{Model, Taken};
use super::{Answer, MIB, Message, Spool, is_empty, line, open};

/// What a property test does to a spool.
#[derive(Debug, Clone)]
enum Step {
    /// Appends lines of this length.
    Append {
        lines: usize,
        bytes: usize,
    },
    /// Time passes.
    Wait(u64),
    /// Sends up to so many messages, each with this fate.
    Send(Vec<Fate>),
    /// An old message arrives once more.
    Echo(prop::sample::Index),
    /// The process is killed and starts again.
    Restart,
    Sync,
    Finish,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Answered,
    AnswerLost,
    MessageLost,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fate =
        prop_oneof![3 => Just(Fate::Answered), 1 => Just(Fate::AnswerLost), 1 => Just(Fate::MessageLost)];
    let step = prop_oneof![
        6 => (1..8usize, prop_oneof![1..50usize, 1000..LOG_LINE_BYTES_MAX])
            .prop_map(|(lines, bytes)| Step::Append { lines, bytes }),
        3 => (0..5_000u64).prop_map(Step::Wait),
        4 => prop::collection::vec(fate, 1..8).prop_map(Step::Send),
        1 => any::<prop::sample::Index>().prop_map(Step::Echo),
        2 => Just(Step::Restart),
        1 => Just(Step::Sync),
        1 => Just(Step::Finish),
    ];
    prop::collection::vec(step, 1..60)
}

/// What the test knows: the spool, the other side, and every text that was appended.
struct World {
    home: tempfile::TempDir,
    spool: Option<Spool>,
    bytes_max: u64,
    model: Model,
    sent: Vec<Message>,
    appended: Vec<String>,
    now: Instant,
}

impl World {
    fn new(bytes_max: u64) -> World {
        let home = tempfile::tempdir().unwrap();
        let spool = Some(open(home.path(), bytes_max));
        let (model, now) = (Model::default(), Instant::now());
        World { home, spool, bytes_max, model, sent: Vec::new(), appended: Vec::new(), now }
    }

    fn spool(&self) -> &Spool {
        self.spool.as_ref().unwrap()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append { lines, bytes } => {
                for _ in 0..*lines {
                    let text = format!("{:06}{}", self.appended.len(), "x".repeat(*bytes - 1));
                    let text = text[..text.len().min(LOG_LINE_BYTES_MAX)].to_owned();
                    self.spool().append_line_at(&line(text.clone()), self.now).unwrap();
                    self.appended.push(text);
                }
            }
            Step::Wait(ms) => self.now += Duration::from_millis(*ms),
            Step::Send(fates) => fates.iter().for_each(|fate| self.send(*fate)),
            Step::Echo(index) => {
                if !self.sent.is_empty() {
                    let taken = self.model.receive(index.get(&self.sent));
                    assert_eq!(taken, Taken::Repeated);
                }
            }
            Step::Restart => {
                self.spool = None;
                self.spool = Some(open(self.home.path(), self.bytes_max));
            }
            Step::Sync => self.spool().sync().unwrap(),
            Step::Finish => {
                self.spool().finish();
            }
        }
    }

    fn send(&mut self, fate: Fate) {
        let Some(message) = self.spool().next_message(self.now).unwrap() else { return };
        if matches!(fate, Fate::MessageLost) {
            return;
        }
        let taken = self.model.receive(&message);
        assert_ne!(taken, Taken::Other, "the same chunk had two contents: {message:?}");
        self.sent.push(message.clone());
        if matches!(fate, Fate::Answered) {
            self.spool().answered(&message, Answer::Taken).unwrap();
        }
    }

    /// Ends in order: everything is sent.
    fn end(&mut self) {
        self.spool().finish();
        while self.spool().status().streams > 0 {
            self.send(Fate::Answered);
        }
        assert!(is_empty(self.home.path()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_line_arrives_once_in_order_and_every_stream_is_closed(steps in steps()) {
        let mut world = World::new(64 * MIB);
        steps.iter().for_each(|step| world.step(step));
        world.end();
        prop_assert_eq!(world.model.lines(), world.appended);
        prop_assert!(world.model.gaps().is_empty());
        world.model.check_whole();
    }
}

proptest! {
    // Each case writes megabytes and syncs hundreds of times.
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn past_the_limit_head_and_tail_stay_and_the_gap_says_its_size(
        steps in steps(),
        rounds in 1..4usize,
    ) {
        let mut world = World::new(192 * 1024);
        for _ in 0..rounds {
            steps.iter().for_each(|step| {
                world.step(step);
                let status = world.spool().status();
                // Head, tail and the chunk that is open may lie above the limit.
                prop_assert_bounded(status.bytes, 192 * 1024);
            });
        }
        world.end();
        let lines = world.model.lines();
        // In order, none doubled, none invented.
        let mut rest = world.appended.iter();
        for line in &lines {
            prop_assert!(rest.any(|appended| appended == line), "{} is doubled or out of order", &line[..6]);
        }
        prop_assert_eq!(lines.first(), world.appended.first());
        prop_assert_eq!(lines.last(), world.appended.last());
        world.model.check_gaps_add_up();
        if lines.len() < world.appended.len() {
            prop_assert!(!world.model.gaps().is_empty());
        }
    }
}

fn prop_assert_bounded(bytes: u64, bytes_max: u64) {
    assert!(bytes <= bytes_max + 3 * 128 * 1024, "{bytes} bytes on the disk");
}
