-- Drains that operators asked for; those that have not ended hold their nodes.
CREATE TABLE drains (
    id    TEXT NOT NULL PRIMARY KEY,
    ended INTEGER,
    doc   TEXT NOT NULL
) STRICT;
CREATE INDEX drains_active ON drains (id) WHERE ended IS NULL;
UPDATE meta SET value = '3' WHERE key = 'schema';
