//! Reading lines back.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use groundcrew_protocol::ids::RunId;
use groundcrew_protocol::stage::Stage;
use groundcrew_protocol::wire::LogLine;
use sqlx::{QueryBuilder, Sqlite};

use super::{LOGS_FOLDER, LogCursor, LogPage, frame, segment};
use crate::store::{Store, StoreError, text};

/// Chunks that are looked at for one page.
const CHUNKS_MAX: i64 = 64;
/// Lines of one page.
const LINES_MAX: usize = 10_000;

/// A row: id, lines, bytes, gap, closes, sha256, segment, offset, length.
type Row = (i64, i64, i64, Option<String>, bool, Vec<u8>, i64, i64, i64);

/// See [`super::Logs::read`].
pub(super) async fn page(
    store: &Store,
    run: &RunId,
    stage: Option<&Stage>,
    after: LogCursor,
    limit: usize,
) -> Result<LogPage, StoreError> {
    let limit = limit.clamp(1, LINES_MAX);
    let mut query = select(run, stage)?;
    query.push(" AND id >= ").push_bind(text::signed(after.chunk));
    query.push(" ORDER BY id LIMIT ").push_bind(CHUNKS_MAX);
    let rows = fetch(store, query).await?;
    let all_rows = (rows.len() as i64) < CHUNKS_MAX;
    let stage = stage.cloned();
    let mut reader = Reader::new(store);
    blocking(move || {
        let mut page = LogPage { lines: Vec::new(), next: after, at_end: all_rows };
        for row in rows {
            let chunk = text::unsigned(row.0);
            let behind = if chunk == after.chunk { after.line as usize } else { 0 };
            if page.lines.len() >= limit {
                page.at_end = false;
                break;
            }
            if behind >= row.1 as usize {
                continue;
            }
            let mut taken = behind;
            for line in reader.lines(&row)?.into_iter().skip(behind) {
                if page.lines.len() >= limit {
                    page.at_end = false;
                    break;
                }
                taken += 1;
                if stage.is_none() || line.stage == stage {
                    page.lines.push(line);
                }
            }
            page.next = LogCursor { chunk, line: u32::try_from(taken).unwrap_or(u32::MAX) };
        }
        Ok(page)
    })
    .await
}

/// See [`super::Logs::tail`].
pub(super) async fn tail(
    store: &Store,
    run: &RunId,
    stage: Option<&Stage>,
    count: usize,
) -> Result<LogPage, StoreError> {
    let count = count.min(LINES_MAX);
    let mut query = select(run, stage)?;
    query.push(" ORDER BY id DESC LIMIT ").push_bind(CHUNKS_MAX);
    let rows = fetch(store, query).await?;
    let stage = stage.cloned();
    let mut reader = Reader::new(store);
    blocking(move || {
        // Behind the newest chunk, so that whoever reads on from here misses no line and gets none twice.
        let next = rows.first().map_or(LogCursor::default(), |row| LogCursor {
            chunk: text::unsigned(row.0),
            line: u32::try_from(row.1).unwrap_or(u32::MAX),
        });
        let mut newest_first = Vec::with_capacity(count);
        for row in rows {
            if newest_first.len() >= count {
                break;
            }
            let lines = reader.lines(&row)?.into_iter().rev();
            let wanted = lines.filter(|line| stage.is_none() || line.stage == stage);
            newest_first.extend(wanted.take(count - newest_first.len()));
        }
        newest_first.reverse();
        Ok(LogPage { lines: newest_first, next, at_end: true })
    })
    .await
}

fn select(run: &RunId, stage: Option<&Stage>) -> Result<QueryBuilder<Sqlite>, StoreError> {
    let mut query = QueryBuilder::new(
        "SELECT id, lines, bytes, gap, closes, sha256, segment, offset, length FROM log_chunks WHERE run = ",
    );
    query.push_bind(run.as_str());
    if let Some(stage) = stage {
        // The list holds each name as JSON writes it, quotes included.
        let name = text::to_json("a stage", stage)?;
        query.push(" AND (instr(stages, ").push_bind(name).push(") > 0 OR stages = ");
        query.push_bind(frame::ANY_STAGE).push(")");
    }
    Ok(query)
}

async fn fetch(store: &Store, mut query: QueryBuilder<Sqlite>) -> Result<Vec<Row>, StoreError> {
    query
        .build_query_as()
        .fetch_all(&store.inner.readers)
        .await
        .map_err(StoreError::database("reading rows of logs"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StoreError::Unreadable { what: "a log".into(), why: error.to_string() })?
}

/// Reads frames, with the segments open that it has met.
struct Reader {
    folder: PathBuf,
    open: HashMap<i64, Option<File>>,
}

impl Reader {
    fn new(store: &Store) -> Reader {
        Reader { folder: store.inner.data.join(LOGS_FOLDER), open: HashMap::new() }
    }

    fn lines(&mut self, row: &Row) -> Result<Vec<LogLine>, StoreError> {
        let (_id, _lines, bytes, gap, closes, sha256, segment, offset, length) = row;
        let path = segment::path_of(&self.folder, text::unsigned(*segment));
        let file = match self.open.entry(*segment) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => match File::open(&path) {
                Ok(file) => place.insert(Some(file)),
                // Retention took it between the reading of its row and now. Whatever else is missing is
                // noticed when the store is opened.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => place.insert(None),
                Err(error) => return Err(StoreError::file("opening", &path)(error)),
            },
        };
        let Some(file) = file else {
            return Ok(Vec::new());
        };
        let length = usize::try_from(*length).unwrap_or(0);
        let mut data = vec![0; length];
        file.read_exact_at(&mut data, text::unsigned(*offset)).map_err(StoreError::file("reading", &path))?;
        frame::unpack(&data, usize::try_from(*bytes).unwrap_or(0), gap.as_deref(), *closes, sha256).map_err(
            |why| StoreError::Unreadable { what: format!("a chunk of log at {offset} in {path:?}"), why },
        )
    }
}
