//! Who did what can be read, newest first and page by page.

use serde_json::json;

use crate::bench::Bench;

#[tokio::test]
async fn the_audit_trail_is_read_newest_first_and_page_by_page() {
    let bench = Bench::start().await;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI ann@desk";
    bench.order("PUT", "/api/v1/hold-key", json!({ "authorized_key": key })).await.expect(200);
    bench.order("PUT", "/api/v1/hold-key", json!({ "authorized_key": null })).await.expect(200);
    let (run, _boot) = bench.make_run("n1").await;
    let whole = bench.order("GET", "/api/v1/audit?limit=500", json!(null)).await.expect(200);
    let rows = whole["rows"].as_array().unwrap().clone();
    assert_eq!((&rows[0]["action"], &rows[0]["run"]), (&json!("create_run"), &json!(run)));
    let of_key: Vec<&str> = rows
        .iter()
        .filter(|row| row["action"] == "put_hold_key")
        .map(|row| row["text"].as_str().unwrap())
        .collect();
    assert_eq!(of_key, ["taken away", key]);
    assert!(whole.get("next").is_none_or(|next| next.is_null()));
    // Page by page the same.
    let (mut seen, mut path) = (Vec::new(), "/api/v1/audit?limit=2".to_owned());
    loop {
        let page = bench.order("GET", &path, json!(null)).await.expect(200);
        seen.extend(page["rows"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_u64() else { break };
        path = format!("/api/v1/audit?limit=2&after={next}");
    }
    assert_eq!(seen, rows);
    bench.order("GET", "/api/v1/audit?limit=0", json!(null)).await.expect_error(400, "bad", &["limit"]);
}
