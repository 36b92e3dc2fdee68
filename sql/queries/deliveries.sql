-- Webhooks: a queue with one lane per receiver, so that a hanging receiver delays no other. `now` moves the clock in tests.
-- Every write after the claim names the fence, as with runs.

-- name: claim
-- Alternates between the lanes, taking the earliest due delivery of each. No lane and no collection gets more than its share,
-- counted over all workers. A claimed delivery has its lease in next_attempt_at: if its worker is lost it becomes due again,
-- and an attempt with unknown outcome is recorded. SKIP LOCKED leaves rows alone that another worker is claiming.
WITH RECURSIVE moment AS MATERIALIZED (SELECT coalesce(%(now)s::timestamptz, now()) AS now),
claimed_now AS MATERIALIZED (
    SELECT collection_id, host, count(*) AS number FROM routines.webhook_deliveries
    WHERE claimed_at IS NOT NULL AND next_attempt_at > (SELECT now FROM moment)
    GROUP BY collection_id, host
),
-- Steps from lane to lane through the index, whatever the number of deliveries in each.
lanes AS (
    (SELECT collection_id, host FROM routines.webhook_deliveries
     WHERE next_attempt_at IS NOT NULL
       AND (SELECT min(next_attempt_at) FROM routines.webhook_deliveries) <= (SELECT now FROM moment)
     ORDER BY collection_id, host LIMIT 1)
    UNION ALL
    SELECT following.collection_id, following.host
    FROM lanes CROSS JOIN LATERAL (
        SELECT waiting.collection_id, waiting.host FROM routines.webhook_deliveries AS waiting
        WHERE next_attempt_at IS NOT NULL AND (waiting.collection_id, waiting.host) > (lanes.collection_id, lanes.host)
        ORDER BY waiting.collection_id, waiting.host LIMIT 1) AS following
),
due AS MATERIALIZED (
    SELECT first.id, first.next_attempt_at, lanes.collection_id,
           row_number() OVER (PARTITION BY lanes.collection_id ORDER BY first.rank, first.next_attempt_at) AS rank
    FROM lanes
    LEFT JOIN claimed_now ON claimed_now.collection_id = lanes.collection_id AND claimed_now.host = lanes.host
    CROSS JOIN LATERAL (
        SELECT head.*, row_number() OVER (ORDER BY head.next_attempt_at) AS rank
        FROM (SELECT id, next_attempt_at FROM routines.webhook_deliveries AS waiting
              WHERE waiting.collection_id = lanes.collection_id AND waiting.host = lanes.host
                AND next_attempt_at <= (SELECT now FROM moment)
                AND (is_redelivery OR NOT EXISTS (
                    SELECT FROM routines.webhook_endpoints
                    WHERE webhook_endpoints.collection_id = waiting.collection_id
                      AND md5(webhook_endpoints.url) = md5(waiting.url) AND stopped_at IS NOT NULL))
              ORDER BY next_attempt_at
              LIMIT greatest(0, %(per_host)s::integer - coalesce(claimed_now.number, 0))) AS head
    ) AS first
),
chosen AS MATERIALIZED (
    SELECT id FROM due
    WHERE rank <= %(per_collection)s::integer
                  - coalesce((SELECT sum(number) FROM claimed_now WHERE claimed_now.collection_id = due.collection_id), 0)
    ORDER BY rank, next_attempt_at
    LIMIT %(capacity)s::integer
),
locked AS MATERIALIZED (
    SELECT webhook_deliveries.id FROM routines.webhook_deliveries JOIN chosen ON chosen.id = webhook_deliveries.id
    WHERE next_attempt_at <= (SELECT now FROM moment)  -- checked again under the lock
    FOR UPDATE OF webhook_deliveries SKIP LOCKED
),
claimed AS (
    UPDATE routines.webhook_deliveries
    SET fence = fence + 1, claimed_at = (SELECT now FROM moment),
        next_attempt_at = (SELECT now FROM moment) + make_interval(secs => %(lease_seconds)s::float8),
        attempts = CASE WHEN claimed_at IS NULL THEN attempts ELSE routines.with_attempt(
            attempts, claimed_at, NULL, 'the worker was lost: it is unknown whether it arrived', NULL) END
    FROM locked WHERE webhook_deliveries.id = locked.id
    RETURNING webhook_deliveries.id, fence, collection_id, routine_id, trajectory_id, url, event_id, event_status, body,
              failures, secret_id
)
SELECT claimed.id, fence, claimed.collection_id, routine_id, trajectory_id, url, event_id::text, event_status, body, failures,
       secret_id, ciphertext, extract(epoch FROM (SELECT now FROM moment))::bigint AS timestamp
