//! A text that says nothing is none, wherever it is read.

use groundcrew_protocol::operator::Node;
use groundcrew_protocol::wire::{ClaimRequest, Hello};

#[test]
fn a_serial_that_was_left_empty_is_none() {
    let said = |serial: &str| {
        let node: Node = serde_json::from_str(&format!(r#"{{"name": "n1", "serial": {serial}}}"#)).unwrap();
        let claim: ClaimRequest = serde_json::from_str(&format!(r#"{{"serial": {serial}}}"#)).unwrap();
        let hello: Hello = serde_json::from_str(&format!(r#"{{"serial": {serial}}}"#)).unwrap();
        assert_eq!((&claim.serial, &hello.serial), (&node.serial, &node.serial));
        node.serial
    };
    for nothing in ["null", r#""""#, r#"" \t""#] {
        assert_eq!(said(nothing), None, "{nothing}");
    }
    assert_eq!(said(r#"" A1""#).as_deref(), Some(" A1"), "as it was said");
    let node: Node = serde_json::from_str(r#"{"name": "n1"}"#).unwrap();
    assert_eq!(node.serial, None);
    assert!(serde_json::from_str::<Node>(r#"{"name": "n1", "serial": 7}"#).is_err());
}
