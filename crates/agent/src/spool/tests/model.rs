//! The other side, as the design has it: a chunk is stored once per (stream, seq).

use std::collections::BTreeMap;

use groundcrew_protocol::ids::{ClaimNumber, RandomId};
use groundcrew_protocol::wire::{LogGap, LogRequest};

use super::super::{Answer, Message};

/// How a message was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    First,
    Repeated,
    Other,
}

impl Taken {
    pub(crate) fn answer(self) -> Answer {
        match self {
            Taken::First | Taken::Repeated => Answer::Taken,
            Taken::Other => Answer::OtherContent,
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// Chunks in the order in which they came first.
    chunks: Vec<LogRequest>,
    places: BTreeMap<(RandomId, u64), usize>,
}

impl Model {
    pub(crate) fn receive(&mut self, message: &Message) -> Taken {
        self.receive_body(&message.body(ClaimNumber(1)))
    }

    pub(crate) fn receive_body(&mut self, body: &[u8]) -> Taken {
        let mut request: LogRequest = serde_json::from_slice(body).unwrap();
        // Another claim does not make it another chunk.
        request.claim = ClaimNumber(0);
        let key = (request.stream.clone().unwrap(), request.seq);
        match self.places.get(&key) {
            Some(at) if self.chunks[*at] == request => Taken::Repeated,
            Some(_) => Taken::Other,
            None => {
                self.places.insert(key, self.chunks.len());
                self.chunks.push(request);
                Taken::First
            }
        }
    }

    /// Something else is there already, and holds no lines.
    pub(crate) fn put_other(&mut self, message: &Message) {
        let mut request: LogRequest = serde_json::from_slice(&message.body(ClaimNumber(0))).unwrap();
        request.lines.clear();
        self.places.insert((request.stream.clone().unwrap(), request.seq), self.chunks.len());
        self.chunks.push(request);
    }

    /// All texts in order.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.chunks.iter().flat_map(|chunk| chunk.lines.iter().map(|line| line.text.clone())).collect()
    }

    pub(crate) fn gaps(&self) -> Vec<LogGap> {
        self.chunks.iter().filter_map(|chunk| chunk.gap.clone()).collect()
    }

    pub(crate) fn streams(&self) -> usize {
        let ids: std::collections::BTreeSet<_> = self.places.keys().map(|(stream, _)| stream).collect();
        ids.len()
    }

    fn by_stream(&self) -> BTreeMap<&RandomId, Vec<&LogRequest>> {
        let mut streams: BTreeMap<&RandomId, Vec<&LogRequest>> = BTreeMap::new();
        for ((stream, _), at) in &self.places {
            streams.entry(stream).or_default().push(&self.chunks[*at]);
        }
        streams
    }

    /// Every stream counts from 0 without a hole up to its closing mark.
    pub(crate) fn check_whole(&self) {
        for chunks in self.by_stream().values() {
            assert!(chunks.iter().enumerate().all(|(at, chunk)| chunk.seq == at as u64));
            assert!(chunks.iter().rev().skip(1).all(|chunk| !chunk.closes));
            assert!(chunks.last().unwrap().closes);
        }
    }

    /// Where numbers are missing, the chunk behind says how many, and nowhere else.
    pub(crate) fn check_gaps_add_up(&self) {
        for chunks in self.by_stream().values() {
            let mut expected = 0;
            for chunk in chunks {
                let missing = chunk.seq - expected;
                let told = chunk.gap.as_ref().map_or(0, |gap| gap.chunks);
                assert_eq!(missing, told, "in front of chunk {}", chunk.seq);
                assert!(missing == 0 || chunk.gap.as_ref().is_some_and(|gap| gap.bytes > 0));
                expected = chunk.seq + 1;
            }
            assert!(chunks.last().unwrap().closes);
        }
    }
}