FROM claimed LEFT JOIN routines.secrets ON secrets.id = secret_id
ORDER BY claimed.id;

-- name: find_event
-- The run that a delivery reports, as the API shows it. No row if it was deleted, together with the delivery.
SELECT trajectory_id, workflow_id, run_id, name, status, created, updated, created_at, started_at, ended_at,
       init_params, step_configs, steps, total_steps, completed_steps, labels, error, triggered_by_routine_id,
       scheduled_for, trigger, webhook_url
FROM routines.trajectory_details WHERE trajectory_id = %(trajectory_id)s::bigint;

-- name: keep_body
UPDATE routines.webhook_deliveries SET body = %(body)s::bytea
WHERE id = %(id)s::bigint AND fence = %(fence)s::integer AND claimed_at IS NOT NULL;

-- name: settle
-- Records the outcome of an attempt: delivered if there is no error. A failure is tried again after `delay_seconds`, or given
-- up if that is null. A failing endpoint is recorded, stopped if it is gone or has failed for too long, and forgotten once it
-- works.
WITH moment AS MATERIALIZED (SELECT coalesce(%(now)s::timestamptz, now()) AS now),
settled AS (
    UPDATE routines.webhook_deliveries
    SET attempts = routines.with_attempt(attempts, claimed_at, %(status)s::integer, %(error)s::text, %(duration_seconds)s::float8),
        delivered_at = CASE WHEN %(error)s::text IS NULL THEN now ELSE delivered_at END,
        failures = failures + CASE WHEN %(error)s::text IS NULL THEN 0 ELSE 1 END,
        next_attempt_at = CASE WHEN %(error)s::text IS NOT NULL
                          THEN now + make_interval(secs => %(delay_seconds)s::float8) END,
        give_up_reason = CASE WHEN %(error)s::text IS NOT NULL AND %(delay_seconds)s::float8 IS NULL THEN %(error)s::text END,
        claimed_at = NULL, is_redelivery = false
    FROM moment
    WHERE id = %(id)s::bigint AND fence = %(fence)s::integer AND claimed_at IS NOT NULL
    RETURNING collection_id, url, now
),
works AS (
    DELETE FROM routines.webhook_endpoints USING settled
    WHERE webhook_endpoints.collection_id = settled.collection_id AND md5(webhook_endpoints.url) = md5(settled.url)
      AND %(error)s::text IS NULL
),
fails AS (
    INSERT INTO routines.webhook_endpoints AS endpoint (collection_id, url, failing_since, stopped_at, stopped_reason)
    SELECT collection_id, url, now, CASE WHEN %(is_gone)s::boolean THEN now END,
           CASE WHEN %(is_gone)s::boolean THEN 'it answered 410: gone' END
    FROM settled WHERE %(is_endpoints_fault)s::boolean
    ON CONFLICT (collection_id, md5(url)) DO UPDATE
    SET stopped_at = excluded.failing_since,
        stopped_reason = coalesce(excluded.stopped_reason, 'it has failed since ' || to_char(
            endpoint.failing_since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
    WHERE endpoint.stopped_at IS NULL AND (excluded.stopped_at IS NOT NULL OR endpoint.failing_since
          <= excluded.failing_since - make_interval(secs => %(stop_after_seconds)s::float8))
    RETURNING stopped_reason
)
SELECT (SELECT count(*) FROM settled)::integer AS settled, (SELECT stopped_reason FROM fails) AS stopped_reason;

-- name: release
-- A worker that stops releases its deliveries: due at once, and fenced off from this worker.
UPDATE routines.webhook_deliveries
SET fence = webhook_deliveries.fence + 1, next_attempt_at = now(), claimed_at = NULL,
    attempts = routines.with_attempt(attempts, claimed_at, NULL, 'the worker was stopped meanwhile', NULL)
FROM unnest(%(ids)s::bigint[], %(fences)s::integer[]) AS claimed (id, fence)
WHERE webhook_deliveries.id = claimed.id AND webhook_deliveries.fence = claimed.fence AND claimed_at IS NOT NULL;

-- name: give_up_stopped
-- Gives up due deliveries to a stopped endpoint, except those that a person requested again.
WITH due AS MATERIALIZED (
    SELECT webhook_deliveries.id, stopped_at, stopped_reason
    FROM routines.webhook_endpoints JOIN routines.webhook_deliveries
         ON webhook_deliveries.collection_id = webhook_endpoints.collection_id
        AND webhook_deliveries.host = webhook_endpoints.host AND webhook_deliveries.url = webhook_endpoints.url
    WHERE stopped_at IS NOT NULL AND NOT is_redelivery AND next_attempt_at <= coalesce(%(now)s::timestamptz, now())
    LIMIT %(batch_size)s::integer
    FOR UPDATE OF webhook_deliveries SKIP LOCKED
)
UPDATE routines.webhook_deliveries
SET fence = fence + 1, next_attempt_at = NULL, claimed_at = NULL,
    give_up_reason = 'the endpoint is stopped: ' || stopped_reason
FROM due WHERE webhook_deliveries.id = due.id;

-- name: list_deliveries
-- A routine's deliveries, newest first, older than the cursor.
SELECT webhook_deliveries.id, event_id::text AS webhook_id, trajectory_id, webhook_deliveries.url, event_status AS status,
       CASE WHEN next_attempt_at IS NOT NULL THEN 'pending' WHEN give_up_reason IS NULL THEN 'delivered'
            ELSE 'given_up' END AS state,
       attempts, next_attempt_at, delivered_at, give_up_reason, webhook_deliveries.created_at, stopped_at AS endpoint_stopped_at,
       stopped_reason AS endpoint_stopped_reason
FROM routines.tasks
JOIN routines.routine_names ON routine_names.task_id = tasks.id
JOIN routines.webhook_deliveries ON webhook_deliveries.routine_id = routine_names.routine_id
LEFT JOIN routines.webhook_endpoints ON webhook_endpoints.collection_id = webhook_deliveries.collection_id
      AND md5(webhook_endpoints.url) = md5(webhook_deliveries.url)
WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND tasks.name = %(task)s::text
  AND routine_names.name = %(name)s::text
  AND (%(id)s::bigint IS NULL OR webhook_deliveries.id = %(id)s::bigint)
  AND (%(before)s::bigint IS NULL OR webhook_deliveries.id < %(before)s::bigint)
ORDER BY webhook_deliveries.id DESC
LIMIT %(limit)s::integer;

-- name: redeliver
-- Makes a delivery due at once, from the start of the retry schedule. It is signed with the routine's present secret if the
-- routine still names this URL, otherwise as before. A claimed delivery is left alone. No row if it does not exist, is
-- claimed, or its signing secret was deleted.
UPDATE routines.webhook_deliveries
SET next_attempt_at = now(), failures = 0, give_up_reason = NULL, is_redelivery = true,
    secret_id = CASE WHEN routine.webhook_url = url THEN routine.webhook_secret_id ELSE secret_id END
FROM routines.tasks
JOIN routines.routine_names ON routine_names.task_id = tasks.id
JOIN routines.routines AS routine ON routine.id = routine_names.routine_id
WHERE tasks.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND tasks.name = %(task)s::text
  AND routine_names.name = %(name)s::text AND webhook_deliveries.routine_id = routine.id
  AND webhook_deliveries.id = %(id)s::bigint AND claimed_at IS NULL
  AND (routine.webhook_url = url OR secret_id IS NULL OR EXISTS (SELECT FROM routines.secrets WHERE secrets.id = secret_id));
