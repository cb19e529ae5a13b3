//! Packages that operators store here: put, listed, shown and deleted.

use std::io::Read;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, Request, State};
use axum::response::Response;
use groundcrew_archive as archive;
use groundcrew_protocol::ids::{PackageName, PackageVersion, RandomId, Sha256Hex};
use groundcrew_protocol::limits::PACKAGE_BYTES_MAX;
use groundcrew_protocol::operator::{PackageList, PackageView};
use groundcrew_protocol::wire::ErrorBody;
use http::{StatusCode, header};
use http_body_util::BodyExt;
use serde::Deserialize;

use super::agent::expect_room;
use super::app::{App, finish};
use super::auth::{Operator, random};
use super::body::{Query, ok};
use super::error::ApiError;
use super::nodes::{PageQuery, audit, parse};
use super::run_packages;
use crate::causes;
use crate::live::clock::wall_now;
use crate::store::Upload;

/// Archives that are taken at a time: each holds a megabyte, and the disk has one head or one bus.
pub const UPLOADS_MAX: usize = 4;
/// Bytes that are written at a time.
const PART_BYTES: usize = 1024 * 1024;
/// An upload that is silent for this long is let go.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// And one that takes longer than this: the largest archive at 10 Mbit/s.
const UPLOAD_TIME_MAX: Duration = Duration::from_secs(3_600);
/// An archive that cannot be read in this time is not stored: the largest, unpacked at 15 MB/s. What is packed says nothing of
/// how long it takes, and each one that is read has a turn.
const INSPECT_TIME_MAX: Duration = Duration::from_secs(600);
/// Greatest config.json, as the package agent has it.
const CONFIG_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What the archive hashes to.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PutPackageQuery {
    /// SHA-256 of the archive. Where it is given, another content is refused.
    sha256: Option<String>,
}

pub(super) fn ids(name: &str, version: &str) -> Result<(PackageName, PackageVersion), ApiError> {
    Ok((parse("in the path", name)?, parse("in the path", version)?))
}

/// Packages, by name and version.
#[utoipa::path(get, path = "/api/v1/packages", tag = "packages", security(("operator" = [])), params(PageQuery),
    responses((status = 200, body = PackageList), (status = "4XX", body = ErrorBody)))]
pub async fn packages(
    State(app): State<Arc<App>>,
    _operator: Operator,
    Query(query): Query<PageQuery>,
) -> Result<Response, ApiError> {
    let after = match query.after() {
        None => None,
        Some(text) => {
            let (name, version) = text.split_once('/').unwrap_or((text, ""));
            Some((parse("query after", name)?, parse("query after, behind the slash", version)?))
        }
    };
    let limit = query.limit()?;
    let packages = app.store.packages(after.as_ref(), limit).await?;
    let last = packages.last().map(|last| format!("{}/{}", last.name, last.version));
    let next = last.filter(|_| packages.len() == limit as usize);
    Ok(ok(&PackageList { packages, next }))
}

/// A package.
#[utoipa::path(get, path = "/api/v1/packages/{name}/{version}", tag = "packages", security(("operator" = [])),
    params(("name" = String, Path, description = "Its name"), ("version" = String, Path, description = "Its version")),
    responses((status = 200, body = PackageView), (status = "4XX", body = ErrorBody)))]
pub async fn get_package(
    State(app): State<Arc<App>>,
    _operator: Operator,
    Path((name, version)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let (name, version) = ids(&name, &version)?;
    Ok(ok(&app.store.package(&name, &version).await?.ok_or_else(|| no_package(&name, &version))?))
}

fn no_package(name: &PackageName, version: &PackageVersion) -> ApiError {
    ApiError::none(format!("there is no package {name} {version}"))
}

/// Stores a package: a tar archive, plain or packed with gzip or zstd, with config.json at its top, of at most 4 GiB. The same
/// content again is answered as at first; other content under a stored name and version is refused, for what a version
/// holds never changes.
#[utoipa::path(put, path = "/api/v1/packages/{name}/{version}", tag = "packages", security(("operator" = [])),
    params(("name" = String, Path, description = "Its name"), ("version" = String, Path, description = "Its version"),
        PutPackageQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = PackageView), (status = "4XX", body = ErrorBody),
        (status = 507, description = "The disk is nearly full", body = ErrorBody)))]
