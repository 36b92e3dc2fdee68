-- Webhooks: a queue with one lane per receiver, so that a hanging receiver delays no other. `now` moves the clock in tests.
-- Every write after the claim names the fence, as with runs.

-- name: claim
-- Alternates between collections, and in each between its lanes, taking the earliest due delivery of each. No lane and no
-- collection gets more than its share, counted over all workers. The more deliveries a collection has claimed, the more of
-- this worker's capacity must stay free for others: its first may take the last place, its ninth leaves the whole reserve.
-- A claimed delivery has its lease in next_attempt_at: if its worker is lost it becomes due again, and an attempt with unknown
-- outcome is recorded, which counts as a failure. SKIP LOCKED leaves rows alone that another worker is claiming.
WITH RECURSIVE moment AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, now()) AS now, floor(random() * 4294967296)::bigint - 2147483648 AS first_lane
),
claimed_now AS MATERIALIZED (
    SELECT collection_id, lane, count(*) AS number FROM routines.webhook_deliveries
    WHERE claimed_at IS NOT NULL AND next_attempt_at > (SELECT now FROM moment)
    GROUP BY collection_id, lane
),
-- Steps from collection to collection through the index, whatever the number of deliveries in each.
collections AS (
    (SELECT collection_id FROM routines.webhook_deliveries
     WHERE next_attempt_at IS NOT NULL
       AND (SELECT min(next_attempt_at) FROM routines.webhook_deliveries) <= (SELECT now FROM moment)
     ORDER BY collection_id LIMIT 1)
    UNION ALL
    SELECT following.collection_id
    FROM collections CROSS JOIN LATERAL (
        SELECT waiting.collection_id FROM routines.webhook_deliveries AS waiting
        WHERE next_attempt_at IS NOT NULL AND waiting.collection_id > collections.collection_id
        ORDER BY waiting.collection_id LIMIT 1) AS following
),
due AS MATERIALIZED (
    SELECT first.id, first.next_attempt_at, collections.collection_id,
           coalesce((SELECT sum(number) FROM claimed_now WHERE claimed_now.collection_id = collections.collection_id), 0)
           + row_number() OVER (PARTITION BY collections.collection_id ORDER BY first.rank, first.next_attempt_at) AS place
    FROM collections
    CROSS JOIN LATERAL (
        -- Some lanes of the collection, starting at a random one and wrapping around: a collection with many receivers must
        -- not slow down every claim.
        WITH RECURSIVE lanes AS (
            SELECT first_lane - 1 AS lane, false AS is_round, 0 AS number FROM moment
            UNION ALL
            SELECT following.lane, following.is_round, lanes.number + 1
            FROM lanes CROSS JOIN moment CROSS JOIN LATERAL (
                (SELECT waiting.lane::bigint, lanes.is_round FROM routines.webhook_deliveries AS waiting
                 WHERE next_attempt_at IS NOT NULL AND waiting.collection_id = collections.collection_id
                   AND waiting.lane > lanes.lane AND (NOT lanes.is_round OR waiting.lane < first_lane)
                 ORDER BY waiting.collection_id, waiting.lane LIMIT 1)
                UNION ALL
                (SELECT waiting.lane::bigint, true FROM routines.webhook_deliveries AS waiting
                 WHERE next_attempt_at IS NOT NULL AND waiting.collection_id = collections.collection_id
                   AND waiting.lane < first_lane AND NOT lanes.is_round
                 ORDER BY waiting.collection_id, waiting.lane LIMIT 1)
                LIMIT 1) AS following
            WHERE lanes.number < %(most_lanes)s::integer
        )
        SELECT head.id, head.next_attempt_at,
               row_number() OVER (PARTITION BY lanes.lane ORDER BY head.next_attempt_at) AS rank
        FROM lanes
        LEFT JOIN claimed_now ON claimed_now.collection_id = collections.collection_id AND claimed_now.lane = lanes.lane
        CROSS JOIN LATERAL (
            SELECT id, next_attempt_at FROM routines.webhook_deliveries AS waiting
            WHERE waiting.collection_id = collections.collection_id AND waiting.lane = lanes.lane
              AND next_attempt_at <= (SELECT now FROM moment)
              AND (is_redelivery OR NOT EXISTS (
                  SELECT FROM routines.webhook_endpoints
                  WHERE webhook_endpoints.collection_id = waiting.collection_id
                    AND md5(webhook_endpoints.url) = md5(waiting.url) AND stopped_at IS NOT NULL))
            ORDER BY next_attempt_at
            LIMIT greatest(0, %(per_host)s::integer - coalesce(claimed_now.number, 0))) AS head
        WHERE lanes.number > 0
    ) AS first
),
chosen AS MATERIALIZED (
    SELECT id
    FROM (SELECT id, place, row_number() OVER (ORDER BY place, next_attempt_at) AS position FROM due
          WHERE place <= %(per_collection)s::integer) AS ordered
    WHERE position <= %(capacity)s::integer
                      - least(%(reserve)s::integer, (place - 1) * %(reserve)s::integer / %(per_host)s::integer)
),
locked AS MATERIALIZED (
    SELECT id FROM routines.webhook_deliveries
    -- An array and no join, which may read the whole table: the planner expects far more rows of the lanes than are chosen.
    WHERE id = ANY (ARRAY(SELECT id FROM chosen))
      AND next_attempt_at <= (SELECT now FROM moment)  -- checked again under the lock
    FOR UPDATE SKIP LOCKED
),
-- A delivery that has cost this many workers is given up here, since no worker is left to record it.
claimed AS (
    UPDATE routines.webhook_deliveries
    SET fence = fence + 1,
        claimed_at = CASE WHEN claimed_at IS NULL OR failures + 1 < %(most_failures)s::integer THEN (SELECT now FROM moment) END,
        next_attempt_at = CASE WHEN claimed_at IS NULL OR failures + 1 < %(most_failures)s::integer
                          THEN (SELECT now FROM moment) + make_interval(secs => %(lease_seconds)s::float8) END,
        give_up_reason = CASE WHEN claimed_at IS NOT NULL AND failures + 1 >= %(most_failures)s::integer
                         THEN 'the worker was lost: it is unknown whether it arrived' END,
        failures = failures + CASE WHEN claimed_at IS NULL THEN 0 ELSE 1 END,
        attempts = CASE WHEN claimed_at IS NULL THEN attempts ELSE routines.with_attempt(
            attempts, claimed_at, NULL, 'the worker was lost: it is unknown whether it arrived', NULL) END
    WHERE id = ANY (ARRAY(SELECT id FROM locked))
    RETURNING id, fence, collection_id, routine_id, rule_id, trajectory_id, url, event_id, failures, secret_id, next_attempt_at
)
SELECT claimed.id, fence, claimed.collection_id, routine_id, rule_id, trajectory_id, url, event_id::text, failures, secret_id,
       ciphertext, extract(epoch FROM (SELECT now FROM moment))::bigint AS timestamp,
       -- The run, for the trace of the attempt. Read only where there is one.
       CASE WHEN %(is_traced)s::boolean THEN (SELECT routines.run_id(run.id, run.created_at, run.nonce)::text
                                              FROM routines.trajectories AS run WHERE run.id = trajectory_id) END AS run_id,
       CASE WHEN %(is_traced)s::boolean THEN (SELECT run.traceparent FROM routines.trajectories AS run
                                              WHERE run.id = trajectory_id AND scheduled_for IS NULL) END AS traceparent
