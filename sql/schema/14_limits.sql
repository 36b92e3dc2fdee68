-- What a collection and each of its runs may use. The table built_in_limits names every limit, with its default; operators set
-- others for all collections or for one in collection_limits. Programs read a limit with limit_of and a use with limit_use. Why
-- this design: docs/decisions/0019. Statements: queries/limits.sql.

-- No triggers.
CREATE TABLE routines.built_in_limits (
    name  text CONSTRAINT built_in_limits_pkey PRIMARY KEY,
    value bigint CONSTRAINT built_in_limits_value_is_not_negative CHECK (value >= 0)
);
COMMENT ON TABLE  routines.built_in_limits IS
    'Every limit, with the value that applies unless an operator has set another. A migration changes it; operators use `routines limits`.';
COMMENT ON COLUMN routines.built_in_limits.name IS 'The name of the limit. routines_core/limits.py says what each one bounds.';
COMMENT ON COLUMN routines.built_in_limits.value IS 'In the unit of the limit; null for no limit.';

INSERT INTO routines.built_in_limits (name, value) VALUES
    -- Of a collection.
    ('max_concurrent_runs', NULL),
    ('active_runs', 100000),
    ('runs_per_minute', 6000),
    ('routines', 100000),
    ('tasks', 10000),
    ('feeds', 100),
    ('calendars', 100),
    ('alert_rules', 100),
    ('pending_webhooks', 100000),
    ('stored_bytes', 107374182400),
    ('files', 100000),
    ('file_bytes', 107374182400),
    -- Of a run.
    ('run_step_bytes', 16777216),
    ('run_steps', 1000),
    ('run_children', 1000),
    ('run_log_events', 10000),
    ('run_secrets', 100);

-- Triggers:
--   AFTER INSERT, UPDATE or DELETE  note_limit  adds to the audit (chapter 15_audit)
CREATE TABLE routines.collection_limits (
    collection_id bigint CONSTRAINT collection_limits_collection_id_fkey REFERENCES routines.collections (id),
    name          text NOT NULL CONSTRAINT collection_limits_name_is_known REFERENCES routines.built_in_limits (name),
    -- The largest integer that every JSON reader keeps exact.
    value         bigint CONSTRAINT collection_limits_value_in_range CHECK (value BETWEEN 0 AND 9007199254740991),
    set_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT collection_limits_key UNIQUE NULLS NOT DISTINCT (name, collection_id),
    -- Claims read it from collections and tasks.
    CONSTRAINT collection_limits_has_no_concurrency CHECK (name <> 'max_concurrent_runs')
);
COMMENT ON TABLE  routines.collection_limits IS
    'Limits that an operator has set. A limit without a row has its built-in value.';
COMMENT ON COLUMN routines.collection_limits.collection_id IS
    'The tenant; null for the default of all collections that have no row of their own.';
COMMENT ON COLUMN routines.collection_limits.name IS 'The limit.';
COMMENT ON COLUMN routines.collection_limits.value IS 'In the unit of the limit; null for no limit.';
COMMENT ON COLUMN routines.collection_limits.set_at IS 'When it was set.';
-- Everybody reads the defaults; only the owner writes them.
SELECT routines.protect('routines.collection_limits');
CREATE POLICY defaults ON routines.collection_limits FOR SELECT USING (collection_id IS NULL);

CREATE FUNCTION routines.limit_of(of_collection bigint, limit_name text) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    applied record;
BEGIN
    IF limit_name = 'max_concurrent_runs' THEN
        RETURN (SELECT max_concurrent_runs FROM routines.collections WHERE id = of_collection);
    END IF;
    SELECT CASE WHEN own.name IS NOT NULL THEN own.value WHEN general.name IS NOT NULL THEN general.value
                ELSE built_in_limits.value END AS value INTO applied
    FROM routines.built_in_limits
    LEFT JOIN routines.collection_limits AS own ON own.name = built_in_limits.name AND own.collection_id = of_collection
    LEFT JOIN routines.collection_limits AS general ON general.name = built_in_limits.name AND general.collection_id IS NULL
    WHERE built_in_limits.name = limit_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no limit has the name %', limit_name USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN applied.value;
END $$;
COMMENT ON FUNCTION routines.limit_of IS
    'A limit of a collection, or its default for a null collection; null for no limit. Raises an error for an unknown name.';

