-- What a person at psql asks: what does each routine do, what became of a slot, and why. docs/psql.md shows how. The API gives
-- the same sentences, from here.

CREATE FUNCTION routines.utc(at timestamptz) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"');
COMMENT ON FUNCTION routines.utc IS 'A time as sentences show it: 2026-05-04T09:00:00Z, without fractions of a second.';

CREATE FUNCTION routines.cadence_in_words(cadence_type text, hour_utc integer, minute_utc integer, day_of_week text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    cadence_type || CASE cadence_type
        WHEN 'manual' THEN ''
        WHEN 'hourly' THEN ' at minute ' || minute_utc
        ELSE coalesce(' on ' || day_of_week, '') || ' at ' || to_char(hour_utc, 'FM00') || ':' || to_char(minute_utc, 'FM00') END;
COMMENT ON FUNCTION routines.cadence_in_words IS 'weekly on mon at 09:00, hourly at minute 5; always UTC.';

-- Every slot from the routine's making on is in the ledger, waits for the tick, falls in the present pause, is to come, or is
-- one that somebody set next_run_at past: what is none of these was no slot, unless it is older than what is kept. Rows of
-- skips are disjoint, so the one that began last is the only one that can hold the time.
CREATE FUNCTION routines.explain_time(
    of_routine bigint, at_time timestamptz, clock timestamptz DEFAULT now(), of_collection bigint DEFAULT NULL
) RETURNS TABLE (
    sentence text, kind text, at timestamptz, now timestamptz, scheduled_for timestamptz, last_scheduled_for timestamptz,
    slot_count bigint, recorded_at timestamptz, trajectory_id bigint, trajectory_status text, blocking_trajectory_id bigint,
    blocking_started_at timestamptz, blocking_ended_at timestamptz, detail text, routine_created_at timestamptz,
    paused_at timestamptz, paused_reason text, cadence_type text, is_slot_of_cadence boolean, next_slot timestamptz
) LANGUAGE sql STABLE ROWS 1 AS $$
    WITH asked AS MATERIALIZED (SELECT at_time AS at, clock AS now),
    run AS (
        SELECT trajectories.* FROM asked JOIN routines.trajectories ON scheduled_for = at
        WHERE (of_collection IS NULL OR collection_id = of_collection)
          AND triggered_by_routine_id = of_routine
    ),
    begun AS (
        SELECT skips.*
        FROM asked JOIN routines.skips ON scheduled_for <= at
        WHERE (of_collection IS NULL OR collection_id = of_collection) AND routine_id = of_routine
        ORDER BY scheduled_for DESC LIMIT 1
    ),
    skip AS (
        SELECT begun.* FROM asked, begun
        WHERE last_scheduled_for >= at
          AND coalesce(routines.is_slot_of_span(cadence_type, scheduled_for, last_scheduled_for, at), false)
    ),
    -- The first slot after the time that has its outcome: it may be of another cadence than today's.
    settled AS (
        SELECT min(slot) AS slot
        FROM asked, LATERAL (
            SELECT routines.next_slot_of_span(cadence_type, scheduled_for, last_scheduled_for, at) AS slot FROM begun
            UNION ALL
            SELECT min(scheduled_for) FROM routines.skips
            WHERE (of_collection IS NULL OR collection_id = of_collection)
              AND routine_id = of_routine AND scheduled_for > at
            UNION ALL
            SELECT min(scheduled_for) FROM routines.trajectories
            WHERE (of_collection IS NULL OR collection_id = of_collection)
              AND triggered_by_routine_id = of_routine AND scheduled_for > at) AS later
    ),
    routine AS (
        SELECT routines.*,
               coalesce(next_run_at = at OR at = routines.latest_slot(cadence_type, hour_utc, minute_utc, day_of_week, at), false)
                   AS is_slot,
               at > coalesce(settled_until, created_at) AND at < next_run_at AS is_passed_over,
               CASE WHEN paused AND unsettled > now THEN NULL
                    WHEN at >= now AND at < next_run_at THEN next_run_at
                    ELSE unsettled END AS next_slot
        FROM asked, routines.routines, LATERAL (SELECT routines.next_fire(
            cadence_type, hour_utc, minute_utc, day_of_week, greatest(at, created_at, settled_until)) AS unsettled) AS next_fire
        WHERE (of_collection IS NULL OR collection_id = of_collection) AND id = of_routine
    ),
    facts AS (
        SELECT CASE WHEN run.id IS NOT NULL THEN 'started'
                    WHEN skip.id IS NOT NULL THEN skip.reason
                    WHEN routine.id IS NULL THEN 'deleted'
                    WHEN at < routine.created_at AND at < coalesce(next_run_at, routine.created_at) THEN 'before_creation'
                    WHEN at <= settled_until AND at <= (SELECT max(deleted_until) FROM routines.retention) THEN 'forgotten'
                    WHEN NOT is_slot THEN 'not_a_slot'
                    WHEN paused AND at > now THEN 'paused_in_future'
                    WHEN paused AND at > greatest(paused_at, settled_until) THEN 'paused'
                    WHEN next_run_at <= at THEN CASE WHEN at > now THEN 'future' ELSE 'pending' END
                    WHEN is_passed_over THEN 'passed_over'
                    ELSE 'not_a_slot' END AS kind,
               at, now,
               coalesce(run.scheduled_for, skip.scheduled_for) AS scheduled_for,
               coalesce(run.scheduled_for, skip.last_scheduled_for) AS last_scheduled_for,
               coalesce(skip.slot_count, CASE WHEN run.id IS NOT NULL THEN 1 END) AS slot_count,
               coalesce(run.created_at, skip.recorded_at) AS recorded_at,
               run.id AS trajectory_id, run.status AS trajectory_status,
               skip.blocking_trajectory_id,
               coalesce(blocking.started_at, blocking.created_at) AS blocking_started_at, blocking.ended_at AS blocking_ended_at,
               coalesce(skip.detail, CASE WHEN is_slot AND is_passed_over THEN routines.passed_over_detail(next_run_at) END) AS detail,
               routine.created_at AS routine_created_at, routine.paused_at, routine.paused_reason, routine.cadence_type,
               coalesce(is_slot, false) AS is_slot_of_cadence, coalesce(settled.slot, next_slot) AS next_slot
        FROM asked CROSS JOIN settled
        LEFT JOIN run ON true
        LEFT JOIN skip ON true
        LEFT JOIN routine ON true
        LEFT JOIN routines.trajectories AS blocking ON blocking.id = skip.blocking_trajectory_id
    )
    SELECT CASE kind
           WHEN 'started' THEN format('Started: run %s at %s, by now %s.', trajectory_id, routines.utc(recorded_at), trajectory_status)
           WHEN 'overlap' THEN 'Skipped: run ' || blocking_trajectory_id || ' was still running'
               || coalesce(', started ' || routines.utc(blocking_started_at), '') || '.'
           WHEN 'missed' THEN 'Missed: ' || coalesce(detail, 'no ticker came in time')
               || CASE WHEN slot_count > 1 THEN format(', as were all %s slots from %s to %s', slot_count,
                       routines.utc(scheduled_for), routines.utc(last_scheduled_for)) ELSE '' END
               || '; recorded ' || routines.utc(recorded_at) || '.'
           WHEN 'paused' THEN 'Skipped: ' || coalesce(detail, pause) || '.'
           WHEN 'failed_to_start' THEN 'Skipped: the run failed to start: ' || detail || '.'
           WHEN 'pending' THEN 'Due since ' || routines.utc(at) || ': no ticker has come to it yet.'
           WHEN 'future' THEN 'To come: the slot is due at ' || routines.utc(at) || '.'
           WHEN 'passed_over' THEN 'It will be missed: ' || detail || '.'
           WHEN 'paused_in_future' THEN 'It will be skipped unless the routine is resumed: ' || pause || '.'
           WHEN 'before_creation' THEN 'No slot: the routine was made later, at ' || routines.utc(routine_created_at) || '.'
           WHEN 'forgotten' THEN 'No record: it is older than what is kept of this ledger.'
           WHEN 'deleted' THEN 'No record: the routine is gone, and the ledger knows no such slot.'
           ELSE 'No slot: ' || CASE
               WHEN facts.cadence_type = 'manual' THEN 'the routine is manual and has none.'
               WHEN is_slot_of_cadence THEN 'the cadence was another one then.'
               ELSE coalesce('the next is ' || routines.utc(next_slot), 'none is to come: ' || pause) || '.' END
           END,
           facts.*
    FROM facts, LATERAL (
        SELECT coalesce(paused_reason, 'paused by hand') || ', since ' || routines.utc(paused_at) AS pause) AS present;
$$;
COMMENT ON FUNCTION routines.explain_time IS
    'What a time is to a routine, also to one that is gone: a sentence, and the facts behind it. `clock` moves the clock in tests; `of_collection` looks into one collection alone.';

CREATE FUNCTION routines.routine_id(routine text) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    found bigint := (
        SELECT routine_id FROM routines.routine_names
        JOIN routines.tasks ON tasks.id = routine_names.task_id
        JOIN routines.collections ON collections.id = routine_names.collection_id
        WHERE collections.name = split_part(routine, '/', 1) AND tasks.name = split_part(routine, '/', 2)
          AND routine_names.name = split_part(routine, '/', 3) AND split_part(routine, '/', 4) = '');
BEGIN
    IF found IS NULL THEN
        RAISE EXCEPTION 'there is no routine %', routine USING ERRCODE = 'no_data_found', HINT =
            'Say collection/task/name, as SELECT routine FROM routines.routine_status does. Of one that is gone: SELECT * FROM routines.explain_time(id, time).';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION routines.routine_id IS 'The id of a routine. Try: SELECT routines.routine_id(''demo/hello/every-hour'');';

CREATE FUNCTION routines.why(routine text, at timestamptz DEFAULT NULL) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT sentence
    FROM routines.routines, routines.explain_time(
        id, coalesce(why.at, routines.latest_slot(cadence_type, hour_utc, minute_utc, day_of_week, now()), now()))
    WHERE id = routines.routine_id(routine);
$$;
COMMENT ON FUNCTION routines.why IS
    'Why a routine ran or did not run at a time; null: at its newest slot. Try: SELECT routines.why(''demo/hello/every-hour'', now() - interval ''1 day'');';

CREATE FUNCTION routines.next(routine text, slot_limit integer DEFAULT 10) RETURNS SETOF timestamptz LANGUAGE sql STABLE AS $$
    SELECT slot
    FROM routines.routines, routines.next_slots(
        cadence_type, hour_utc, minute_utc, day_of_week, greatest(now(), next_run_at - interval '1 microsecond'), slot_limit) AS slot
    WHERE id = routines.routine_id(routine) AND next_run_at IS NOT NULL;
$$;
COMMENT ON FUNCTION routines.next IS
    'The coming slots of a routine; none while it is paused. Try: SELECT routines.next(''demo/hello/every-hour'', 3);';

CREATE VIEW routines.routine_status WITH (security_invoker = true) AS
    SELECT collections.name || '/' || tasks.name || '/' || routine_names.name AS routine,
           routines.cadence_in_words(cadence_type, hour_utc, minute_utc, day_of_week) AS cadence,
           CASE WHEN paused AND paused_reason IS NOT NULL THEN 'paused by the scheduler'
                WHEN paused THEN 'paused'
                WHEN cadence_type = 'manual' THEN 'manual'
                WHEN next_run_at <= now() THEN 'due'
                ELSE 'scheduled' END AS state,
           next_run_at, last.scheduled_for AS last_slot, last.outcome AS last_outcome, last_run_at,
           coalesce(CASE WHEN paused THEN paused_reason END, last.detail) AS detail, routines.id AS routine_id,
           routine_names.collection_id
    FROM routines.routine_names
    JOIN routines.routines ON routines.id = routine_names.routine_id
    JOIN routines.tasks ON tasks.id = routine_names.task_id
    JOIN routines.collections ON collections.id = routine_names.collection_id
    LEFT JOIN LATERAL (
        (SELECT scheduled_for, status AS outcome, error AS detail FROM routines.trajectories
         WHERE triggered_by_routine_id = routine_names.routine_id AND scheduled_for IS NOT NULL
         ORDER BY scheduled_for DESC LIMIT 1)
        UNION ALL
        (SELECT last_scheduled_for, reason, coalesce(detail, 'run ' || blocking_trajectory_id || ' was active') FROM routines.skips
         WHERE skips.routine_id = routine_names.routine_id
         ORDER BY scheduled_for DESC LIMIT 1)
        ORDER BY scheduled_for DESC LIMIT 1
    ) AS last ON true;
COMMENT ON VIEW routines.routine_status IS
    'What each routine is up to. Did all go well? SELECT * FROM routines.routine_status WHERE last_outcome NOT IN (''completed'', ''running'', ''pending'') OR state = ''due'';';
COMMENT ON COLUMN routines.routine_status.routine IS 'collection/task/name, as the functions why() and next() take it.';
COMMENT ON COLUMN routines.routine_status.cadence IS 'When its slots fall, UTC.';
COMMENT ON COLUMN routines.routine_status.state IS 'scheduled; due: a slot waits for a ticker; paused; paused by the scheduler: after three strikes; manual.';
COMMENT ON COLUMN routines.routine_status.next_run_at IS 'The next slot that fires; null: paused or manual.';
COMMENT ON COLUMN routines.routine_status.last_slot IS 'The newest slot that has its outcome; null: none yet.';
COMMENT ON COLUMN routines.routine_status.last_outcome IS 'Of that slot: the status of its run, or the reason why it was skipped.';
COMMENT ON COLUMN routines.routine_status.last_run_at IS 'When it last started a run, on schedule or by run-now.';
COMMENT ON COLUMN routines.routine_status.detail IS 'Why it is paused, why the last run failed, or why the last slot was skipped.';
COMMENT ON COLUMN routines.routine_status.routine_id IS 'Its id, for routines and occurrences.';
COMMENT ON COLUMN routines.routine_status.collection_id IS 'The tenant.';

CREATE VIEW routines.help WITH (security_invoker = true) AS
    SELECT shown AS ask, coalesce(obj_description(to_regclass(shown), 'pg_class'),
                                  obj_description(to_regprocedure(shown), 'pg_proc')) AS what_it_is
    FROM unnest(ARRAY[
        'routines.routine_status', 'routines.occurrences', 'routines.why(text, timestamptz)', 'routines.next(text, integer)',
        'routines.routine_details', 'routines.trajectory_details', 'routines.run_events',
        'routines.next_fire(text, integer, integer, text, timestamptz)',
        'routines.next_slots(text, integer, integer, text, timestamptz, integer)',
        'routines.collections', 'routines.tasks', 'routines.routines', 'routines.trajectories', 'routines.steps', 'routines.skips',
        'routines.webhook_deliveries', 'routines.webhook_endpoints', 'routines.api_keys']) WITH ORDINALITY AS listed (shown, position)
    ORDER BY position;
COMMENT ON VIEW routines.help IS 'Where to look, for a person at psql: TABLE routines.help; then \d+ of what it names.';
COMMENT ON COLUMN routines.help.ask IS 'A view, a function or a table.';
COMMENT ON COLUMN routines.help.what_it_is IS 'What it shows, often with a statement to try.';

INSERT INTO routines.role_grants (role, on_object, privileges) VALUES
    ('routines_reader', 'routines.routine_status', 'SELECT'),
    ('routines_reader', 'routines.help', 'SELECT');
SELECT routines.set_up_roles();
