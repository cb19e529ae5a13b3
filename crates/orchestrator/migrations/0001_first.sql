-- The first schema. Moments are milliseconds since 1970; documents are JSON.

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
INSERT INTO meta (key, value) VALUES ('schema', '1'), ('generation', '1'), ('listened_ms', '0');

CREATE TABLE settings (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE nodes (
    name    TEXT NOT NULL PRIMARY KEY,
    serial  TEXT,
    updated INTEGER NOT NULL,
    doc     TEXT NOT NULL
) STRICT;
CREATE INDEX nodes_serial ON nodes (serial) WHERE serial IS NOT NULL;
CREATE TABLE node_macs (
    mac  TEXT NOT NULL PRIMARY KEY,
    node TEXT NOT NULL REFERENCES nodes (name) ON DELETE CASCADE
) STRICT;
CREATE INDEX node_macs_node ON node_macs (node);

CREATE TABLE profiles (
    name    TEXT NOT NULL PRIMARY KEY,
    updated INTEGER NOT NULL,
    text    TEXT NOT NULL,
    doc     TEXT NOT NULL
) STRICT;

CREATE TABLE tokens (
    name    TEXT NOT NULL PRIMARY KEY,
    sha256  TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    revoked INTEGER
) STRICT;

CREATE TABLE agents (
    instance TEXT NOT NULL PRIMARY KEY,
    run      TEXT NOT NULL,
    seen_day INTEGER NOT NULL,
    pins     TEXT NOT NULL
) STRICT;
CREATE INDEX agents_seen ON agents (seen_day);

CREATE TABLE runs (
    id         TEXT NOT NULL PRIMARY KEY,
    version    INTEGER NOT NULL,
    node       TEXT NOT NULL,
    profile    TEXT NOT NULL,
    state      TEXT NOT NULL,
    created    INTEGER NOT NULL,
    updated    INTEGER NOT NULL,
    ended      INTEGER,
    boot_token TEXT NOT NULL,
    run_token  TEXT,
    restored   INTEGER NOT NULL DEFAULT 0,
    -- The run's JSON as one zstd frame: a page of the database then holds several runs instead of a part of one.
    doc        BLOB NOT NULL
) STRICT;
CREATE INDEX runs_created ON runs (created, id);
CREATE INDEX runs_node ON runs (node, created, id);
CREATE INDEX runs_going ON runs (id) WHERE ended IS NULL;
CREATE INDEX runs_ended ON runs (ended) WHERE ended IS NOT NULL;
CREATE INDEX runs_boot_token ON runs (boot_token);
CREATE INDEX runs_run_token ON runs (run_token) WHERE run_token IS NOT NULL;
CREATE INDEX runs_restored ON runs (id) WHERE restored = 1;
-- Runs that were deleted after their end: their agents are told so, not that they never were.
CREATE TABLE runs_gone (
    id TEXT NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX runs_gone_at ON runs_gone (at);

-- AUTOINCREMENT: a number is never given twice, also when the newest rows were swept.
CREATE TABLE events (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    run   TEXT NOT NULL,
    at    INTEGER NOT NULL,
    kind  TEXT NOT NULL,
    actor TEXT NOT NULL,
    text  TEXT NOT NULL,
    stage TEXT,
    state TEXT NOT NULL
) STRICT;
CREATE INDEX events_run ON events (run, id);

CREATE TABLE audit (
    id     INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    actor  TEXT NOT NULL,
    action TEXT NOT NULL,
    run    TEXT,
    text   TEXT NOT NULL
) STRICT;

CREATE TABLE results (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    run        TEXT NOT NULL,
    stage      TEXT NOT NULL,
    attempt    INTEGER NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('first', 'own', 'repeated', 'late')),
    claim      INTEGER NOT NULL,
    made_under INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    sha256     TEXT NOT NULL,
    request    TEXT,
    judged     TEXT
) STRICT;
-- The first result of an attempt stands: there cannot be a second one.
CREATE UNIQUE INDEX results_standing ON results (run, stage, attempt) WHERE kind IN ('first', 'own');
-- Evidence alone: the standing ones have the index above, and need not write a page of another.
CREATE INDEX results_evidence ON results (run, id) WHERE kind IN ('repeated', 'late');
-- Evidence beyond what is kept of an attempt, counted.
CREATE TABLE evidence_dropped (
    run     TEXT NOT NULL,
    dropped INTEGER NOT NULL,
    PRIMARY KEY (run)
) STRICT;

CREATE TABLE segments (
    id    INTEGER PRIMARY KEY,
    began INTEGER NOT NULL
) STRICT;
CREATE TABLE log_chunks (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    run      TEXT NOT NULL,
    stream   TEXT,
    seq      INTEGER NOT NULL,
    claim    INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    sha256   BLOB NOT NULL,
    lines    INTEGER NOT NULL,
    bytes    INTEGER NOT NULL,
    first_ts TEXT NOT NULL,
    last_ts  TEXT NOT NULL,
    stages   TEXT NOT NULL,
    closes   INTEGER NOT NULL,
    gap      TEXT,
    segment  INTEGER NOT NULL REFERENCES segments (id),
    offset   INTEGER NOT NULL,
    length   INTEGER NOT NULL,
    UNIQUE (run, stream, seq)
) STRICT;
CREATE INDEX log_chunks_run ON log_chunks (run, id);
CREATE INDEX log_chunks_segment ON log_chunks (segment);

CREATE TABLE sensor_batches (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    run     TEXT NOT NULL,
    stream  TEXT,
    seq     INTEGER NOT NULL,
    claim   INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    sha256  BLOB NOT NULL,
    samples INTEGER NOT NULL,
    closes  INTEGER NOT NULL,
    data    BLOB NOT NULL,
    UNIQUE (run, stream, seq)
) STRICT;
CREATE INDEX sensor_batches_run ON sensor_batches (run, id);

CREATE TABLE artifacts (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    run     TEXT NOT NULL,
    stage   TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    name    TEXT NOT NULL,
    at      INTEGER NOT NULL,
    sha256  TEXT NOT NULL,
    bytes   INTEGER NOT NULL,
    UNIQUE (run, stage, attempt, name)
) STRICT;
CREATE INDEX artifacts_sha256 ON artifacts (sha256);

-- What retention took away, so that a log that is no longer there does not look like one that never was.
CREATE TABLE swept (
    run  TEXT NOT NULL,
    what TEXT NOT NULL,
    at   INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY (run, what)
) STRICT;
