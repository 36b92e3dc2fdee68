-- What workers and the API need of runs beyond the queue: which files each uses, which were begun, when each was
-- taken up again, and which children a retry has replaced.

-- Which runs use which file, so that a file goes with the last run that does: what the parameters, inputs and outputs of a run
-- name, and what its steps saved. Found by the form of a path, in the transaction that writes it, whoever writes it.

CREATE FUNCTION routines.file_paths(text) RETURNS SETOF text LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 1 AS $$
    SELECT DISTINCT found[1] FROM regexp_matches($1, '([0-9a-f]{32}-[A-Za-z0-9_-][A-Za-z0-9._-]{0,99})', 'g') AS found;
$$;
COMMENT ON FUNCTION routines.file_paths IS
    'What has the form of a file''s path in a text. In running text it may take in a letter too many at its end: compare by file_id.';
CREATE FUNCTION routines.file_id(path text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substring(path FROM '[0-9a-f]{32}');
COMMENT ON FUNCTION routines.file_id IS 'The 128 random bits that a file''s path begins with: no two files have the same.';

CREATE TABLE routines.file_uses (
    trajectory_id bigint NOT NULL CONSTRAINT file_uses_trajectory_id_fkey REFERENCES routines.trajectories (id) ON DELETE CASCADE,
    path          text NOT NULL,
    collection_id bigint NOT NULL,
    CONSTRAINT file_uses_pkey PRIMARY KEY (trajectory_id, path)
);
CREATE INDEX file_uses_file_idx ON routines.file_uses (collection_id, routines.file_id(path));
COMMENT ON TABLE  routines.file_uses IS 'Files that a run came with, saved, or names in its parameters, inputs or outputs. They stay as long as one such run does.';
COMMENT ON COLUMN routines.file_uses.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.file_uses.path IS 'The file''s path within the collection; there may be no such file.';
COMMENT ON COLUMN routines.file_uses.collection_id IS 'The tenant.';

CREATE TABLE routines.unused_files (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT unused_files_pkey PRIMARY KEY,
    collection_id bigint NOT NULL,
    path          text NOT NULL,
    noted_at      timestamptz NOT NULL DEFAULT now(),
    condemned_at  timestamptz
);
CREATE UNIQUE INDEX unused_files_file_key ON routines.unused_files (collection_id, routines.file_id(path));
COMMENT ON TABLE  routines.unused_files IS 'Files to delete: no run uses them any more, or none ever did. A row goes once its file is gone.';
COMMENT ON COLUMN routines.unused_files.id IS 'Database id.';
COMMENT ON COLUMN routines.unused_files.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.unused_files.path IS 'The file''s path within the collection; with a dot before it, of what was begun and never finished.';
COMMENT ON COLUMN routines.unused_files.noted_at IS 'When it was found to be unused. It is looked at again minutes later, once every transaction of that moment has ended.';
COMMENT ON COLUMN routines.unused_files.condemned_at IS 'When its deletion was decided: no use saves it any more; null: it is not.';

-- A use saves what is noted, unless its deletion was decided before: both sides lock the row.
CREATE FUNCTION routines.use_files(of_run bigint, of_collection bigint, paths text[]) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    named text := current_setting('routines.collection_id', true);
BEGIN
    PERFORM set_config('routines.collection_id', '', true);  -- of the run's, whichever that is
    INSERT INTO routines.file_uses (trajectory_id, path, collection_id)
    SELECT DISTINCT of_run, path, of_collection FROM unnest(paths) AS path
    ON CONFLICT DO NOTHING;
    DELETE FROM routines.unused_files
    WHERE collection_id = of_collection AND condemned_at IS NULL
      AND routines.file_id(path) = ANY (ARRAY(SELECT routines.file_id(used) FROM unnest(paths) AS used));
    PERFORM set_config('routines.collection_id', named, true);
    RETURN true;
END $$;
COMMENT ON FUNCTION routines.use_files IS 'Notes that a run uses these files.';
REVOKE EXECUTE ON FUNCTION routines.use_files FROM PUBLIC;

-- What a run was given is noted once it leaves the queue, whether a worker claims it or it is cancelled there: the tick has
-- nothing to do with files, and who deletes files looks at what is active itself.
CREATE FUNCTION routines.note_files_of_run() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM routines.use_files(NEW.id, NEW.collection_id, ARRAY(SELECT routines.file_paths(NEW.init_params::text)));
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_files_of_run IS 'Notes the files that a run''s parameters name.';
CREATE TRIGGER note_files AFTER UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.status = 'pending' AND OLD.attempt = 0 AND NEW.status <> 'pending'
                       AND NEW.init_params::text ~ '[0-9a-f]{32}-')
    EXECUTE FUNCTION routines.note_files_of_run();