pub async fn put_package(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path((name, version)): Path<(String, String)>,
    Query(query): Query<PutPackageQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    let (name, version) = ids(&name, &version)?;
    let announced: Option<Sha256Hex> =
        query.sha256.as_deref().map(|text| parse("query sha256", text)).transpose()?;
    if let (Some(stored), Some(sum)) = (app.store.package(&name, &version).await?, &announced) {
        // Nothing of the body is needed to say so, unless the file is gone for which the row stands.
        let file = app.store.open_package(&stored.sha256).await?;
        if stored.sha256 != *sum || file.is_some_and(|(_file, bytes)| bytes == stored.bytes) {
            return same_or_refused(stored, sum);
        }
    }
    expect_room(&app, "packages")?;
    let turn = app.uploads.clone().try_acquire_owned().map_err(|_none| {
        ApiError::not_now(format!("{UPLOADS_MAX} packages are being uploaded; send it again"))
    })?;
    let upload = app.store.begin_package(RandomId::from_bytes(random())).await?;
    let received = tokio::time::timeout(UPLOAD_TIME_MAX, receive(&app, upload, request));
    let upload = received.await.map_err(|_elapsed| slow(UPLOAD_TIME_MAX))??;
    let sha256 = upload.sha256();
    if let Some(announced) = announced.filter(|announced| *announced != sha256) {
        return Err(ApiError::unfit(format!(
            "the archive hashes to {sha256}, and was announced as {announced}; send it again"
        )));
    }
    // All of it is here. From now on it ends whether or not somebody waits for the answer, and its turn with it: what reads an
    // archive cannot be called back, and between the file and its row nothing may come.
    let sum = sha256.clone();
    let stored = finish(async move {
        let (upload, unpacked_bytes) = inspected(&app, upload, name.clone(), version.clone()).await?;
        let bytes = upload.bytes();
        let noted = audit(&operator, "put_package", format!("{name} {version}, SHA-256 {sha256}"));
        let (at, by) = (wall_now(), operator.name.to_string());
        let view = PackageView { name, version, sha256, bytes, unpacked_bytes, at, by };
        let stored = app.store.put_package(upload, view, noted).await;
        drop(turn);
        stored.map_err(ApiError::from)
    });
    same_or_refused(stored.await?, &sum)
}

fn same_or_refused(stored: PackageView, sha256: &Sha256Hex) -> Result<Response, ApiError> {
    if stored.sha256 == *sha256 {
        return Ok(ok(&stored));
    }
    Err(ApiError::conflict(
        "other_content",
        format!(
            "package {} {} is stored with SHA-256 {}, and what is sent has {sha256}: what a version holds never changes. \
             Give it another version, or delete the one that is stored",
            stored.name, stored.version, stored.sha256
        ),
    ))
}

fn slow(after: Duration) -> ApiError {
    let error = format!("the archive did not come within {} s", after.as_secs());
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "slow", error)
}