CREATE FUNCTION routines.run_limits(of_collection bigint)
RETURNS TABLE (step_bytes bigint, steps bigint, children bigint, log_events bigint, secrets bigint)
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT max(value) FILTER (WHERE name = 'run_step_bytes'), max(value) FILTER (WHERE name = 'run_steps'),
           max(value) FILTER (WHERE name = 'run_children'), max(value) FILTER (WHERE name = 'run_log_events'),
           max(value) FILTER (WHERE name = 'run_secrets')
    FROM (SELECT DISTINCT ON (name) name, value
          FROM (SELECT name, value, 3 AS rank FROM routines.built_in_limits
                UNION ALL
                SELECT name, value, CASE WHEN collection_id IS NULL THEN 2 ELSE 1 END FROM routines.collection_limits
                WHERE collection_id IS NULL OR collection_id = of_collection) AS given
          ORDER BY name, rank) AS applied;
$$;
COMMENT ON FUNCTION routines.run_limits IS 'The limits of each run of a collection, in one row; null for no limit.';

-- VOLATILE, so that it also counts what was committed while the statement waited for a lock.
CREATE FUNCTION routines.tree_size(of_run bigint, most bigint) RETURNS integer LANGUAGE sql VOLATILE AS $$
    SELECT count(*)::integer FROM (
        SELECT FROM routines.trajectories
        WHERE root_id = (SELECT coalesce(root_id, id) FROM routines.trajectories WHERE id = of_run) LIMIT most) AS counted;
$$;
COMMENT ON FUNCTION routines.tree_size IS
    'How many runs the tree of a run has below its root, ended ones included, counted up to `most`. The root is the run that no other run started.';

