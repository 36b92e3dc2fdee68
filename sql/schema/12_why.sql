-- The sentences of `why`: what became of a time of a routine, and the reason. The API and psql read the same ones, from here.

CREATE FUNCTION routines.first_line(told text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN length(split_part(told, E'\n', 1)) > 200 THEN left(split_part(told, E'\n', 1), 200) || '…'
            ELSE rtrim(split_part(told, E'\n', 1), '. ') END;
COMMENT ON FUNCTION routines.first_line IS 'The first line of an error, at most 200 characters, as sentences quote it.';

CREATE FUNCTION routines.duration_in_words(seconds float8) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN seconds < 120 THEN round(seconds::numeric) || ' seconds'
    WHEN seconds < 7200 THEN round(seconds::numeric / 60) || ' minutes'
    ELSE round(seconds::numeric / 3600, 1) || ' hours' END;
COMMENT ON FUNCTION routines.duration_in_words IS 'A duration as sentences show it: 90 seconds, 45 minutes or 2.5 hours.';

-- The step that a run has reached, or where it ended. It is found by the key of the steps; a workflow has few.
CREATE FUNCTION routines.step_of_end(run routines.trajectories) RETURNS routines.steps LANGUAGE sql STABLE AS $$
    SELECT steps FROM routines.steps
    WHERE trajectory_id = run.id AND status IN ('running', 'failed', 'cancelled') AND run.status <> 'completed'
    ORDER BY position DESC LIMIT 1;
$$;
COMMENT ON FUNCTION routines.step_of_end IS
    'The step of a run that is running, or that failed or was cancelled; null for none and for a completed run.';

CREATE FUNCTION routines.runs_in_the_way(run routines.trajectories) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce('run ' || string_agg(id::text, ', ' ORDER BY id), 'other runs')
    FROM (SELECT id FROM routines.trajectories
          WHERE triggered_by_routine_id = run.triggered_by_routine_id
            AND trigger = 'schedule' AND place IS NULL AND final_status IS NULL
          UNION ALL
          SELECT id FROM routines.trajectories
          WHERE triggered_by_routine_id = run.triggered_by_routine_id
            AND (trigger <> 'schedule' OR place IS NOT NULL) AND final_status IS NULL AND id <> run.id
          ORDER BY id LIMIT 3) AS active;
$$;
COMMENT ON FUNCTION routines.runs_in_the_way IS 'The first runs that a run which waits for a place waits for, as sentences show them.';

CREATE FUNCTION routines.run_in_words(run routines.trajectories, step routines.steps) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN format('run %s at %s', run.id, routines.utc(run.created_at)) || CASE run.status
    WHEN 'pending' THEN ', still waiting for a worker' || CASE WHEN run.started_at IS NOT NULL THEN ' to go on' ELSE '' END
    WHEN 'running' THEN coalesce(', running since ' || routines.utc(run.started_at),
                                 CASE WHEN run.retry_of IS NOT NULL THEN ', to begin at ' || routines.utc(run.lease_expires_at)
                                      WHEN run.place = 0 THEN ', waiting for the end of ' || routines.runs_in_the_way(run) END, ', running')
        || coalesce(', at try ' || step.attempt || ' of step ' || quote_literal(step.name), '')
    WHEN 'completed' THEN ', completed at ' || routines.utc(run.ended_at)
    WHEN 'failed' THEN ', failed at ' || routines.utc(run.ended_at)
        || coalesce(': step ' || quote_literal(step.name) || ' failed after ' || step.attempt
                    || CASE step.attempt WHEN 1 THEN ' try' ELSE ' tries' END, '')
        || coalesce(': ' || routines.first_line(coalesce(step.error, run.error)), '')
    WHEN 'cancelled' THEN ', cancelled at ' || routines.utc(run.ended_at) || coalesce(' during step ' || quote_literal(step.name), '')
        || coalesce(': ' || routines.first_line(regexp_replace(run.error, '^cancelled: ', '')), '')
    ELSE format(', ended at %s, now %s', routines.utc(run.ended_at), run.status)
        || coalesce(': ' || routines.first_line(run.error), '') END;
COMMENT ON FUNCTION routines.run_in_words IS
    'What became of a run: when it started and ended; the step at which it stands or ended, how often that was tried, and the cause.';

-- What held up a slot that was due at one time and decided at another. A ticker records outages only (Ticker.note_outage): if it
-- recorded none, tickers ran.
CREATE FUNCTION routines.longest_outage(due_at timestamptz, decided_at timestamptz) RETURNS routines.ticker_outages
LANGUAGE sql STABLE AS $$
    SELECT ticker_outages FROM routines.ticker_outages
    WHERE began_at < longest_outage.decided_at AND ended_at > longest_outage.due_at
    ORDER BY least(ended_at, longest_outage.decided_at) - greatest(began_at, longest_outage.due_at) DESC LIMIT 1;
$$;
COMMENT ON FUNCTION routines.longest_outage IS 'The outage of all tickers that took most of this time; null for none.';

-- Not from began_at where that is earlier, because it may be the slot of another tenant.
CREATE FUNCTION routines.outage_in_words(outage routines.ticker_outages, due_at timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'no ticker ran from ' || routines.utc(greatest((outage).began_at, due_at)) || ' to ' || routines.utc((outage).ended_at);
COMMENT ON FUNCTION routines.outage_in_words IS 'An outage, from the time at which a slot was due; null for none.';

-- Since the routine's creation, every slot is in one of these groups: it is in the ledger, it is due, it falls in the current
-- pause, it lies in the future, or a person has set next_run_at past it. Any other time was not a slot, unless it is older than
-- what retention keeps. Rows of skips do not overlap, so only the latest that began by the time can contain it.
CREATE FUNCTION routines.explain_time(
    of_routine bigint, at_time timestamptz DEFAULT NULL, clock timestamptz DEFAULT now(), of_collection bigint DEFAULT NULL
) RETURNS TABLE (
    sentence text, kind text, at timestamptz, now timestamptz, scheduled_for timestamptz, last_scheduled_for timestamptz,
    slot_count bigint, recorded_at timestamptz, trajectory_id bigint, trajectory_status text, blocking_trajectory_id bigint,
    blocking_started_at timestamptz, blocking_ended_at timestamptz, detail text, routine_created_at timestamptz,
    paused_at timestamptz, paused_reason text, paused_until timestamptz, paused_note text, cadence_type text,
    is_slot_of_cadence boolean, next_slot timestamptz, due_at timestamptz, step text, tries integer, error text,
    delay_seconds float8, delay_reason text, missed_before bigint, last_trajectory_id bigint, filled_by bigint
) LANGUAGE sql STABLE ROWS 1 AS $$
    WITH asked AS MATERIALIZED (
        SELECT coalesce(at_time, (
            SELECT routines.latest_slot(routines.cadence_of(routines), routines.without_spread(routines, clock)) FROM routines.routines
            WHERE (of_collection IS NULL OR collection_id = of_collection) AND id = of_routine), clock) AS at, clock AS now
    ),
    run AS (
        SELECT trajectories.*, ended_step, routines.run_in_words(trajectories, ended_step) AS in_words,
               created_at - coalesce(due_at, scheduled_for) AS delay
        FROM asked JOIN routines.trajectories ON scheduled_for = at
        CROSS JOIN LATERAL (SELECT routines.step_of_end(trajectories) AS ended_step) AS found
        WHERE (of_collection IS NULL OR collection_id = of_collection)
          AND triggered_by_routine_id = of_routine
    ),
    -- Here and in `fill` the id comes from a subquery: row-level security keeps a condition that calls a function out of the search of
    -- an index, and every run would be read.
    last AS (
        SELECT trajectories.*, found.ended_step, routines.run_in_words(trajectories, found.ended_step) AS in_words
        FROM routines.trajectories
        CROSS JOIN LATERAL (SELECT routines.step_of_end(trajectories) AS ended_step) AS found
        WHERE trajectories.id = (SELECT routines.last_attempt(id, retried_by) FROM run WHERE retried_by IS NOT NULL)
          AND (of_collection IS NULL OR trajectories.collection_id = of_collection)
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
          AND coalesce(routines.is_slot_of_span(cadence, scheduled_for, last_scheduled_for, at), false)
    ),
    -- What held up a run that is more than a minute late, or a slot that was missed for no other reason.
    outage AS (
        SELECT routines.outage_in_words(longest, held.due_at) AS in_words, longest.ended_at
        FROM (SELECT coalesce(due_at, scheduled_for) AS due_at, created_at AS decided_at FROM run WHERE delay > interval '60 s'
              UNION ALL
              SELECT at + coalesce(skip.due_at - skip.last_scheduled_for, '0'), recorded_at FROM asked, skip
              WHERE reason = 'missed' AND detail IS NULL) AS held,
             LATERAL routines.longest_outage(held.due_at, held.decided_at) AS longest
        WHERE longest.id IS NOT NULL
    ),
    fill AS (
        SELECT id, routines.run_in_words(trajectories, routines.step_of_end(trajectories)) AS in_words
        FROM routines.trajectories
        WHERE trajectories.id = (SELECT routines.last_fill(of_routine, at) FROM asked)
          AND (of_collection IS NULL OR trajectories.collection_id = of_collection)
    ),
    -- The first later slot that has its outcome, which may follow another cadence than today's.
    settled AS (
        SELECT min(slot) AS slot
        FROM asked, LATERAL (
            SELECT routines.next_slot_of_span(cadence, scheduled_for, last_scheduled_for, at) AS slot FROM begun
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
        SELECT routines.*, own_now, coming, routines.without_spread(routines, paused_until) AS pause_end,
               coalesce(coming = at OR moved_to = at OR at = routines.latest_slot(routines.cadence_of(routines), at), false) AS is_slot,
               CASE WHEN at > own_now THEN routines.exclusion_of(routines, at) END AS exclusion,
               at > coalesce(settled_until, created_at) AND at < coming AS is_passed_over,
               CASE WHEN paused AND unsettled > own_now
                        THEN CASE WHEN paused_until IS NOT NULL THEN greatest(unsettled, routines.slot_after_pause(routines)) END
                    WHEN at >= own_now AND at < coming THEN coming
                    ELSE unsettled END AS next_slot
        -- On the clock of the routine, which its spread may set back.
        FROM asked, routines.routines, LATERAL (SELECT routines.without_spread(routines, now) AS own_now,
                                                       routines.without_spread(routines, next_run_at) AS coming) AS own,
             LATERAL (SELECT routines.next_fire(
            routines.cadence_of(routines), greatest(at, created_at, settled_until)) AS unsettled) AS next_fire
        WHERE (of_collection IS NULL OR collection_id = of_collection) AND id = of_routine
    ),
    facts AS (
        SELECT CASE WHEN run.id IS NOT NULL THEN 'started'
                    WHEN skip.id IS NOT NULL THEN skip.reason
                    WHEN routine.id IS NULL THEN 'deleted'
                    WHEN at < routine.created_at AND at < coalesce(coming, routine.created_at) THEN 'before_creation'
                    WHEN at <= settled_until AND at <= (SELECT max(deleted_until) FROM routines.retention) THEN 'forgotten'
                    WHEN NOT is_slot THEN 'not_a_slot'
                    WHEN paused AND at > own_now AND (at >= pause_end) IS NOT TRUE THEN 'paused_in_future'
                    WHEN exclusion IS NOT NULL AND (paused OR coming <= at) THEN 'excluded_in_future'
                    WHEN paused AND at > own_now THEN 'future'
                    WHEN paused AND at > coalesce(settled_until, paused_at)
                        THEN CASE WHEN at >= pause_end THEN 'pending' ELSE 'paused' END
                    WHEN coming <= at THEN CASE WHEN at > own_now THEN 'future' ELSE 'pending' END
                    WHEN is_passed_over THEN 'passed_over'
                    ELSE 'not_a_slot' END AS kind,
               at, now,
               coalesce(run.scheduled_for, skip.scheduled_for) AS scheduled_for,
               coalesce(run.scheduled_for, skip.last_scheduled_for) AS last_scheduled_for,
               coalesce(skip.slot_count, CASE WHEN run.id IS NOT NULL THEN 1 END) AS slot_count,
               coalesce(run.created_at, skip.recorded_at) AS recorded_at,
               run.id AS trajectory_id, coalesce(last.status, run.status) AS trajectory_status,
               skip.blocking_trajectory_id,
               coalesce(blocking.started_at, blocking.created_at) AS blocking_started_at, blocking.ended_at AS blocking_ended_at,
               coalesce(skip.detail, exclusion, CASE WHEN is_slot AND is_passed_over THEN routines.passed_over_detail(next_run_at) END) AS detail,
               routine.created_at AS routine_created_at, routine.paused_at, routine.paused_reason, routine.paused_until,
               routine.paused_note, routine.cadence_type,
               coalesce(is_slot, false) AS is_slot_of_cadence, coalesce(settled.slot, next_slot) AS next_slot,
               CASE WHEN run.id IS NOT NULL THEN run.due_at
                    WHEN skip.id IS NOT NULL THEN at + (skip.due_at - skip.last_scheduled_for)
                    WHEN is_slot THEN at + spread_offset END AS due_at,
               (shown_step).name AS step, (shown_step).attempt AS tries,
               routines.first_line(coalesce((shown_step).error, CASE WHEN last.id IS NULL THEN run.error ELSE last.error END)) AS error,
               extract(epoch FROM run.delay)::float8 AS delay_seconds,
               CASE WHEN outage.in_words IS NOT NULL THEN 'no_ticker' WHEN run.delay > interval '60 s' THEN 'backlog' END AS delay_reason,
               -- Slots that the same tick recorded as missed, because this one is newer.
               CASE WHEN begun.reason = 'missed' AND begun.detail IS NULL AND begun.recorded_at = run.created_at
                    THEN begun.slot_count END AS missed_before, last.id AS last_trajectory_id, (SELECT id FROM fill) AS filled_by
        FROM asked CROSS JOIN settled
        LEFT JOIN run ON true
        LEFT JOIN last ON true
        CROSS JOIN LATERAL (SELECT CASE WHEN last.id IS NULL THEN run.ended_step ELSE last.ended_step END AS shown_step) AS step_of_last
        LEFT JOIN skip ON true
        LEFT JOIN routine ON true
        LEFT JOIN outage ON true
        LEFT JOIN begun ON true
        LEFT JOIN routines.trajectories AS blocking ON blocking.id = skip.blocking_trajectory_id
    )
    SELECT CASE kind
           WHEN 'started' THEN 'Started: ' || (SELECT in_words FROM run) || '.'
               || coalesce(' ' || (SELECT CASE WHEN trigger <> 'retry' THEN 'Run again: ' WHEN retry_number = 1 THEN 'Retried: '
                                               ELSE format('Retried %s times, last: ', retry_number) END
                                          || in_words || '.' FROM last), '')
               || CASE WHEN delay_reason IS NULL THEN '' ELSE
               format(' It was %s late: %s.', routines.duration_in_words(delay_seconds), coalesce(
                   (SELECT in_words || CASE WHEN recorded_at - ended_at > interval '60 s' THEN ', and then the tickers were behind' ELSE '' END
                    FROM outage), 'the tickers were behind')) END
               || CASE WHEN missed_before > 1 THEN format(' The %s slots before it were missed.', missed_before)
                       WHEN missed_before = 1 THEN ' The slot before it was missed.' ELSE '' END
           WHEN 'overlap' THEN 'Skipped: run ' || blocking_trajectory_id || ' was still running'
               || coalesce(', started ' || routines.utc(blocking_started_at), '') || '.'
           WHEN 'coalesced' THEN 'Skipped: ' || detail || '.'
           WHEN 'missed' THEN 'Missed: ' || coalesce(detail, (SELECT in_words FROM outage), 'no ticker picked it up in time')
               || CASE WHEN slot_count > 1 THEN format(', as were all %s slots from %s to %s', slot_count,
                       routines.utc(scheduled_for), routines.utc(last_scheduled_for)) ELSE '' END
               || '; recorded ' || routines.utc(recorded_at) || '.'
           WHEN 'paused' THEN 'Skipped: ' || coalesce(detail, pause) || '.'
           WHEN 'failed_to_start' THEN 'Skipped: the run failed to start: ' || detail || '.'
           WHEN 'calendar' THEN 'Skipped: a calendar excludes the day: ' || detail || '.'
           WHEN 'backoff' THEN 'Skipped: ' || detail || '.'
           WHEN 'outside_hours' THEN 'Skipped: it was outside the active hours: ' || detail || '.'
           WHEN 'excluded_in_future' THEN 'It will be skipped: ' || detail || '.'
           WHEN 'pending' THEN 'Due since ' || routines.utc(coalesce(due_at, at)) || '; no ticker has picked it up yet.'
           WHEN 'future' THEN 'Upcoming: the slot is due at ' || routines.utc(coalesce(due_at, at)) || '.'
           WHEN 'passed_over' THEN 'It will be missed: ' || detail || '.'
           WHEN 'paused_in_future' THEN 'It will be skipped unless the routine is resumed: ' || pause || '.'
           WHEN 'before_creation' THEN 'No slot: the routine was created later, at ' || routines.utc(routine_created_at) || CASE
               WHEN facts.cadence_type = 'manual' THEN '; it is manual and has none.'
               WHEN routine_created_at <= (SELECT max(deleted_until) FROM routines.retention) THEN '.'
               ELSE coalesce(format('; its first slot %s ', CASE WHEN next_slot > now THEN 'is' ELSE 'was' END) || routines.utc(next_slot),
                             '; none is coming (' || pause || ')', '; none is coming') || '.' END
           WHEN 'forgotten' THEN 'No record: the ledger no longer goes back to that time.'
           WHEN 'deleted' THEN 'No record: the routine was deleted, and the ledger has no such slot.'
           ELSE 'No slot: ' || CASE
               WHEN facts.cadence_type = 'manual' THEN 'the routine is manual and has none.'
               WHEN is_slot_of_cadence THEN 'the routine had a different cadence then.'
               ELSE coalesce((SELECT format('it was moved to %s, since the rules of %s have changed; recorded %s', routines.utc(moved_to),
                                            timezone, routines.utc(moved_at))
                              FROM routines.slot_moves WHERE routine_id = of_routine AND moved_from = at
                                AND (of_collection IS NULL OR collection_id = of_collection) ORDER BY moved_at DESC LIMIT 1),
                             'the next is ' || routines.utc(next_slot), 'none is coming (' || pause || ')', 'none is coming') || '.' END
           END || coalesce(' Filled afterwards: ' || (SELECT in_words FROM fill) || '.', '')
           || coalesce(' ' || CASE WHEN is_slot_of_cadence THEN (
               SELECT routines.clock_note(routines.cadence_of(routines), at, kind NOT IN ('future', 'paused_in_future', 'excluded_in_future', 'passed_over'))
               FROM routines.routines WHERE id = of_routine) END, '')
           || CASE WHEN due_at IS NULL OR kind IN ('forgotten', 'before_creation', 'not_a_slot', 'deleted') THEN '' ELSE format(
               ' Its spread %s it due %s s after its time.',
               CASE WHEN kind IN ('future', 'paused_in_future', 'excluded_in_future', 'passed_over') THEN 'makes' ELSE 'made' END,
               extract(epoch FROM due_at - at)::integer) END,
           facts.*
    FROM facts, LATERAL (
        SELECT routines.pause_in_words(paused_reason, paused_at, paused_until, paused_note) AS pause) AS present;
$$;
COMMENT ON FUNCTION routines.explain_time IS
    'Explains a time of a routine, by default its newest slot, even of a deleted one: a sentence, and the facts behind it. `clock` moves the clock in tests; `of_collection` restricts it to one collection.';

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
            'Name it as collection/task/name: see SELECT routine FROM routines.routine_status. For a deleted routine: SELECT * FROM routines.explain_time(id, time).';
    END IF;
    RETURN found;
END $$;
COMMENT ON FUNCTION routines.routine_id IS 'The id of a routine. Try: SELECT routines.routine_id(''demo/hello/every-hour'');';

CREATE FUNCTION routines.why(routine text, at timestamptz DEFAULT NULL) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT sentence FROM routines.explain_time(routines.routine_id(routine), why.at);
$$;
COMMENT ON FUNCTION routines.why IS
    'Why a routine ran or did not run at a time, by default at its newest slot. Try: SELECT routines.why(''demo/hello/every-hour'', now() - interval ''1 day'');';

CREATE FUNCTION routines.next(routine text, slot_limit integer DEFAULT 10)
RETURNS TABLE (slot timestamptz, utc text, local_time text, dst text, due_at timestamptz, excluded text) LANGUAGE sql STABLE AS $$
    SELECT slot, routines.utc(slot), routines.local_time_of(cadence, slot), routines.dst_of(cadence, slot), slot + spread_offset,
           routines.exclusion_of(routine, slot)
    FROM (SELECT routines AS routine, routines.cadence_of(routines) AS cadence, routines.without_spread(routines, now()) AS own_now, spread_offset,
                 coalesce(routines.without_spread(routines, next_run_at), routines.slot_after_pause(routines)) AS first_slot
          FROM routines.routines WHERE id = routines.routine_id(routine)) AS found,
         routines.next_slots(cadence, greatest(own_now, first_slot - interval '1 microsecond'), slot_limit) AS slot
    WHERE first_slot IS NOT NULL;
$$;
COMMENT ON FUNCTION routines.next IS
    'The coming slots of a routine, in UTC and, for cron, in local time, with the time at which each is due if the routine has a spread, and the reason why one will not fire; while it is paused, those after the end of the pause, or no rows if it has no end. Try: SELECT * FROM routines.next(''demo/hello/every-hour'', 3);';
