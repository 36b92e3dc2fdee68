-- What has changed since an earlier answer, for clients that follow a collection. Nothing is written for it: a row tells by its xmin which
-- transaction wrote it. Each fire, skip, pause and edit writes the row of the routine, and the first claim of a run one of begun_runs;
-- the ends of runs are found by their time. Read only.
--
-- An answer names a moment: `xid`, below which every transaction had ended and was seen, and `at`. What ends later has a higher xid, even if
-- it began earlier, so the next answer misses nothing; what ended meanwhile may be in both. `is_known` is false for a moment that is more
-- than an hour old, and for one of another life of the database: xids begin again after a restore.

-- name: changed_routines
-- The ids of routines that may have changed, those that were deleted, and whether these are all. A transaction takes less than 15 s from
-- now() to its end, or the end of a run that it writes is seen only with the next change of the routine.
WITH moment AS MATERIALIZED (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xid, now() AS at,
           (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AS collection_id,
           coalesce(%(since_xid)s::xid8 <= pg_snapshot_xmax(pg_current_snapshot())
                    AND %(since)s::timestamptz > now() - interval '1 hour', false) AS is_known,
           age(%(since_xid)s::xid8::xid) AS oldest, %(since)s::timestamptz - interval '15 seconds' AS since
),
ended AS MATERIALIZED (
    SELECT triggered_by_routine_id AS id, xmin AS xid FROM routines.trajectories
    WHERE (SELECT is_known FROM moment)
      AND collection_id = (SELECT collection_id FROM moment) AND ended_at >= (SELECT since FROM moment)
    -- In the order of trajectories_ended_at_idx: without one, a LIMIT lets Postgres hope for them at the beginning of the table.
    ORDER BY collection_id DESC, ended_at DESC
    LIMIT %(most_runs)s::integer
),
found AS MATERIALIZED (
    SELECT DISTINCT id FROM (
        SELECT routines.id FROM routines.routine_names JOIN routines.routines ON routines.id = routine_names.routine_id
        WHERE (SELECT is_known FROM moment)
          AND routine_names.collection_id = (SELECT collection_id FROM moment) AND age(routines.xmin) <= (SELECT oldest FROM moment)
        UNION ALL
        SELECT triggered_by_routine_id FROM routines.tasks
        JOIN routines.begun_runs ON begun_runs.task_id = tasks.id
        CROSS JOIN LATERAL (SELECT triggered_by_routine_id FROM routines.trajectories WHERE trajectories.id = trajectory_id LIMIT 1) AS run
        WHERE (SELECT is_known FROM moment)
          AND tasks.collection_id = (SELECT collection_id FROM moment) AND age(begun_runs.xmin) <= (SELECT oldest FROM moment)
        UNION ALL
        SELECT id FROM ended WHERE age(xid) <= (SELECT oldest FROM moment)
    ) AS changed
    WHERE id IS NOT NULL
    LIMIT %(most)s::integer + 1
),
deleted AS MATERIALIZED (
    SELECT id FROM routines.deleted_routines
    WHERE (SELECT is_known FROM moment) AND collection_id = (SELECT collection_id FROM moment)
      AND deleted_at >= (SELECT since FROM moment) AND age(xmin) <= (SELECT oldest FROM moment)
    LIMIT %(most)s::integer + 1
)
SELECT xid::text AS xid, at, ARRAY(SELECT id FROM deleted ORDER BY id) AS deleted,
       ARRAY(SELECT found.id FROM found JOIN routines.routines ON routines.id = found.id
             WHERE routines.collection_id = moment.collection_id ORDER BY found.id) AS ids,
       is_known AND (SELECT count(*) FROM ended) < %(most_runs)s::integer
       AND (SELECT count(*) FROM found) <= %(most)s::integer AND (SELECT count(*) FROM deleted) <= %(most)s::integer AS is_whole
FROM moment;

-- name: changed_routine
-- The same of one routine: whether its row has changed, or one of its newest runs or skips, at whatever time it ended.
WITH moment AS MATERIALIZED (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xid, now() AS at,
           (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AS collection_id,
           coalesce(%(since_xid)s::xid8 <= pg_snapshot_xmax(pg_current_snapshot())
                    AND %(since)s::timestamptz > now() - interval '1 hour', false) AS is_known,
           age(%(since_xid)s::xid8::xid) AS oldest
),
written AS (
    SELECT xmin AS xid FROM routines.routines WHERE id = %(routine_id)s::bigint
    UNION ALL
    (SELECT xmin FROM routines.trajectories WHERE triggered_by_routine_id = %(routine_id)s::bigint AND scheduled_for IS NOT NULL
     ORDER BY scheduled_for DESC LIMIT 100)
    UNION ALL
    SELECT unscheduled.xid FROM unnest(ARRAY['run-now', 'retry', 'rerun', 'backfill']) AS wanted (trigger)
    CROSS JOIN LATERAL (
        SELECT xmin AS xid FROM routines.trajectories
        WHERE triggered_by_routine_id = %(routine_id)s::bigint AND scheduled_for IS NULL AND trigger = wanted.trigger
        ORDER BY id DESC LIMIT 20) AS unscheduled
    UNION ALL
    (SELECT xmin FROM routines.skips WHERE routine_id = %(routine_id)s::bigint ORDER BY scheduled_for DESC LIMIT 100)
)
SELECT xid::text AS xid, at,
       ARRAY(SELECT id FROM routines.routines
             WHERE id = %(routine_id)s::bigint AND routines.collection_id = moment.collection_id AND is_known
               AND EXISTS (SELECT FROM written WHERE age(written.xid) <= oldest)) AS ids,
       ARRAY(SELECT id FROM routines.deleted_routines
             WHERE id = %(routine_id)s::bigint AND deleted_routines.collection_id = moment.collection_id AND is_known
               AND age(deleted_routines.xmin) <= oldest) AS deleted,
       is_known AS is_whole
FROM moment;

-- name: changed_run
-- Whether a run, one of its steps or a run that it has started may have changed; no row if the task has no such run. Renewing a lease counts
-- too, since a checkpoint does that.
WITH moment AS MATERIALIZED (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS xid, now() AS at,
           coalesce(%(since_xid)s::xid8 <= pg_snapshot_xmax(pg_current_snapshot())
                    AND %(since)s::timestamptz > now() - interval '1 hour', false) AS is_known,
           age(%(since_xid)s::xid8::xid) AS oldest
),
run AS MATERIALIZED (
    SELECT id, age(trajectories.xmin) AS age
    FROM routines.trajectory_details JOIN routines.trajectories ON trajectories.id = trajectory_id
    WHERE trajectory_details.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
      AND task_name = %(task)s::text AND trajectory_id = %(run_id)s::bigint
)
SELECT xid::text AS xid, at, %(since)s::timestamptz IS NOT NULL AND (
           NOT is_known OR run.age <= oldest
           OR EXISTS (SELECT FROM routines.steps WHERE trajectory_id = run.id AND age(steps.xmin) <= oldest)
           OR EXISTS (SELECT FROM routines.trajectories AS child WHERE parent_id = run.id AND age(child.xmin) <= oldest)) AS has_changed
FROM moment, run;