fn too_large() -> ApiError {
    let error = format!("the archive is larger than {PACKAGE_BYTES_MAX} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error)
}

/// Writes the body of a request to the disk, a part at a time.
async fn receive(app: &App, mut upload: Upload, request: Request) -> Result<Upload, ApiError> {
    let (parts, mut body) = request.into_parts();
    let declared = parts.headers.get(header::CONTENT_LENGTH).and_then(|text| text.to_str().ok());
    if declared.and_then(|text| text.parse().ok()).is_some_and(|bytes: u64| bytes > PACKAGE_BYTES_MAX) {
        return Err(too_large());
    }
    loop {
        let (mut part, mut is_end) = (Vec::new(), false);
        while part.len() < PART_BYTES && !is_end {
            let frame =
                tokio::time::timeout(SILENCE_MAX, body.frame()).await.map_err(|_| slow(SILENCE_MAX))?;
            match frame {
                None => is_end = true,
                Some(Ok(frame)) => part.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => {
                    return Err(ApiError::bad(format!("the body could not be read: {error}")));
                }
            }
        }
        if upload.bytes() + part.len() as u64 > PACKAGE_BYTES_MAX {
            return Err(too_large());
        }
        expect_room(app, "packages")?;
        upload = blocking(move || {
            upload.write(&part)?;
            Ok(upload)
        })
        .await?;
        if is_end {
            return Ok(upload);
        }
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ApiError::internal("working on a package", &error))?
}

/// Reads an archive as an agent will, and sees that it is the package that it is stored as. How much it unpacks to.
async fn inspected(
    app: &App,
    upload: Upload,
    name: PackageName,
    version: PackageVersion,
) -> Result<(Upload, u64), ApiError> {
    let (until, stop) = (Instant::now() + INSPECT_TIME_MAX, app.stop.clone());
    blocking(move || {
        let content = upload.open()?;
        let ends = move || match stop.is_cancelled() {
            true => Some(Ends::Stopping),
            false => (Instant::now() >= until).then_some(Ends::Slow),
        };
        let unpacked_bytes = inspect(content, &name, &version, ends)?;
        Ok((upload, unpacked_bytes))
    })
    .await
}

/// Why an archive is read no longer.
#[derive(Debug, Clone, Copy)]
enum Ends {
    Stopping,
    Slow,
}

impl Ends {
    fn error(self) -> ApiError {
        match self {
            Ends::Stopping => ApiError::not_now("this server is stopping; send the package again"),
            Ends::Slow => {
                let seconds = INSPECT_TIME_MAX.as_secs();
                let error =
                    format!("the archive was not read to its end within {seconds} s; pack it otherwise");
                ApiError::new(StatusCode::REQUEST_TIMEOUT, "slow", error)
            }
        }
    }
}

/// The same of any archive, for as long as `ends` gives no reason to end.
fn inspect(
    content: impl Read,
    name: &PackageName,
    version: &PackageVersion,
    ends: impl Fn() -> Option<Ends>,
) -> Result<u64, ApiError> {
    let mut found = Found::default();
    let bounded = Bounded { from: content, ends: &ends };
    let content = archive::read(bounded, archive::UNPACKED_BYTES_MAX, &mut found);
    let content = content.map_err(|error| match ends() {
        Some(ends) => ends.error(),
        None => ApiError::unfit(format!("the archive: {}", causes::chain(&error))),
    })?;
    found.expect(name, version).map_err(ApiError::unfit)?;
    Ok(content.bytes)
}

/// A reader that fails once there is a reason to end.
struct Bounded<'a, R, E> {
    from: R,
    ends: &'a E,
}

impl<R: Read, E: Fn() -> Option<Ends>> Read for Bounded<'_, R, E> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match (self.ends)() {
            Some(ends) => Err(std::io::Error::other(format!("{ends:?}"))),
            None => self.from.read(buffer),
        }
    }
}

/// What of an archive says which package it is.
#[derive(Debug, Default)]
struct Found {
    config: Option<Vec<u8>>,
    elsewhere: Option<String>,
}

/// The names in a config.json. All else in it is the package agent's to judge.
#[derive(Deserialize)]
struct Names {
    package_name: String,
    package_version: String,
}

