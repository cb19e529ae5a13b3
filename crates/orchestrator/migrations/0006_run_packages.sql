-- Which packages of the store a run uses, from its making until it ends: none of them is deleted meanwhile.
CREATE TABLE run_packages (
    name    TEXT NOT NULL,
    version TEXT NOT NULL,
    run     TEXT NOT NULL,
    PRIMARY KEY (name, version, run)
) STRICT, WITHOUT ROWID;
CREATE INDEX run_packages_run ON run_packages (run);
-- What the runs use that were made before stands in their documents alone, which the server reads at its next start.
INSERT INTO meta (key, value)
    SELECT 'run_packages', CASE WHEN EXISTS (SELECT 1 FROM runs WHERE ended IS NULL) THEN 'unread' ELSE 'read' END;
UPDATE meta SET value = '6' WHERE key = 'schema';
