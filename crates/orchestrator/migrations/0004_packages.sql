-- Packages that operators store. Their archives are files, named by their sums.
CREATE TABLE packages (
    name           TEXT NOT NULL,
    version        TEXT NOT NULL,
    sha256         TEXT NOT NULL,
    bytes          INTEGER NOT NULL,
    unpacked_bytes INTEGER NOT NULL,
    at             INTEGER NOT NULL,
    actor          TEXT NOT NULL,
    PRIMARY KEY (name, version)
) STRICT;
CREATE INDEX packages_sha256 ON packages (sha256);
UPDATE meta SET value = '4' WHERE key = 'schema';
