//! The OpenAPI document of everything under `/api/v1`, made from the handlers themselves.
//!
//! It is committed as `docs/openapi.json`; a test says when that is stale.

use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Groundcrew orchestrator",
        description = "What agents and operators call. Errors are always an ErrorBody. Every call needs a token but \
            /healthz, which says nothing but that the server answers. While a rotation of the certificate is announced \
            every answer, a refusal too, has the header `groundcrew-pins`: the SHA-256 of what is served and of what will be, \
            with a comma between two.",
        version = "1"
    ),
    modifiers(&Tokens),
    paths(
        super::claim::hello, super::claim::claim, super::heartbeat::heartbeat, super::result::intent,
        super::result::result, super::hold::hold, super::logs::log, super::sensors::sensor,
        super::sensors::put_artifact, super::run_packages::fetch_package, super::runs::runs, super::runs::create_run,
        super::runs::get_run,
        super::runs::delete_run, super::runs::reissue_token, super::events::events, super::logs::logs,
        super::reports::report, super::sensors::artifacts, super::sensors::get_artifact, super::orders::retry,
        super::orders::override_verdict, super::orders::cancel, super::orders::release, super::orders::abort,
        super::nodes::nodes, super::nodes::get_node, super::nodes::put_node, super::nodes::delete_node,
        super::agents::agents, super::drains::drains, super::drains::add_drain, super::drains::end_drains,
        super::nodes::profiles, super::nodes::get_profile, super::nodes::put_profile, super::nodes::delete_profile,
        super::packages::packages, super::packages::get_package, super::packages::put_package,
        super::packages::delete_package, super::tokens::tokens, super::tokens::add_token, super::tokens::revoke_token,
        super::hold_key::get_hold_key, super::hold_key::put_hold_key,
        super::hold_key::list_hold_keys, super::hold_key::register_hold_key, super::hold_key::delete_hold_key,
        super::hold::hand_out, super::tasks::tasks,
        super::tasks::certificate, super::audit::audit, super::metrics::metrics, super::metrics::healthz,
    )
)]
struct Document;

struct Tokens;

impl utoipa::Modify for Tokens {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        for (name, what) in [
            ("boot", "The boot token of the run (gcb_…): good for hello and claim"),
            ("run", "The run token of the run (gcr_…), made by its agent"),
            ("operator", "An operator's token (gco_…)"),
        ] {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(what)).build();
            components.add_security_scheme(name, SecurityScheme::Http(scheme));
        }
    }
}

/// The document, as it is committed: indented, with a newline at the end.
pub fn document() -> String {
    let mut text = Document::openapi().to_pretty_json().expect("our own types serialise");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// Renews with: `cargo run -p groundcrew-orchestrator -- openapi > docs/openapi.json`
    #[test]
    fn the_committed_document_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == super::document(),
            "docs/openapi.json is stale; renew it with `cargo run -p groundcrew-orchestrator -- openapi > docs/openapi.json`"
        );
    }

    #[test]
    fn every_route_is_in_the_document_and_the_other_way_round() {
        let document: serde_json::Value = serde_json::from_str(&super::document()).unwrap();
        let documented: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().unwrap().keys();
                methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
            })
            .collect();
        let routed: BTreeSet<(String, String)> = crate::api::routes()
            .iter()
            .map(|route| (route.method.to_string(), route.path.to_owned()))
            .collect();
        assert_eq!(routed, documented);
    }
}