FROM claimed LEFT JOIN routines.secrets ON secrets.id = secret_id
WHERE next_attempt_at IS NOT NULL
ORDER BY claimed.id;

-- name: prepare
-- Returns the bodies of claimed deliveries, and builds and stores those that have none yet. No row for a delivery that no
-- longer belongs to this worker. A null body is too large to load with others: its run, or the body itself, takes more than
-- `most_together` bytes.
WITH claimed AS MATERIALIZED (
    SELECT webhook_deliveries.id
    FROM routines.webhook_deliveries
    JOIN unnest(%(ids)s::bigint[], %(fences)s::integer[]) AS held (id, fence)
         ON held.id = webhook_deliveries.id AND held.fence = webhook_deliveries.fence
    WHERE claimed_at IS NOT NULL
),
built AS (
    UPDATE routines.webhook_deliveries
    SET body = convert_to(routines.webhook_body(
            trajectory_id, event_status, %(most_value_bytes)s::integer, %(most_bytes)s::integer), 'UTF8')
    FROM claimed
    WHERE webhook_deliveries.id = claimed.id AND body IS NULL
      AND (%(most_together)s::integer IS NULL
           OR (SELECT coalesce(sum(pg_column_size(inputs) + coalesce(pg_column_size(outputs), 0)), 0)
               FROM routines.trajectories CROSS JOIN LATERAL routines.steps_of(trajectories.id, kept_steps)
               WHERE trajectories.id = webhook_deliveries.trajectory_id) <= %(most_together)s::integer)
    RETURNING webhook_deliveries.id, body
)
SELECT id, body FROM built
UNION ALL
SELECT id, CASE WHEN %(most_together)s::integer IS NULL OR octet_length(body) <= %(most_together)s::integer THEN body END
FROM routines.webhook_deliveries
-- Arrays and a hashed subplan: the planner may expect one row, and a join would then compare every row with every other.
WHERE id = ANY (ARRAY(SELECT id FROM claimed)) AND id NOT IN (SELECT id FROM built);

