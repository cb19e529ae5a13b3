-- Runs that have ended and still have somebody to tell of a shutdown: the server knows them at its start again.
ALTER TABLE runs ADD COLUMN owes_notices INTEGER NOT NULL DEFAULT 0;
CREATE INDEX runs_owing ON runs (id) WHERE owes_notices = 1;
UPDATE meta SET value = '8' WHERE key = 'schema';
