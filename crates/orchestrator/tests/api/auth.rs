//! Who may call what: every route with every kind of token.

use axum::body::Body;
use groundcrew_orchestrator::api::auth::COOKIE;
use groundcrew_orchestrator::api::{self, Access};
use groundcrew_orchestrator::dashboard;
use http::StatusCode;
use serde_json::json;

use crate::bench::{Bench, request};

#[tokio::test]
async fn every_route_lets_in_whom_it_should_and_nobody_else() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let other = bench.make_agent("n2").await;
    let revoked = bench.order("POST", "/api/v1/tokens", json!({ "name": "eve" })).await.expect(201);
    bench.order("DELETE", "/api/v1/tokens/eve", json!(null)).await.expect(204);
    let mut routes = api::routes();
    routes.extend(dashboard::routes());
    let none = &[][..];
    // The operator comes last: what an operator may do can change what the others may.
    let callers = [
        ("nobody", None, none),
        ("a stranger", Some("gco_nonsense"), none),
        ("a revoked operator", revoked["token"].as_str(), none),
        ("the run's boot token", Some(agent.boot.as_str()), &[Access::Boot][..]),
        ("the run's agent", Some(agent.token.as_str()), &[Access::Boot, Access::Agent][..]),
        ("another run's boot token", Some(other.boot.as_str()), none),
        ("another run's agent", Some(other.token.as_str()), none),
        ("an operator", Some(bench.operator.as_str()), &[Access::Operator][..]),
    ];
    for (who, token, may) in callers {
        for route in &routes {
            let path =
                route.path.replace("{run}", &agent.run).replace("{name}", "nobody").replace("{version}", "1");
            let call = request(route.method.as_str(), &path, token).body(Body::empty()).unwrap();
            let status = bench.open(call).await.status();
            let let_in = route.access == Access::Open || may.contains(&route.access);
            let what = format!("{} {} as {who}: {status}", route.method, route.path);
            // The login answers 401 to whoever sends no token in its form, and lets nobody in.
            if route.path == "/login" && route.method == http::Method::POST {
                assert_eq!(status, StatusCode::UNAUTHORIZED, "{what}");
                continue;
            }
            assert_eq!(status != StatusCode::UNAUTHORIZED, let_in, "{what}");
            assert!(!status.is_server_error(), "{what}");
        }
    }
}

#[tokio::test]
async fn a_refusal_says_how_to_go_on() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let answer = bench.call("GET", "/api/v1/runs", None, Body::empty()).await;
    answer.expect_error(401, "token", &["Authorization: Bearer gco_", "groundcrewd token add"]);
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    let answer = bench.call("POST", &agent.path("heartbeat"), Some(&agent.boot), "{}").await;
    answer.expect_error(401, "token", &["run token", "Claim the run"]);
    let answer = bench.call("POST", &agent.path("claim"), Some("gcb_no"), "{}").await;
    answer.expect_error(401, "token", &["boot token", "groundcrewctl run token"]);
}

#[tokio::test]
async fn a_run_that_never_was_is_404_and_a_deleted_one_410() {
    let bench = Bench::start().await;
    let agent = bench.make_agent("n1").await;
    let answer = bench.call("POST", "/api/v1/runs/r-none/hello", Some(&agent.boot), "{}").await;
    answer.expect_error(404, "none", &["r-none"]);
    let path = format!("/api/v1/runs/{}", agent.run);
    bench.order("DELETE", &path, json!(null)).await.expect_error(409, "in_use", &[]);
    bench.order("POST", &agent.path("cancel"), json!({})).await.expect(200);
    bench.order("DELETE", &path, json!(null)).await.expect(204);
    agent.beat(&bench, json!({})).await.expect_error(410, "gone", &["deleted"]);
    bench.order("GET", &path, json!(null)).await.expect_error(410, "gone", &[]);
}

#[tokio::test]
async fn a_cookie_may_read_and_change_nothing() {
    let bench = Bench::start().await;
    let form = format!("token={}", bench.operator);
    let login = bench.call("POST", "/login", None, form).await;
    assert_eq!(login.status, StatusCode::SEE_OTHER);
    let cookie = login.headers["set-cookie"].to_str().unwrap().to_owned();
    for word in ["HttpOnly", "Secure", "SameSite=Strict"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    let pair = cookie.split(';').next().unwrap().to_owned();
    assert!(pair.starts_with(&format!("{COOKIE}=")) && cookie.contains("Max-Age=43200"), "{cookie}");
    assert!(
        !cookie.contains(&bench.operator),
        "a cookie goes to every port of the host: the token is not in it"
    );
    let with_cookie = |method: &str, path: &str| {
        request(method, path, None).header("cookie", format!("a=b; {pair}")).body(Body::from("{}")).unwrap()
    };
    assert_eq!(bench.send(with_cookie("GET", "/api/v1/runs")).await.status, StatusCode::OK);
    assert_eq!(bench.send(with_cookie("GET", "/")).await.status, StatusCode::OK);
    bench.send(with_cookie("POST", "/api/v1/tokens")).await.expect_error(401, "token", &[]);
    // What is in the cookie is no token, and ends with a logout.
    let session = pair.split_once('=').unwrap().1;
    bench.call("GET", "/api/v1/runs", Some(session), Body::empty()).await.expect_error(401, "token", &[]);
    bench.send(with_cookie("POST", "/logout")).await;
    assert_eq!(bench.send(with_cookie("GET", "/api/v1/runs")).await.status, StatusCode::UNAUTHORIZED);
    let wrong = bench.call("POST", "/login", None, "token=gco_no").await;
    assert_eq!((wrong.status, wrong.headers.get("set-cookie")), (StatusCode::UNAUTHORIZED, None));
}

#[tokio::test]
async fn tokens_are_made_listed_and_taken_back() {
    let bench = Bench::start().await;
    let made = bench.order("POST", "/api/v1/tokens", json!({ "name": "ann" })).await.expect(201);
    let token = made["token"].as_str().unwrap();
    assert_eq!(bench.call("GET", "/api/v1/runs", Some(token), Body::empty()).await.status, StatusCode::OK);
    bench.order("POST", "/api/v1/tokens", json!({ "name": "ann" })).await.expect_error(409, "exists", &[]);
    let bad = bench.order("POST", "/api/v1/tokens", json!({ "name": "deadline" })).await;
    bad.expect_error(422, "unfit", &["name"]);
    bench.order("DELETE", "/api/v1/tokens/ann", json!(null)).await.expect(204);
    bench.call("GET", "/api/v1/runs", Some(token), Body::empty()).await.expect_error(401, "token", &[]);
    bench.order("DELETE", "/api/v1/tokens/admin", json!(null)).await.expect_error(409, "in_use", &[]);
    let listed = bench.order("GET", "/api/v1/tokens", json!(null)).await.expect(200);
    assert!(!listed.to_string().contains(&token[4..]), "{listed}");
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["admin", "ann"]);
    // A name that is free again gets a token of its own, and the revoked one stays bad.
    let again = bench.order("POST", "/api/v1/tokens", json!({ "name": "ann" })).await.expect(201);
    let second = again["token"].as_str().unwrap();
    assert_ne!(second, token);
    assert_eq!(bench.call("GET", "/api/v1/runs", Some(second), Body::empty()).await.status, StatusCode::OK);
    bench.call("GET", "/api/v1/runs", Some(token), Body::empty()).await.expect_error(401, "token", &[]);
}
