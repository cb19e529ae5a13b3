//! Rotates the certificate: announces the next one in every answer, and serves it once every agent that was seen in
//! the last seven days has said that it knows it, after ten minutes at the earliest ([`App::announcing_ms_left`]).
//!
//! The next certificate is a file that `groundcrewd certificate rotate` makes, so a rotation needs no connection to
//! the server and goes on after a restart. `GET /api/v1/certificate` says which agents it waits for.

use std::sync::Arc;

use super::Passed;
use crate::api::app::App;

/// Runs that are named in the status of a rotation.
const NAMED_MAX: usize = 20;

/// A pass.
pub async fn pass(app: Arc<App>) -> Passed {
    let served = app.served.fingerprint();
    let (generation, _pins, _edition) = app.live.announced();
    let Some(next) = app.certificates.next()? else {
        app.live.announce(generation, vec![served.clone()]);
        return Ok(format!("serving {served}"));
    };
    if next.fingerprint == served {
        // A crash between serving it and taking the file away.
        app.certificates.promote_next()?;
        app.live.announce(generation, vec![served.clone()]);
        return Ok(format!("serving {served}"));
    }
    app.live.announce(generation, vec![served.clone(), next.fingerprint.clone()]);
    let without = app.agents_without(&next.fingerprint).await?;
    let left_s = app.announcing_ms_left(&next.fingerprint).div_ceil(1_000);
    if without.is_empty() && left_s == 0 {
        app.certificates.promote_next()?;
        let identity = app.certificates.current()?;
        let fingerprint = identity.fingerprint.clone();
        app.served.replace(identity);
        app.live.announce(generation, vec![fingerprint.clone()]);
        tracing::warn!(from = %served, to = %fingerprint, "serving the next certificate");
        return Ok(format!("serving {fingerprint}, which took the place of {served}"));
    }
    if without.is_empty() {
        return Ok(format!(
            "serving {served}; {} is announced and known to every agent that was heard; it is served in {left_s} s, as agents \
             that are refused ask again every few minutes",
            next.fingerprint
        ));
    }
    let count = without.len();
    let unclaimed = app.live.all().iter().filter(|live| live.state().claim.is_none()).count();
    let named: Vec<String> = without.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    Ok(format!(
        "serving {served}; {} is announced and waits for {count} agents: {}{}; {unclaimed} runs are not claimed yet, and \
         those made before the announcement need new kernel arguments (`groundcrewctl run token RUN`)",
        next.fingerprint,
        named.join(", "),
        if count > NAMED_MAX { ", …" } else { "" }
    ))
}
