//! Packages of runs: frozen when a run is made, kept for as long as it goes on, and fetched by its agent.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use groundcrew_protocol::ids::{PackageName, PackageVersion};
use groundcrew_protocol::profile::Profile;
use groundcrew_protocol::wire::ErrorBody;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::app::App;
use super::auth::Agent;
use super::error::ApiError;
use super::packages::{blocking, ids};

/// Of the runs that use a package this many are named.
const NAMED_MAX: u32 = 5;
/// Bytes of an archive that are read at a time: what each download under way holds in memory.
const PART_BYTES: u64 = 256 * 1024;

/// A profile as a run keeps it: each stored package with its sum. Hold [`App::packages`] until the run is made.
///
/// # Errors
/// 422 where one is not stored, or is stored with another sum than the profile names.
pub async fn frozen(app: &App, mut profile: Profile) -> Result<Profile, ApiError> {
    for (index, package) in profile.packages.iter_mut().enumerate() {
        if !package.is_stored() {
            continue;
        }
        let (name, version) = (&package.name, &package.version);
        let place = format!("the profile's package[{}]", index + 1);
        let Some(stored) = app.store.package(name, version).await? else {
            let how = format!(
                "store it with `groundcrewctl package put {name} {version} FILE`, or name its folder on the node as path"
            );
            return Err(ApiError::unfit(format!("{place}: {name} {version} is not stored here; {how}")));
        };
        if let Some(wanted) = package.sha256.as_ref().filter(|wanted| **wanted != stored.sha256) {
            return Err(ApiError::unfit(format!(
                "{place}: {name} {version} is stored with SHA-256 {}, expected {wanted}",
                stored.sha256
            )));
        }
        package.sha256 = Some(stored.sha256);
    }
    Ok(profile)
}

/// 409 where a run that has not ended uses a package. Hold [`App::packages`] to write.
pub async fn expect_unused(app: &App, name: &PackageName, version: &PackageVersion) -> Result<(), ApiError> {
    let users = app.store.package_users(name, version, NAMED_MAX).await?;
    if users.count == 0 {
        return match app.store.knows_package_users().await? {
            true => Ok(()),
            false => Err(ApiError::conflict(
                "in_use",
                format!(
                    "nobody can tell whether package {name} {version} is used: a run of an older version that has not ended \
                     cannot be read. The server's log names it, as a run left out"
                ),
            )),
        };
    }
    let named = users.named.iter().map(|run| run.as_str()).collect::<Vec<_>>().join(", ");
    let more = users.count - users.named.len() as u64;
    let rest = if more > 0 { format!(" and {more} others") } else { String::new() };
    Err(ApiError::conflict(
        "in_use",
        format!(
            "package {name} {version} is used by what has not ended: {named}{rest}. Delete it once that has"
        ),
    ))
}

/// The archive of a package of the run, as the run has frozen it: all of it, or the rest from a byte on (`Range: bytes=N-`).
#[utoipa::path(get, path = "/api/v1/runs/{run}/package/{name}/{version}", tag = "agent", security(("run" = [])),
    params(("run" = String, Path, description = "Id of the run"), ("name" = String, Path, description = "Its name"),
        ("version" = String, Path, description = "Its version")),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "The rest of it", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 416, description = "It has no such byte", body = ErrorBody), (status = "4XX", body = ErrorBody)))]
pub async fn fetch_package(
    State(app): State<Arc<App>>,
    agent: Agent,
    Path((_run, name, version)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (name, version) = ids(&name, &version)?;
    let (run, _version) = app.run(&agent.run.id).await?;
    let mut packages = run.profile.stored_packages();
    let package = packages.find(|package| package.name == name && package.version == version);
    let none = || ApiError::none(format!("run {} has no package {name} {version} from this store", run.id));
    let sha256 = package.and_then(|package| package.sha256.as_ref()).ok_or_else(none)?;
    let Some((file, bytes)) = app.store.open_package(sha256).await? else {
        return Err(ApiError::none(format!(
            "the archive of package {name} {version}, SHA-256 {sha256}, is gone from this store; put it again"
        )));
    };
    let from = first_byte(&headers);
    let first = from.unwrap_or(0);
    if first >= bytes {
        let error = format!("package {name} {version} has {bytes} bytes, and none from byte {first} on");
        return Err(ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "range", error));
    }
    let file = blocking(move || {
        let mut file = file;
        let at = file.seek(SeekFrom::Start(first));
        at.map_err(|error| ApiError::internal("reading the archive of a package", &error)).map(|_at| file)
    });
    let mut response = Response::new(Body::from_stream(parts(file.await?, bytes - first)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes - first));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(from) = from {
        let range = format!("bytes {from}-{}/{bytes}", bytes - 1);
        headers.insert(header::CONTENT_RANGE, HeaderValue::try_from(range).expect("digits fit a header"));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// From which byte on, where a request says so. Any other form of a range is passed over, as a server may (RFC 9110,
/// section 14.2): then all of it comes.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(header::RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

/// So many bytes from where a file stands, read as they are sent. A file that turns out shorter breaks the answer off.
fn parts(file: File, left: u64) -> impl Stream<Item = std::io::Result<Bytes>> {
    stream::try_unfold((file, left), |(file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let read = tokio::task::spawn_blocking(move || {
            let mut part = Vec::new();
            (&file).take(left.min(PART_BYTES)).read_to_end(&mut part).map(|_bytes| (file, part))
        });
        let (file, part) = read.await.map_err(std::io::Error::other)??;
        if part.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let left = left - part.len() as u64;
        Ok(Some((Bytes::from(part), (file, left))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_rest_from_a_byte_on_is_a_range_here() {
        let asked = |text: &str| first_byte(&HeaderMap::from_iter([(header::RANGE, text.parse().unwrap())]));
        assert_eq!((asked("bytes=0-"), asked("bytes=17-")), (Some(0), Some(17)));
        for other in
            ["bytes=0-5", "bytes=-5", "bytes=1-,3-", "lines=1-", "bytes=", "bytes=99999999999999999999-"]
        {
            assert_eq!(asked(other), None, "{other}");
        }
        assert_eq!(first_byte(&HeaderMap::new()), None);
    }
}