impl Found {
    fn expect(self, name: &PackageName, version: &PackageVersion) -> Result<(), String> {
        let Some(config) = self.config else {
            let found = self.elsewhere.map_or("none".to_owned(), |path| format!("one at {path:?}"));
            return Err(format!(
                "the archive: found {found}, expected a config.json at its top; make it with `tar -C FOLDER -cf FILE .`"
            ));
        };
        let names: Names = serde_json::from_slice(&config)
            .map_err(|error| format!("config.json in the archive cannot be read: {error}"))?;
        if names.package_name != name.as_str() || names.package_version != version.as_str() {
            return Err(format!(
                "config.json in the archive: found package {:?} {:?}, expected {name} {version} as in the path",
                names.package_name, names.package_version
            ));
        }
        Ok(())
    }
}

impl archive::Sink for Found {
    fn folder(&mut self, _path: &FilePath) -> std::io::Result<()> {
        Ok(())
    }

    fn file(
        &mut self,
        path: &FilePath,
        _mode: u32,
        bytes: u64,
        content: &mut dyn Read,
    ) -> std::io::Result<()> {
        if path == FilePath::new("config.json") {
            if bytes > CONFIG_BYTES_MAX {
                let why = format!("it has {bytes} bytes, and {CONFIG_BYTES_MAX} are allowed");
                return Err(std::io::Error::other(why));
            }
            let mut config = Vec::new();
            content.read_to_end(&mut config)?;
            self.config = Some(config);
        } else if path.ends_with("config.json") && self.elsewhere.is_none() {
            self.elsewhere = Some(path.display().to_string());
        }
        Ok(())
    }

    fn link(&mut self, _path: &FilePath, _target: &FilePath) -> std::io::Result<()> {
        Ok(())
    }

    fn hard_link(&mut self, _path: &FilePath, _target: &FilePath) -> std::io::Result<()> {
        Ok(())
    }
}

/// Deletes a package that no run under way uses.
#[utoipa::path(delete, path = "/api/v1/packages/{name}/{version}", tag = "packages", security(("operator" = [])),
    params(("name" = String, Path, description = "Its name"), ("version" = String, Path, description = "Its version")),
    responses((status = 204, description = "It is deleted"), (status = "4XX", body = ErrorBody)))]
pub async fn delete_package(
    State(app): State<Arc<App>>,
    operator: Operator,
    Path((name, version)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (name, version) = ids(&name, &version)?;
    // No run is made with it between the look and its end, also where nobody waits for the answer any more.
    let alone = app.packages.clone().write_owned().await;
    finish(async move {
        run_packages::expect_unused(&app, &name, &version).await?;
        let noted = audit(&operator, "delete_package", format!("{name} {version}"));
        let deleted = app.store.delete_package(&name, &version, noted).await?;
        drop(alone);
        if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(no_package(&name, &version)) }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn archive(large: usize) -> Vec<u8> {
        let config = br#"{"package_name": "tuning", "package_version": "1.0.0"}"#.to_vec();
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content) in [("config.json", config), ("large", vec![b'x'; large])] {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, &*content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn an_archive_is_read_for_as_long_as_there_is_time_and_the_server_goes_on() {
        let content = archive(1 << 20);
        let asked = Cell::new(0);
        let inspect = |ends: &dyn Fn() -> Option<Ends>| {
            asked.set(0);
            let (name, version) = ("tuning".parse().unwrap(), "1.0.0".parse().unwrap());
            inspect(&*content, &name, &version, || {
                asked.set(asked.get() + 1);
                ends()
            })
        };
        assert_eq!(inspect(&|| None).unwrap(), (1 << 20) + 54);
        let reads = asked.get();
        assert!(reads > 10, "it was asked {reads} times");
        // What nobody takes is ended, too: here all but the config is passed over.
        let late = inspect(&|| (asked.get() > reads / 2).then_some(Ends::Slow)).unwrap_err();
        assert!(format!("{late:?}").contains("within 600 s"), "{late:?}");
        let stopping = inspect(&|| Some(Ends::Stopping)).unwrap_err();
        assert!(format!("{stopping:?}").contains("stopping"), "{stopping:?}");
    }
}
