-- Deletes rows older than their maximum age, a page at a time. Each statement is a transaction of its own and continues by id
-- where the previous one stopped. Ids roughly follow creation time, so old rows come first, no index on a time is needed, and a
-- pass ends at the first page that is too young. SKIP LOCKED leaves locked rows to the next pass.

-- name: begin_pass
-- One pass at a time over all workers. The lock belongs to the session, so it ends with the connection at the latest.
SELECT pg_try_advisory_lock(hashtext('routines.retention')) AS is_ours;

-- name: end_pass
SELECT pg_advisory_unlock(hashtext('routines.retention'));

-- name: delete_trajectories
-- Keeps active runs, the newest run of each existing routine and later attempts at it, runs with an active attempt, runs reported by a due
-- webhook, children of an active parent, and runs of which an active rerun keeps steps.
-- Also deletes a run's steps and deliveries.
WITH moment AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, now()) - make_interval(secs => %(keep_seconds)s::float8) AS cutoff
),
page AS MATERIALIZED (
    SELECT id, created_at, ended_at, triggered_by_routine_id, retry_of, retried_by, parent_id FROM routines.trajectories
    WHERE id > %(after)s::bigint ORDER BY id LIMIT %(page_size)s::integer
),
old AS MATERIALIZED (
    SELECT trajectories.id
    FROM routines.trajectories
    WHERE trajectories.id IN (
        SELECT page.id FROM page
        WHERE page.created_at < (SELECT cutoff FROM moment) AND page.ended_at < (SELECT cutoff FROM moment)
          AND NOT EXISTS (SELECT FROM routines.routines
                          WHERE routines.id = page.triggered_by_routine_id
                            AND routines.newest_run(routines.id) = coalesce(page.retry_of, page.id))
          AND NOT EXISTS (SELECT FROM routines.trajectories AS retry
                          WHERE page.retried_by IS NOT NULL AND retry.status IN ('pending', 'running')
                            AND retry.id = routines.last_attempt(page.id, page.retried_by))
          AND NOT EXISTS (SELECT FROM routines.webhook_deliveries
                          WHERE trajectory_id = page.id AND coalesce(next_attempt_at, 'infinity') < 'infinity')
          AND NOT EXISTS (SELECT FROM routines.trajectories AS parent
                          WHERE parent.id = page.parent_id AND parent.status IN ('pending', 'running')))
    FOR UPDATE SKIP LOCKED
),
-- Asked once they are locked.
unkept AS MATERIALIZED (SELECT id FROM old WHERE NOT routines.is_kept(id)),
gone AS (
    DELETE FROM routines.trajectories USING unkept WHERE trajectories.id = unkept.id
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
-- Keeps due deliveries, however old they are, and notices for as long as an alert that they tell.
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
      AND (rule_id IS NULL OR NOT EXISTS (SELECT FROM routines.alerts WHERE notice_id = webhook_deliveries.id)
                              AND NOT EXISTS (SELECT FROM routines.alerts WHERE recovery_notice_id = webhook_deliveries.id))
    FOR UPDATE OF webhook_deliveries SKIP LOCKED
),
gone AS (
    DELETE FROM routines.webhook_deliveries USING old WHERE webhook_deliveries.id = old.id
    RETURNING webhook_deliveries.id
)
SELECT (SELECT count(*) FROM gone)::integer AS deleted, max(id) AS last_id,
       count(*) < %(page_size)s::integer OR bool_and(created_at >= (SELECT cutoff FROM moment)) AS is_last
FROM page;

-- name: delete_audit
-- Keeps the newest revision of each routine, from which the next one is counted and by which its runs are told apart.
WITH moment AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, now()) - make_interval(secs => %(keep_seconds)s::float8) AS cutoff
),
page AS MATERIALIZED (
    SELECT id, at, kind, object_id, revision FROM routines.audit
    WHERE id > %(after)s::bigint ORDER BY id LIMIT %(page_size)s::integer
),
gone AS (
    DELETE FROM routines.audit
    WHERE id = ANY (ARRAY(
        SELECT id FROM page
        WHERE at < (SELECT cutoff FROM moment)
          AND (kind <> 'routine'
               OR revision < (SELECT later.revision FROM routines.audit AS later
                              WHERE later.kind = 'routine' AND later.object_id = page.object_id
                              ORDER BY later.object_id DESC, later.last_run_id DESC, later.revision DESC LIMIT 1)
               OR NOT EXISTS (SELECT FROM routines.routines WHERE routines.id = page.object_id))))
    RETURNING id
)
SELECT (SELECT count(*) FROM gone)::integer AS deleted, max(id) AS last_id,
       count(*) < %(page_size)s::integer OR bool_and(at >= (SELECT cutoff FROM moment)) AS is_last
