-- What is older than its age goes, a page at a time: each statement is a transaction of its own, and walks on by id from
-- where the one before stopped. Rows are made in the order of their ids, near enough: the old ones are the first, no index
-- on a time is needed, and a pass ends at the first page that is too young. SKIP LOCKED: what somebody holds goes next time.

-- name: begin_pass
-- One pass at a time, whichever worker makes it. The lock is the session's: it ends with the connection at the latest.
SELECT pg_try_advisory_lock(hashtext('routines.retention')) AS is_ours;

-- name: end_pass
SELECT pg_advisory_unlock(hashtext('routines.retention'));

-- name: delete_trajectories
-- Stays: what is active, the newest run of a routine that still exists, what a webhook that is due tells of, and a child
-- whose parent is active. Steps and deliveries go with their run.
WITH moment AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, now()) - make_interval(secs => %(keep_seconds)s::float8) AS cutoff
),
page AS MATERIALIZED (
    SELECT id, created_at, ended_at, triggered_by_routine_id, parent_id FROM routines.trajectories
    WHERE id > %(after)s::bigint ORDER BY id LIMIT %(page_size)s::integer
),
old AS MATERIALIZED (
    SELECT trajectories.id
    FROM routines.trajectories
    WHERE trajectories.id IN (
        SELECT page.id FROM page
        WHERE page.created_at < (SELECT cutoff FROM moment) AND page.ended_at < (SELECT cutoff FROM moment)
          AND NOT EXISTS (SELECT FROM routines.routines
                          WHERE routines.id = page.triggered_by_routine_id AND routines.newest_run(routines.id) = page.id)
          AND NOT EXISTS (SELECT FROM routines.webhook_deliveries
                          WHERE trajectory_id = page.id AND next_attempt_at IS NOT NULL)
          AND NOT EXISTS (SELECT FROM routines.trajectories AS parent
                          WHERE parent.id = page.parent_id AND parent.ended_at IS NULL))
    FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM routines.trajectories USING old WHERE trajectories.id = old.id
    RETURNING trajectories.scheduled_for
),
noted AS (
    INSERT INTO routines.retention (what, deleted_until)
    SELECT 'trajectories', max(scheduled_for) FROM gone HAVING max(scheduled_for) IS NOT NULL
    ON CONFLICT ON CONSTRAINT retention_pkey DO UPDATE
    SET deleted_until = greatest(retention.deleted_until, excluded.deleted_until)
)
SELECT (SELECT count(*) FROM gone)::integer AS deleted, max(id) AS last_id,
       count(*) < %(page_size)s::integer OR bool_and(created_at >= (SELECT cutoff FROM moment)) AS is_last
FROM page;

-- name: delete_skips
WITH moment AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, now()) - make_interval(secs => %(keep_seconds)s::float8) AS cutoff
),
page AS MATERIALIZED (
    SELECT id, recorded_at FROM routines.skips WHERE id > %(after)s::bigint ORDER BY id LIMIT %(page_size)s::integer
),
gone AS (
    DELETE FROM routines.skips USING page
    WHERE skips.id = page.id AND page.recorded_at < (SELECT cutoff FROM moment)
    RETURNING last_scheduled_for
),
noted AS (
    INSERT INTO routines.retention (what, deleted_until)
    SELECT 'skips', max(last_scheduled_for) FROM gone HAVING count(*) > 0
    ON CONFLICT ON CONSTRAINT retention_pkey DO UPDATE
    SET deleted_until = greatest(retention.deleted_until, excluded.deleted_until)
)
SELECT (SELECT count(*) FROM gone)::integer AS deleted, max(id) AS last_id,
       count(*) < %(page_size)s::integer OR bool_and(recorded_at >= (SELECT cutoff FROM moment)) AS is_last
FROM page;

-- name: delete_deliveries
-- What is due stays, however old it is.
WITH moment AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, now()) - make_interval(secs => %(keep_seconds)s::float8) AS cutoff
),
page AS MATERIALIZED (
    SELECT id, created_at FROM routines.webhook_deliveries
    WHERE id > %(after)s::bigint ORDER BY id LIMIT %(page_size)s::integer
),
old AS MATERIALIZED (
    SELECT webhook_deliveries.id FROM routines.webhook_deliveries JOIN page ON page.id = webhook_deliveries.id
    WHERE page.created_at < (SELECT cutoff FROM moment) AND next_attempt_at IS NULL
      AND (delivered_at IS NULL OR delivered_at < (SELECT cutoff FROM moment))
    FOR UPDATE OF webhook_deliveries SKIP LOCKED
),
gone AS (
    DELETE FROM routines.webhook_deliveries USING old WHERE webhook_deliveries.id = old.id
    RETURNING webhook_deliveries.id
)
SELECT (SELECT count(*) FROM gone)::integer AS deleted, max(id) AS last_id,
       count(*) < %(page_size)s::integer OR bool_and(created_at >= (SELECT cutoff FROM moment)) AS is_last
FROM page;

-- name: delete_versions
-- Versions of a workflow that neither the task nor a run needs. Versions only grow, so the oldest run that is kept has the
-- oldest one that is needed. A task that was changed within a day is left alone: a run may be about to be committed.
WITH gone AS (
    DELETE FROM routines.task_versions
    WHERE (task_id, version) IN (
        SELECT old.task_id, old.version FROM routines.task_versions AS old
        LEFT JOIN routines.tasks ON tasks.id = old.task_id
        WHERE (tasks.id IS NULL OR old.version < tasks.version)
          AND old.version < coalesce((SELECT task_version FROM routines.trajectories
                                      WHERE trajectories.task_id = old.task_id ORDER BY id LIMIT 1), old.version + 1)
          AND NOT EXISTS (SELECT FROM routines.task_versions AS recent
                          WHERE recent.task_id = old.task_id
                            AND recent.created_at >= coalesce(%(now)s::timestamptz, now()) - interval '1 day')
        LIMIT %(page_size)s::integer)
    RETURNING version
)
SELECT count(*)::integer AS deleted, NULL::bigint AS last_id, count(*) < %(page_size)s::integer AS is_last FROM gone;

-- name: delete_endpoints
-- Those that nothing was sent to for months: a URL of one run alone would stay for ever. One that is still gone is stopped
-- again at its next failure.
WITH gone AS (
    DELETE FROM routines.webhook_endpoints
    WHERE id IN (SELECT id FROM routines.webhook_endpoints
                 WHERE coalesce(stopped_at, failing_since) < coalesce(%(now)s::timestamptz, now()) - interval '90 days'
                 LIMIT %(page_size)s::integer FOR UPDATE SKIP LOCKED)
    RETURNING id
)
SELECT count(*)::integer AS deleted, NULL::bigint AS last_id, count(*) < %(page_size)s::integer AS is_last FROM gone;

-- name: delete_answers
-- Answers that are kept for an Idempotency-Key of a client that asks no more; others go as new ones come.
WITH gone AS (
    DELETE FROM routines.idempotency_keys
    WHERE (key_id, idempotency_key) IN (
        SELECT key_id, idempotency_key FROM routines.idempotency_keys
        WHERE created_at < coalesce(%(now)s::timestamptz, now()) - interval '1 day'
        ORDER BY created_at LIMIT %(page_size)s::integer FOR UPDATE SKIP LOCKED)
    RETURNING key_id
)
SELECT count(*)::integer AS deleted, NULL::bigint AS last_id, count(*) < %(page_size)s::integer AS is_last FROM gone;
