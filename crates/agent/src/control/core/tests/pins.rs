//! Which answers say what counts of the certificates.

use super::*;

/// Makes an answer that tells of these certificates.
type Answers<'a> = &'a dyn Fn(&[Sha256Hex]) -> Event;

#[test]
fn only_answers_to_heartbeats_say_which_certificates_count_no_more() {
    let [old, new] = [1, 2].map(|byte| Sha256Hex::of(&[byte]));
    let settings = [old.clone()];
    let hello = |pins: &[Sha256Hex]| {
        let pins = pins.to_vec();
        let answer = HelloAnswer { protocol: 2, generation: Generation(1), server_time: WallMs(0), pins };
        Event::Answered(Ok(Reply::Hello(answer)))
    };
    let claim = |pins: &[Sha256Hex]| {
        let answer = ClaimAnswer { pins: pins.to_vec(), ..claim_answer("CPUStress", 1) };
        Event::Answered(Ok(Reply::Claim(Box::new(answer))))
    };
    let header = |pins: &[Sha256Hex]| Event::Announced(pins.to_vec());
    let beat = |pins: &[Sha256Hex]| {
        let answer = HeartbeatAnswer { pins: pins.to_vec(), ..HeartbeatAnswer::default() };
        Event::Heartbeat { claim: ClaimNumber(3), answered: Ok(Box::new(answer)) }
    };
    let (one, both) = (std::slice::from_ref(&old), [old.clone(), new.clone()]);
    let late: [(&str, Answers<'_>); 3] = [("hello", &hello), ("claim", &claim), ("header", &header)];
    for (what, late) in late {
        let mut agent = Loop::new(facts(), memory().under_settings(&settings));
        // One that was under way when the rotation was announced takes nothing away of what was announced since.
        assert!(agent.core.hear_pins(&header(&both)), "{what}");
        assert!(!agent.core.hear_pins(&late(one)), "{what}");
        assert_eq!(agent.core.memory().pins_beside(&[]), both, "{what}");
        // Nor at the end does what is served alone, in one that comes before the heartbeat that ends it.
        let ended = std::slice::from_ref(&new);
        assert!(!agent.core.hear_pins(&late(ended)), "{what}");
        assert_eq!(agent.core.memory().pins_beside(&[]), both, "{what}");
        assert!(agent.core.hear_pins(&beat(ended)), "{what}");
        assert_eq!(agent.core.memory().pins_beside(&settings), ended, "{what}");
        // And one from before the end brings back nothing.
        assert!(!agent.core.hear_pins(&late(&both)), "{what}");
        assert_eq!(agent.core.memory().pins_beside(&settings), ended, "{what}");
        // What changed goes to disk with the next step.
        let actions = agent.core.step(Event::Tick, 1_000);
        let stored = actions.iter().rev().find_map(|action| match action {
            Action::Persist(memory) => Some(memory.pins.clone()),
            _ => None,
        });
        assert_eq!(stored.as_deref(), Some(ended), "{what}");
    }
}