FROM page;

-- name: delete_alerts
-- Keeps open alerts, which would be opened again; but not those of single slots, of which a routine that always fails has one for
-- each, nor those of deleted rules.
WITH moment AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, now()) - make_interval(secs => %(keep_seconds)s::float8) AS cutoff
),
page AS MATERIALIZED (
    SELECT id, rule_id, event, opened_at, closed_at FROM routines.alerts
    WHERE id > %(after)s::bigint ORDER BY id LIMIT %(page_size)s::integer
),
old AS MATERIALIZED (
    SELECT alerts.id FROM routines.alerts
    WHERE alerts.id = ANY (ARRAY(
        SELECT id FROM page
        WHERE opened_at < (SELECT cutoff FROM moment)
          AND (closed_at < (SELECT cutoff FROM moment) OR closed_at IS NULL AND event IN ('missed', 'failed')
               OR NOT EXISTS (SELECT FROM routines.alert_rules WHERE alert_rules.id = rule_id))))
    FOR UPDATE SKIP LOCKED
),
gone AS (
    DELETE FROM routines.alerts WHERE id = ANY (ARRAY(SELECT id FROM old)) RETURNING id
)
SELECT (SELECT count(*) FROM gone)::integer AS deleted, max(id) AS last_id,
       count(*) < %(page_size)s::integer OR bool_and(opened_at >= (SELECT cutoff FROM moment)) AS is_last
FROM page;

-- name: delete_versions
-- Deletes versions that neither the task nor a run needs. Versions only grow, so the oldest run has the oldest version that is
-- needed. Skips tasks that were changed within a day, because a run of an older version may be about to commit. A page may end
-- within a task: what can be deleted is what comes first, so the next pass goes on. By the place of each row, which nothing updates.
WITH page AS MATERIALIZED (
    SELECT ctid AS place, task_id, version, collection_id FROM routines.task_versions
    WHERE task_id > %(after)s::bigint ORDER BY task_id, version LIMIT %(page_size)s::integer
),
gone AS (
    DELETE FROM routines.task_versions
    WHERE ctid = ANY (ARRAY(
        SELECT place FROM page
        WHERE coalesce(version < (SELECT version FROM routines.tasks WHERE tasks.id = page.task_id), true)
          AND (SELECT created_at FROM routines.task_versions AS newest WHERE newest.task_id = page.task_id
               ORDER BY task_id DESC, version DESC LIMIT 1) < coalesce(%(now)s::timestamptz, now()) - interval '1 day'
          AND version < coalesce(routines.oldest_version_in_use(collection_id, task_id), version + 1)))
    RETURNING version
)
SELECT (SELECT count(*) FROM gone)::integer AS deleted, max(task_id) AS last_id, count(*) < %(page_size)s::integer AS is_last FROM page;

-- name: delete_names
-- Forgets the names of deleted routines of which the ledger has no slot left. Skips those deleted within a day.
WITH page AS MATERIALIZED (
    SELECT id, deleted_at FROM routines.deleted_routines WHERE id > %(after)s::bigint ORDER BY id LIMIT %(page_size)s::integer
),
gone AS (
    DELETE FROM routines.deleted_routines
    WHERE id IN (
        SELECT id FROM page
        WHERE deleted_at < coalesce(%(now)s::timestamptz, now()) - interval '1 day'
          AND NOT EXISTS (SELECT FROM routines.trajectories
                          WHERE triggered_by_routine_id = page.id AND scheduled_for IS NOT NULL)
          AND NOT EXISTS (SELECT FROM routines.skips WHERE routine_id = page.id))
    RETURNING id
)
SELECT (SELECT count(*) FROM gone)::integer AS deleted, max(id) AS last_id, count(*) < %(page_size)s::integer AS is_last FROM page;

-- name: delete_backfills
-- Deletes ended backfills of which no run is left. Skips those that ended within a day.
WITH page AS MATERIALIZED (
    SELECT id, ended_at FROM routines.backfills WHERE id > %(after)s::bigint ORDER BY id LIMIT %(page_size)s::integer
),
gone AS (
    DELETE FROM routines.backfills
    WHERE id = ANY (ARRAY(
        SELECT id FROM page
        WHERE ended_at < coalesce(%(now)s::timestamptz, now()) - interval '1 day'
          AND NOT EXISTS (SELECT FROM routines.trajectories WHERE backfill_id = page.id)))
    RETURNING id
)
SELECT (SELECT count(*) FROM gone)::integer AS deleted, max(id) AS last_id, count(*) < %(page_size)s::integer AS is_last FROM page;

