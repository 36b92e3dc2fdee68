-- Limits of collections and of their runs, and how much of each is used.

-- name: list_own_limits
-- All limits of the key's collection. Rows are counted up to `most`.
SELECT name, value, default_value, is_set, use
FROM routines.limits_in_use((SELECT routines.collection_of_key(%(key_id)s::routines.caller)), NULL, %(most)s::bigint);

-- name: list_own_limited_tasks
SELECT name AS task, max_concurrent_runs, (SELECT count(*) FROM routines.limited_runs WHERE task_id = tasks.id) AS use
FROM routines.tasks
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND max_concurrent_runs IS NOT NULL
ORDER BY name;

-- name: measure
-- These limits of the key's collection, each use counted up to its limit, which is enough to refuse.
SELECT name, value, default_value, is_set, use
FROM routines.limits_in_use((SELECT routines.collection_of_key(%(key_id)s::routines.caller)), %(names)s::text[], NULL);

-- name: take_runs
-- Reserves up to `wanted` of the runs that the key's collection may begin in the present minute.
SELECT granted, most, begun, seconds_left
FROM routines.take_runs((SELECT routines.collection_of_key(%(key_id)s::routines.caller)), %(wanted)s::bigint);

-- name: note_own_files
SELECT true AS is_noted FROM routines.note_saved_files(
    (SELECT routines.collection_of_key(%(key_id)s::routines.caller)), %(files)s::bigint, %(bytes)s::bigint);

-- name: open_as_operator
-- For an operator at the API: names the collection until the transaction ends. Null if it does not exist.
SELECT routines.open_as_operator(%(collection)s::text) AS id;

-- name: find_collection
-- For the command line, which runs as the owner.
SELECT id FROM routines.collections WHERE name = %(collection)s::text;

-- name: list_limits
-- All limits of a collection that the session may see; for a null collection the defaults.
SELECT name, value, default_value, is_set, use
FROM routines.limits_in_use(%(collection_id)s::bigint, NULL, %(most)s::bigint);

-- name: list_limited_tasks
SELECT name AS task, max_concurrent_runs, (SELECT count(*) FROM routines.limited_runs WHERE task_id = tasks.id) AS use
FROM routines.tasks
WHERE collection_id = %(collection_id)s::bigint AND max_concurrent_runs IS NOT NULL
ORDER BY name;

-- name: list_set_limits
-- What operators have set: defaults first, then collections and their tasks.
SELECT collections.name AS collection, NULL::text AS task, collection_limits.name AS limit_name, collection_limits.value
FROM routines.collection_limits LEFT JOIN routines.collections ON collections.id = collection_id
UNION ALL
SELECT name, NULL, 'max_concurrent_runs', max_concurrent_runs FROM routines.collections WHERE max_concurrent_runs IS NOT NULL
UNION ALL
SELECT collections.name, tasks.name, 'max_concurrent_runs', tasks.max_concurrent_runs
FROM routines.tasks JOIN routines.collections ON collections.id = tasks.collection_id
WHERE tasks.max_concurrent_runs IS NOT NULL
ORDER BY collection NULLS FIRST, task NULLS FIRST, limit_name;

-- name: set_limit
-- For a null collection the default of all collections.
INSERT INTO routines.collection_limits (collection_id, name, value)
VALUES (%(collection_id)s::bigint, %(name)s::text, %(value)s::bigint)
ON CONFLICT ON CONSTRAINT collection_limits_key DO UPDATE SET value = excluded.value, set_at = now();

-- name: reset_limit
DELETE FROM routines.collection_limits
WHERE collection_id IS NOT DISTINCT FROM %(collection_id)s::bigint AND name = %(name)s::text;

-- name: limit_collection
-- How many of its runs workers may have claimed at once; null for no limit.
UPDATE routines.collections SET max_concurrent_runs = %(most)s::integer WHERE id = %(collection_id)s::bigint;

-- name: limit_task
UPDATE routines.tasks SET max_concurrent_runs = %(most)s::integer
WHERE collection_id = %(collection_id)s::bigint AND name = %(task)s::text;

-- name: measure_stored_bytes
-- For a worker: estimates what all collections have stored. Returns how many estimates changed.
SELECT routines.measure_stored_bytes(%(most_pages)s::integer) AS changed;

-- name: note_listed_files
-- For a worker that has listed the file store: replaces the counts of all collections.
WITH listed AS (
    SELECT collections.id AS collection_id, coalesce(files, 0) AS files, coalesce(bytes, 0) AS bytes
    FROM routines.collections
    LEFT JOIN unnest(%(collection_ids)s::bigint[], %(files)s::bigint[], %(bytes)s::bigint[])
              AS found (collection_id, files, bytes) ON found.collection_id = collections.id
)
INSERT INTO routines.collection_usage (collection_id, files, file_bytes)
SELECT collection_id, files, bytes FROM listed
WHERE files > 0 OR EXISTS (SELECT FROM routines.collection_usage WHERE collection_usage.collection_id = listed.collection_id)
ORDER BY collection_id
ON CONFLICT ON CONSTRAINT collection_usage_pkey DO UPDATE SET files = excluded.files, file_bytes = excluded.file_bytes
WHERE (collection_usage.files, collection_usage.file_bytes) <> (excluded.files, excluded.file_bytes);

-- name: take_file
-- For a worker whose step is about to save a file: counts it, unless that would exceed a limit of the collection.
SELECT is_taken, files, most_files, file_bytes, most_bytes
FROM routines.take_file(%(collection_id)s::bigint, %(bytes)s::bigint);

-- name: give_back_file
-- For a worker whose step could not save a file that take_file has counted.
UPDATE routines.collection_usage
SET files = greatest(0, files - 1), file_bytes = greatest(0, file_bytes - %(bytes)s::bigint)
WHERE collection_id = %(collection_id)s::bigint;

-- name: run_limits
-- For a worker: the limits of each run of a collection; null for no limit.
SELECT step_bytes, steps, children, log_events, secrets FROM routines.run_limits(%(collection_id)s::bigint);