CREATE FUNCTION routines.note_files_of_step() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    named text := current_setting('routines.collection_id', true);
    of_collection bigint;
BEGIN
    PERFORM set_config('routines.collection_id', '', true);
    SELECT collection_id INTO of_collection FROM routines.trajectories WHERE id = NEW.trajectory_id;
    PERFORM routines.use_files(NEW.trajectory_id, of_collection,
                               ARRAY(SELECT routines.file_paths(concat_ws(' ', NEW.inputs, NEW.outputs))));
    PERFORM set_config('routines.collection_id', named, true);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_files_of_step IS 'Notes the files that a step''s inputs and outputs name.';
-- To look costs a few microseconds a step: once for each text.
CREATE TRIGGER note_files AFTER INSERT ON routines.steps
    FOR EACH ROW WHEN (NEW.inputs::text ~ '[0-9a-f]{32}-' OR NEW.outputs::text ~ '[0-9a-f]{32}-')
    EXECUTE FUNCTION routines.note_files_of_step();
CREATE TRIGGER note_changed_files AFTER UPDATE OF inputs, outputs ON routines.steps
    FOR EACH ROW WHEN (OLD.outputs IS DISTINCT FROM NEW.outputs AND NEW.outputs::text ~ '[0-9a-f]{32}-'
                       OR OLD.inputs IS DISTINCT FROM NEW.inputs AND NEW.inputs::text ~ '[0-9a-f]{32}-')
    EXECUTE FUNCTION routines.note_files_of_step();

CREATE FUNCTION routines.note_unused_file() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.unused_files (collection_id, path)
    SELECT OLD.collection_id, OLD.path
    WHERE NOT EXISTS (SELECT FROM routines.file_uses
                      WHERE collection_id = OLD.collection_id AND routines.file_id(path) = routines.file_id(OLD.path))
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_unused_file IS 'With the last run that used a file, the file is to go.';
CREATE TRIGGER note_unused_file AFTER DELETE ON routines.file_uses
    FOR EACH ROW EXECUTE FUNCTION routines.note_unused_file();

-- What there is already.
INSERT INTO routines.file_uses (trajectory_id, path, collection_id)
SELECT id, path, collection_id FROM routines.trajectories CROSS JOIN LATERAL routines.file_paths(init_params::text) AS path
WHERE init_params::text ~ '[0-9a-f]{32}-'
UNION
SELECT trajectories.id, path, collection_id FROM routines.steps JOIN routines.trajectories ON trajectories.id = trajectory_id
CROSS JOIN LATERAL routines.file_paths(concat_ws(' ', steps.inputs, steps.outputs)) AS path
WHERE concat_ws(' ', steps.inputs, steps.outputs) ~ '[0-9a-f]{32}-';