-- name: settle
-- Records the outcomes of attempts: delivered if there is no error. A failure is tried again after its delay, or given up if
-- that is null. A failing endpoint is recorded, stopped if it is gone or has failed for too long, and forgotten once it works.
-- No row for a delivery that no longer belonged to this worker.
WITH moment AS MATERIALIZED (SELECT coalesce(%(now)s::timestamptz, now()) AS now),
outcomes AS MATERIALIZED (
    SELECT * FROM unnest(
        %(ids)s::bigint[], %(fences)s::integer[], %(statuses)s::integer[], %(errors)s::text[], %(durations)s::float8[],
        %(delays)s::float8[], %(are_gone)s::boolean[], %(are_endpoints_faults)s::boolean[], %(answers)s::text[])
        AS outcome (id, fence, status, error, duration_seconds, delay_seconds, is_gone, is_endpoints_fault, answer)
),
settled AS (
    UPDATE routines.webhook_deliveries
    SET attempts = routines.with_attempt(attempts, claimed_at, status, error, duration_seconds, answer::jsonb),
        delivered_at = CASE WHEN error IS NULL THEN now ELSE delivered_at END,
        failures = failures + CASE WHEN error IS NULL THEN 0 ELSE 1 END,
        next_attempt_at = CASE WHEN error IS NOT NULL THEN now + make_interval(secs => delay_seconds) END,
        give_up_reason = CASE WHEN error IS NOT NULL AND delay_seconds IS NULL THEN error END,
        claimed_at = NULL, is_redelivery = false
    FROM outcomes CROSS JOIN moment
    WHERE webhook_deliveries.id = outcomes.id AND webhook_deliveries.fence = outcomes.fence AND coalesce(claimed_at, '-infinity') > '-infinity'
    RETURNING webhook_deliveries.id, collection_id, url, error, is_gone, is_endpoints_fault, now
),
-- Of several attempts at one endpoint, 410 counts before success, and success before failure.
endpoints AS MATERIALIZED (
    SELECT collection_id, url, now, bool_or(is_gone) AS is_gone, bool_or(error IS NULL) AND NOT bool_or(is_gone) AS works,
           bool_or(is_endpoints_fault) AS fails
    FROM settled GROUP BY collection_id, url, now
),
works AS (
    DELETE FROM routines.webhook_endpoints USING endpoints
    WHERE webhook_endpoints.collection_id = endpoints.collection_id AND md5(webhook_endpoints.url) = md5(endpoints.url) AND works
),
fails AS (
    INSERT INTO routines.webhook_endpoints AS endpoint (collection_id, url, failing_since, stopped_at, stopped_reason)
    SELECT collection_id, url, now, CASE WHEN is_gone THEN now END, CASE WHEN is_gone THEN 'it answered 410: gone' END
    FROM endpoints WHERE fails AND NOT works
    ORDER BY collection_id, md5(url)  -- a fixed order, so that two workers do not deadlock
    ON CONFLICT (collection_id, md5(url)) DO UPDATE
    SET stopped_at = excluded.failing_since,
        stopped_reason = coalesce(excluded.stopped_reason, 'it has failed since ' || to_char(
            endpoint.failing_since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
    WHERE endpoint.stopped_at IS NULL AND (excluded.stopped_at IS NOT NULL OR endpoint.failing_since
          <= excluded.failing_since - make_interval(secs => %(stop_after_seconds)s::float8))
    RETURNING collection_id, url, stopped_reason
)
SELECT settled.id, fails.stopped_reason
FROM settled LEFT JOIN fails ON fails.collection_id = settled.collection_id AND fails.url = settled.url;

-- name: release
-- A worker that stops releases its deliveries: due at once, and fenced off from this worker.
UPDATE routines.webhook_deliveries
SET fence = webhook_deliveries.fence + 1, next_attempt_at = now(), claimed_at = NULL,
    attempts = routines.with_attempt(attempts, claimed_at, NULL, 'the worker was stopped before the attempt ended', NULL)
FROM unnest(%(ids)s::bigint[], %(fences)s::integer[]) AS claimed (id, fence)
WHERE webhook_deliveries.id = claimed.id AND webhook_deliveries.fence = claimed.fence AND coalesce(claimed_at, '-infinity') > '-infinity';

-- name: give_up_stopped
-- Gives up due deliveries to a stopped endpoint, except those that a person requested again. It starts from the
-- endpoints, which are few, and follows their lanes, so a backlog costs nothing.
WITH stopped AS MATERIALIZED (
    SELECT collection_id, lane, url FROM routines.webhook_endpoints WHERE stopped_at IS NOT NULL
),
due AS MATERIALIZED (
    SELECT of_endpoint.id
    FROM stopped CROSS JOIN LATERAL (
        SELECT id FROM routines.webhook_deliveries
        WHERE webhook_deliveries.collection_id = stopped.collection_id AND webhook_deliveries.lane = stopped.lane
          AND webhook_deliveries.url = stopped.url AND NOT is_redelivery
          AND next_attempt_at <= coalesce(%(now)s::timestamptz, now())
        ORDER BY next_attempt_at
        LIMIT %(batch_size)s::integer
        FOR UPDATE SKIP LOCKED) AS of_endpoint
    LIMIT %(batch_size)s::integer
)
UPDATE routines.webhook_deliveries
SET fence = fence + 1, next_attempt_at = NULL, claimed_at = NULL,
    give_up_reason = 'the endpoint is stopped: ' || (
        SELECT stopped_reason FROM routines.webhook_endpoints AS endpoint
        WHERE endpoint.collection_id = webhook_deliveries.collection_id AND md5(endpoint.url) = md5(webhook_deliveries.url))
WHERE id = ANY (ARRAY(SELECT id FROM due));

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
-- Makes a delivery due at once, from the start of the retry schedule. It is signed with the routine's current secret if the
-- routine still names this URL, otherwise as before. A claimed delivery is left alone. No row if it does not exist, is claimed,
-- or its signing secret was deleted.
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
