-- What runtimes know of agents: of their pods, of their processes. One row for each agent of each runtime; `ended` is
-- when the agent ended, where it has.
CREATE TABLE agent_facts (
    source    TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    ended     INTEGER,
    doc       TEXT NOT NULL,
    PRIMARY KEY (source, namespace, name)
) STRICT, WITHOUT ROWID;
UPDATE meta SET value = '5' WHERE key = 'schema';