-- Runs that were begun and have not ended, apart from the backlog: what is looked for among them (leases that are over, deadlines,
-- what a task has running) must not read what only waits. An index on the status would cost every claim its HOT update; a row here
-- is written at a run's first claim and goes at its end.
CREATE TABLE routines.begun_runs (
    task_id       bigint NOT NULL,
    trajectory_id bigint NOT NULL,
    collection_id bigint NOT NULL,
    CONSTRAINT begun_runs_pkey PRIMARY KEY (task_id, trajectory_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE  routines.begun_runs IS 'Runs that a worker has claimed once and that have not ended: running, or pending again. Kept by triggers.';
COMMENT ON COLUMN routines.begun_runs.task_id IS 'The task.';
COMMENT ON COLUMN routines.begun_runs.trajectory_id IS 'The run.';
COMMENT ON COLUMN routines.begun_runs.collection_id IS 'The tenant.';

-- By triggers, so that no way to begin or end a run misses it: not a program of the version before, not a person at psql.
CREATE FUNCTION routines.note_begun_run() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.begun_runs (task_id, trajectory_id, collection_id) VALUES (NEW.task_id, NEW.id, NEW.collection_id)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_begun_run IS 'Notes a run that is running.';
CREATE TRIGGER note_begun_run AFTER UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.status <> 'running' AND NEW.status = 'running') EXECUTE FUNCTION routines.note_begun_run();
CREATE TRIGGER note_inserted_begun_run AFTER INSERT ON routines.trajectories
    FOR EACH ROW WHEN (NEW.status = 'running') EXECUTE FUNCTION routines.note_begun_run();

CREATE FUNCTION routines.forget_begun_run() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM routines.begun_runs WHERE task_id = OLD.task_id AND trajectory_id = OLD.id;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_begun_run IS 'A run that has ended, or is gone, is no begun one.';
CREATE TRIGGER forget_begun_run AFTER UPDATE OF status ON routines.trajectories
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL AND OLD.started_at IS NOT NULL)
    EXECUTE FUNCTION routines.forget_begun_run();
CREATE TRIGGER forget_deleted_begun_run AFTER DELETE ON routines.trajectories
    FOR EACH ROW WHEN (OLD.ended_at IS NULL) EXECUTE FUNCTION routines.forget_begun_run();

INSERT INTO routines.begun_runs (task_id, trajectory_id, collection_id)
SELECT task_id, id, collection_id FROM routines.trajectories
WHERE ended_at IS NULL AND (status = 'running' OR deadline_at IS NOT NULL);

-- Claims after the first. Null as long as there is none, so that most runs carry nothing of it; in no index.
ALTER TABLE routines.trajectories
    ADD COLUMN later_claims jsonb CONSTRAINT trajectories_later_claims_is_array CHECK (jsonb_typeof(later_claims) = 'array');
COMMENT ON COLUMN routines.trajectories.later_claims IS
    'When workers took it up again after the first claim, the newest 50: array of {at, attempt, crashes}; null: none did.';
COMMENT ON COLUMN routines.trajectories.started_at IS 'When a worker first claimed it; null: none yet. Later claims are in later_claims.';