-- name: delete_endpoints
-- Deletes endpoints that have been failing or stopped for months, otherwise the URL of a single run would stay forever. An
-- endpoint that is still gone is stopped again at its next failure.
WITH gone AS (
    DELETE FROM routines.webhook_endpoints
    WHERE id = ANY (ARRAY(
        SELECT id FROM routines.webhook_endpoints
        WHERE coalesce(stopped_at, failing_since) < coalesce(%(now)s::timestamptz, now()) - interval '90 days'
        LIMIT %(page_size)s::integer FOR UPDATE SKIP LOCKED))
    RETURNING id
)
SELECT count(*)::integer AS deleted, NULL::bigint AS last_id, count(*) < %(page_size)s::integer AS is_last FROM gone;

-- name: delete_answers
-- Deletes expired answers of clients that send no more requests. New answers delete other expired ones.
SELECT deleted, NULL::bigint AS last_id, deleted < %(page_size)s::integer AS is_last
FROM routines.delete_answers(coalesce(%(now)s::timestamptz, now()) - interval '1 day', %(page_size)s::integer) AS deleted;

-- name: identity
-- Identifies this database. A copy restored elsewhere has another id.
SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || oid AS id FROM pg_database WHERE datname = current_database();

-- name: note_orphans
-- Records those of these old files that no run uses.
INSERT INTO routines.unused_files (collection_id, path)
SELECT collection_id, path FROM unnest(%(collection_ids)s::bigint[], %(paths)s::text[]) AS stored (collection_id, path)
WHERE NOT EXISTS (SELECT FROM routines.file_uses
                  WHERE file_uses.collection_id = stored.collection_id
                    AND routines.file_id(file_uses.path) = routines.file_id(stored.path))
ON CONFLICT DO NOTHING;

-- name: judge_files
-- The next files that were recorded as unused, and which of them to delete now. A file that a run uses now is forgotten. A file
-- that an active run, a routine or a workflow names stays recorded. Files recorded within ten minutes are skipped, because a
-- transaction of that time may use them. A condemned file is deleted whatever happens: a statement that uses it locks its row
-- too.
WITH page AS MATERIALIZED (
    SELECT id, collection_id, path FROM routines.unused_files
    WHERE id > %(after)s::bigint AND noted_at < coalesce(%(now)s::timestamptz, now()) - interval '10 minutes'
    ORDER BY id LIMIT %(page_size)s::integer
),
named AS MATERIALIZED (
    SELECT DISTINCT texts.collection_id, routines.file_id(path) AS file
    FROM (
        SELECT collection_id, init_params::text AS text FROM routines.trajectories
        WHERE ended_at IS NULL AND collection_id IN (SELECT collection_id FROM page)
        UNION ALL
        SELECT collection_id, init_params_overrides::text FROM routines.routines
        WHERE collection_id IN (SELECT collection_id FROM page)
        UNION ALL
        SELECT collection_id, workflow::text FROM routines.task_versions
        WHERE collection_id IN (SELECT collection_id FROM page)
    ) AS texts CROSS JOIN LATERAL routines.file_paths(text) AS path
    WHERE text ~ '[0-9a-f]{32}-'
),
used AS MATERIALIZED (
    SELECT id FROM page
    WHERE EXISTS (SELECT FROM routines.file_uses
                  WHERE file_uses.collection_id = page.collection_id
                    AND routines.file_id(file_uses.path) = routines.file_id(page.path))
),
saved AS (
    DELETE FROM routines.unused_files USING used WHERE unused_files.id = used.id AND condemned_at IS NULL
),
condemned AS (
    UPDATE routines.unused_files SET condemned_at = coalesce(condemned_at, now())
    FROM page
    WHERE unused_files.id = page.id
      AND (condemned_at IS NOT NULL
           OR page.id NOT IN (SELECT id FROM used)
              AND NOT EXISTS (SELECT FROM named WHERE named.collection_id = page.collection_id
                                                  AND named.file = routines.file_id(page.path)))
    RETURNING unused_files.id
)
SELECT page.id, collection_id, path, condemned.id IS NOT NULL AS is_condemned
FROM page LEFT JOIN condemned USING (id) ORDER BY page.id;

-- name: forget_files
-- Forgets files after their deletion.
DELETE FROM routines.unused_files WHERE id = ANY (%(ids)s::bigint[]) AND condemned_at IS NOT NULL;