---------------------------------------------------------------------------------------------------------------- uses
-- No triggers. UNLOGGED: after a crash the minute begins again.
CREATE UNLOGGED TABLE routines.run_minutes (
    collection_id bigint CONSTRAINT run_minutes_pkey PRIMARY KEY,
    minute        timestamptz NOT NULL,
    begun         bigint NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE  routines.run_minutes IS 'How many runs each collection has begun by HTTP in the present minute, over all API processes.';
COMMENT ON COLUMN routines.run_minutes.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.run_minutes.minute IS 'The beginning of the minute, by this database''s clock.';
COMMENT ON COLUMN routines.run_minutes.begun IS
    'Runs begun, with those that an API process has reserved and not begun yet.';
SELECT routines.protect('routines.run_minutes');

CREATE FUNCTION routines.take_runs(of_collection bigint, wanted bigint)
RETURNS TABLE (granted bigint, most bigint, begun bigint, seconds_left float8) LANGUAGE plpgsql VOLATILE ROWS 1 AS $$
#variable_conflict use_column
DECLARE
    this_minute timestamptz := date_trunc('minute', clock_timestamp());
    before      bigint := 0;
BEGIN
    most := routines.limit_of(of_collection, 'runs_per_minute');
    seconds_left := greatest(0, extract(epoch FROM this_minute + interval '1 minute' - clock_timestamp()));
    IF most IS NULL THEN
        granted := wanted;
        RETURN NEXT;
        RETURN;
    END IF;
    INSERT INTO routines.run_minutes (collection_id, minute, begun) VALUES (of_collection, this_minute, 0)
    ON CONFLICT ON CONSTRAINT run_minutes_pkey DO UPDATE SET minute = greatest(run_minutes.minute, excluded.minute),
        begun = CASE WHEN run_minutes.minute < excluded.minute THEN 0 ELSE run_minutes.begun END
    RETURNING run_minutes.begun INTO before;
    granted := greatest(0, least(wanted, most - before));
    begun := before + granted;
    IF granted > 0 THEN
        UPDATE routines.run_minutes SET begun = before + take_runs.granted WHERE collection_id = of_collection;
    END IF;
    RETURN NEXT;
END $$;
COMMENT ON FUNCTION routines.take_runs IS
    'Reserves up to `wanted` of the runs that a collection may begin in the present minute. Returns how many were granted, the limit (null for none), how many the minute has then, and the seconds until the next minute.';

-- No triggers. Estimates: workers measure what is stored every few minutes, and files are also counted as they are saved.
CREATE TABLE routines.collection_usage (
    collection_id bigint CONSTRAINT collection_usage_pkey PRIMARY KEY
                  CONSTRAINT collection_usage_collection_id_fkey REFERENCES routines.collections (id),
    stored_bytes  bigint NOT NULL DEFAULT 0,
    files         bigint NOT NULL DEFAULT 0,
    file_bytes    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
COMMENT ON TABLE  routines.collection_usage IS 'What each collection has stored, as last measured by a worker.';
COMMENT ON COLUMN routines.collection_usage.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.collection_usage.stored_bytes IS
    'Bytes of its runs and their steps as stored, estimated from a sample of both tables.';
COMMENT ON COLUMN routines.collection_usage.files IS 'Its files: as last listed, with those saved since.';
COMMENT ON COLUMN routines.collection_usage.file_bytes IS 'The same in bytes.';
SELECT routines.protect('routines.collection_usage');

-- Off by a few per cent for a collection that fills much of the tables, by more for a small one, which is far from its limit.
CREATE FUNCTION routines.measure_stored_bytes(most_pages integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    runs_percent  float8 := least(100, 100.0 * most_pages * current_setting('block_size')::bigint
                                       / greatest(1, pg_relation_size('routines.trajectories')));
    steps_percent float8 := least(100, 100.0 * most_pages * current_setting('block_size')::bigint
                                       / greatest(1, pg_relation_size('routines.steps')));
    measured      bigint;
BEGIN
    WITH sampled AS (
        -- pg_column_size reads no TOAST: the row holds the size of the value.
        SELECT collection_id, (100 + pg_column_size(init_params) + pg_column_size(labels)
                               + coalesce(pg_column_size(error), 0)) * 100 / runs_percent AS bytes
        FROM routines.trajectories TABLESAMPLE SYSTEM (runs_percent)
        UNION ALL
        SELECT trajectories.collection_id,
               (100 + pg_column_size(inputs) + coalesce(pg_column_size(outputs), 0) + coalesce(pg_column_size(steps.error), 0)
                + pg_column_size(earlier_errors)) * 100 / steps_percent
        FROM routines.steps TABLESAMPLE SYSTEM (steps_percent) JOIN routines.trajectories ON trajectories.id = trajectory_id
    ),
    estimated AS (
        SELECT id AS collection_id, coalesce(sum(bytes), 0)::bigint AS bytes
        FROM routines.collections LEFT JOIN sampled ON sampled.collection_id = collections.id
        GROUP BY id
    )
    INSERT INTO routines.collection_usage (collection_id, stored_bytes)
    SELECT collection_id, bytes FROM estimated WHERE bytes > 0
        OR EXISTS (SELECT FROM routines.collection_usage WHERE collection_usage.collection_id = estimated.collection_id)
    ORDER BY collection_id
    ON CONFLICT ON CONSTRAINT collection_usage_pkey DO UPDATE SET stored_bytes = excluded.stored_bytes
    WHERE collection_usage.stored_bytes <> excluded.stored_bytes;
    GET DIAGNOSTICS measured = ROW_COUNT;
    RETURN measured;
END $$;
COMMENT ON FUNCTION routines.measure_stored_bytes IS
    'Estimates stored_bytes of every collection from a random sample of at most about `most_pages` pages of trajectories and of steps; exact if the tables are smaller. Returns how many changed.';

CREATE FUNCTION routines.note_saved_files(of_collection bigint, count bigint, bytes bigint) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO routines.collection_usage (collection_id, files, file_bytes)
    SELECT of_collection, count, bytes WHERE of_collection IS NOT NULL AND count > 0
    ON CONFLICT ON CONSTRAINT collection_usage_pkey DO UPDATE
    SET files = collection_usage.files + excluded.files, file_bytes = collection_usage.file_bytes + excluded.file_bytes;
$$;
COMMENT ON FUNCTION routines.note_saved_files IS
    'Adds files just saved to the use of a collection. The next listing of the file store corrects the sum.';

-- The row is locked before it is compared, so that steps that save files at once do not exceed a limit together. Each statement
-- of the function sees what was committed while it waited.
CREATE FUNCTION routines.take_file(of_collection bigint, bytes bigint)
RETURNS TABLE (is_taken boolean, files bigint, most_files bigint, file_bytes bigint, most_bytes bigint)
LANGUAGE plpgsql VOLATILE ROWS 1 AS $$
#variable_conflict use_column
BEGIN
    most_files := routines.limit_of(of_collection, 'files');
    most_bytes := routines.limit_of(of_collection, 'file_bytes');
    INSERT INTO routines.collection_usage (collection_id) VALUES (of_collection) ON CONFLICT DO NOTHING;
    SELECT collection_usage.files, collection_usage.file_bytes INTO take_file.files, take_file.file_bytes
    FROM routines.collection_usage WHERE collection_id = of_collection FOR NO KEY UPDATE;
    is_taken := coalesce(take_file.files + 1 <= most_files, true)
                AND coalesce(take_file.file_bytes + bytes <= most_bytes, true);
    IF is_taken THEN
        UPDATE routines.collection_usage SET files = take_file.files + 1, file_bytes = take_file.file_bytes + bytes
        WHERE collection_id = of_collection;
    END IF;
    RETURN NEXT;
END $$;
COMMENT ON FUNCTION routines.take_file IS
    'Counts a file that a step is about to save, unless the collection would exceed its limits. Returns whether it was counted, and the use before with the limits; null for no limit.';

CREATE FUNCTION routines.limit_use(of_collection bigint, limit_name text, most bigint) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN CASE limit_name
        WHEN 'max_concurrent_runs' THEN (SELECT count(*) FROM (
            SELECT FROM routines.limited_runs WHERE collection_id = of_collection LIMIT most) AS counted)
        -- In the order of trajectories_active_idx, because another index could serve the collection by reading all ended runs.
        WHEN 'active_runs' THEN (SELECT count(*) FROM (
            SELECT FROM routines.trajectories WHERE ended_at IS NULL AND collection_id = of_collection
            ORDER BY collection_id, task_id, id LIMIT most) AS counted)
        WHEN 'runs_per_minute' THEN coalesce((SELECT begun FROM routines.run_minutes
            WHERE collection_id = of_collection AND minute = date_trunc('minute', clock_timestamp())), 0)
        WHEN 'routines' THEN (SELECT count(*) FROM (
            SELECT FROM routines.routine_names WHERE collection_id = of_collection LIMIT most) AS counted)
        WHEN 'tasks' THEN (SELECT count(*) FROM (
            SELECT FROM routines.tasks WHERE collection_id = of_collection LIMIT most) AS counted)
        WHEN 'feeds' THEN (SELECT count(*) FROM (
            SELECT FROM routines.feeds WHERE collection_id = of_collection LIMIT most) AS counted)
        WHEN 'calendars' THEN (SELECT count(*) FROM (
            SELECT FROM routines.calendars WHERE collection_id = of_collection LIMIT most) AS counted)
        WHEN 'alert_rules' THEN (SELECT count(*) FROM (
            SELECT FROM routines.alert_rules WHERE collection_id = of_collection LIMIT most) AS counted)
        WHEN 'pending_webhooks' THEN (SELECT count(*) FROM (
            SELECT FROM routines.webhook_deliveries WHERE next_attempt_at IS NOT NULL AND collection_id = of_collection
            ORDER BY collection_id, host, next_attempt_at LIMIT most) AS counted)
        WHEN 'stored_bytes' THEN coalesce((SELECT stored_bytes FROM routines.collection_usage
            WHERE collection_id = of_collection), 0)
        WHEN 'files' THEN coalesce((SELECT files FROM routines.collection_usage WHERE collection_id = of_collection), 0)
        WHEN 'file_bytes' THEN coalesce((SELECT file_bytes FROM routines.collection_usage
            WHERE collection_id = of_collection), 0)
    END;
END $$;
COMMENT ON FUNCTION routines.limit_use IS
    'What a collection uses of a limit. Rows are counted up to `most`, from an index. Null for a limit of a run.';

CREATE FUNCTION routines.limits_in_use(of_collection bigint, limit_names text[], most bigint)
RETURNS TABLE (name text, value bigint, default_value bigint, is_set boolean, use bigint) LANGUAGE sql STABLE ROWS 10 AS $$
    SELECT built_in_limits.name, routines.limit_of(of_collection, built_in_limits.name),
           routines.limit_of(NULL, built_in_limits.name),
           CASE built_in_limits.name
               WHEN 'max_concurrent_runs' THEN routines.limit_of(of_collection, built_in_limits.name) IS NOT NULL
               ELSE EXISTS (SELECT FROM routines.collection_limits
                            WHERE collection_limits.name = built_in_limits.name AND collection_id = of_collection) END,
           routines.limit_use(of_collection, built_in_limits.name,
                              coalesce(most, routines.limit_of(of_collection, built_in_limits.name), 0))
    FROM routines.built_in_limits WHERE limit_names IS NULL OR built_in_limits.name = ANY (limit_names);
$$;
COMMENT ON FUNCTION routines.limits_in_use IS
    'Limits of a collection with their use, all for null names. Rows are counted up to `most`; for null, up to the limit itself, which is enough to refuse.';

-------------------------------------------------------------------------------------------------------------- operators
CREATE FUNCTION routines.open_as_operator(collection_name text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    opened bigint;
BEGIN
    -- No key has the id 0. The audit reads it as the operator.
    PERFORM set_config('routines.collection_id', '', true), set_config('routines.key_id', '0', true);
    SELECT id INTO opened FROM routines.collections WHERE name = collection_name;
    PERFORM set_config('routines.collection_id', coalesce(opened::text, ''), true);
    RETURN opened;
END $$;
COMMENT ON FUNCTION routines.open_as_operator IS
    'Names a collection without a key until the transaction ends, for an operator, whose token the API has checked. Returns its id; null if there is none of this name.';
REVOKE EXECUTE ON FUNCTION routines.measure_stored_bytes, routines.note_saved_files, routines.open_as_operator FROM PUBLIC;