CREATE OR REPLACE VIEW routines.run_events WITH (security_invoker = true) AS
    SELECT id AS trajectory_id, collection_id, created_at AS at, -2 AS rank, 0::bigint AS position, 0 AS try_number,
           'run_created' AS event, NULL::text AS step, NULL::integer AS attempt, trigger AS detail
    FROM routines.trajectories
    UNION ALL
    SELECT id, collection_id, started_at, -1, 0, 0, 'run_started', NULL, NULL, NULL
    FROM routines.trajectories WHERE started_at IS NOT NULL
    UNION ALL
    SELECT id, collection_id, (claimed.value ->> 'at')::timestamptz, -1, 0, 0, 'run_resumed', NULL,
           (claimed.value ->> 'attempt')::integer, 'workers lost so far: ' || (claimed.value ->> 'crashes')
    FROM routines.trajectories CROSS JOIN LATERAL jsonb_array_elements(later_claims) AS claimed
    UNION ALL
    SELECT trajectories.id, collection_id, (tried.value ->> 'at')::timestamptz, 3 * steps.position, steps.position,
           tried.number::integer, 'step_try_failed', name, NULL, tried.value ->> 'error'
    FROM routines.trajectories JOIN routines.steps ON trajectory_id = trajectories.id
    CROSS JOIN LATERAL jsonb_array_elements(earlier_errors) WITH ORDINALITY AS tried (value, number)
    UNION ALL
    SELECT trajectories.id, collection_id, steps.created_at, 3 * steps.position + 1, steps.position, steps.try_number,
           'step_started', name, steps.attempt, activity
    FROM routines.trajectories JOIN routines.steps ON trajectory_id = trajectories.id
    UNION ALL
    SELECT trajectories.id, collection_id, steps.ended_at, 3 * steps.position + 2, steps.position, steps.try_number,
           'step_' || steps.status, name, steps.attempt, steps.error
    FROM routines.trajectories JOIN routines.steps ON trajectory_id = trajectories.id WHERE steps.ended_at IS NOT NULL
    UNION ALL
    SELECT id, collection_id, ended_at, 2000000000, 0, 0,
           'run_' || CASE status WHEN 'archived' THEN 'ended' ELSE status END, NULL, attempt, error
    FROM routines.trajectories WHERE ended_at IS NOT NULL
    UNION ALL
    SELECT id, collection_id, updated_at, 2000000001, 0, 0, 'run_archived', NULL, NULL, NULL
    FROM routines.trajectories WHERE status = 'archived'
    UNION ALL
    SELECT trajectory_id, collection_id, (tried.value ->> 'at')::timestamptz, 2000000002, id, tried.number::integer,
           'webhook_attempted', NULL, NULL, concat_ws(': ', tried.value ->> 'status', tried.value ->> 'error')
    FROM routines.webhook_deliveries
    CROSS JOIN LATERAL jsonb_array_elements(attempts) WITH ORDINALITY AS tried (value, number);
COMMENT ON COLUMN routines.run_events.event IS
    'run_created, run_started (its first claim), run_resumed (a later one: its worker was lost, or gave it back), step_started, step_try_failed, step_completed, step_failed, step_cancelled, run_completed, run_failed, run_cancelled, run_ended (archived since), run_archived, webhook_attempted.';

-- A step that is tried again starts a new child in the place of one that did not complete; that one gives its place up.
ALTER TABLE routines.trajectories
    ADD COLUMN parent_try integer,
    DROP CONSTRAINT trajectories_parent_is_whole,
    ADD CONSTRAINT trajectories_parent_is_whole
        CHECK ((parent_id IS NULL) = (parent_step IS NULL) AND (parent_id IS NOT NULL OR child_index IS NULL AND parent_try IS NULL));
COMMENT ON COLUMN routines.trajectories.parent_try IS 'The try of that step that started it; null: the first, or none.';
COMMENT ON COLUMN routines.trajectories.child_index IS
    'Its place among the children of that step, from 0; null with a parent: it did not complete, and a later try started another one in its place.';

SELECT routines.protect('routines.file_uses');
SELECT routines.protect('routines.unused_files');
SELECT routines.protect('routines.begun_runs');
INSERT INTO routines.role_grants (role, on_object, privileges) VALUES
    ('routines_worker', 'routines.file_uses', 'SELECT'),
    ('routines_worker', 'FUNCTION routines.use_files(bigint, bigint, text[])', 'EXECUTE'),
    ('routines_worker', 'routines.unused_files', 'SELECT, INSERT, UPDATE (condemned_at), DELETE'),
    ('routines_reader', 'routines.file_uses', 'SELECT'),
    ('routines_reader', 'routines.unused_files', 'SELECT'),
    ('routines_api', 'routines.begun_runs', 'SELECT'),
    ('routines_worker', 'routines.begun_runs', 'SELECT'),
    ('routines_reader', 'routines.begun_runs', 'SELECT');
SELECT routines.set_up_roles();
