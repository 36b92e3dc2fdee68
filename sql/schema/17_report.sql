-- The report: what was expected of a schedule, and what became of it. Reads the ledger, of days that have long been over their sums
-- (chapter 14_day_sums), and of routines the slots that are due but not in the ledger yet. Writes nothing.

-- Spans of a routine do not overlap, so of those that began before only the latest can reach into this time. Plain SQL, which
-- disappears from plans.
CREATE FUNCTION routines.span_across(of_routine bigint, from_time timestamptz, until_time timestamptz) RETURNS SETOF routines.skips
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT * FROM (SELECT * FROM routines.skips
                   WHERE routine_id = of_routine AND scheduled_for < least(from_time, until_time) AND last_scheduled_for > scheduled_for
                   ORDER BY scheduled_for DESC LIMIT 1) AS earlier
    WHERE last_scheduled_for >= from_time;
$$;
COMMENT ON FUNCTION routines.span_across IS 'The skipped span of a routine that began before from_time and reaches across; or no row.';

CREATE FUNCTION routines.skips_between(of_routine bigint, from_time timestamptz, until_time timestamptz) RETURNS SETOF routines.skips
LANGUAGE sql STABLE ROWS 10 AS $$
    SELECT * FROM routines.skips
    WHERE routine_id = of_routine AND scheduled_for >= from_time AND scheduled_for < until_time
    UNION ALL
    SELECT * FROM routines.span_across(of_routine, from_time, until_time);
$$;
COMMENT ON FUNCTION routines.skips_between IS
    'The skips of a routine with a slot at or after from_time and before until_time, or a span that reaches across.';

CREATE FUNCTION routines.count_slots_between(
    cadence routines.cadence, first_slot timestamptz, last_slot timestamptz, from_time timestamptz, until_time timestamptz
) RETURNS bigint LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    -- The slots between the first and the last one, which alone may be times that a person set.
    inner_first timestamptz := routines.next_fire(cadence, greatest(first_slot, from_time - interval '1 microsecond'));
    inner_last  timestamptz := routines.latest_slot(cadence, least(last_slot, until_time) - interval '1 microsecond');
BEGIN
    RETURN CASE WHEN first_slot >= from_time AND first_slot < until_time THEN 1 ELSE 0 END
        + CASE WHEN last_slot > first_slot AND last_slot >= from_time AND last_slot < until_time THEN 1 ELSE 0 END
        + CASE WHEN inner_first <= inner_last THEN routines.count_slots(cadence, inner_first, inner_last) ELSE 0 END;
END $$;
COMMENT ON FUNCTION routines.count_slots_between IS
    'How many slots of a span, from first_slot to last_slot, are at or after from_time and before until_time.';

-- Plain SQL: nearly all skips are a single slot, or lie wholly within the time.
CREATE FUNCTION routines.slots_of_skip(skip routines.skips, from_time timestamptz, until_time timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN (skip).scheduled_for >= from_time AND (skip).last_scheduled_for < until_time THEN (skip).slot_count
    ELSE routines.count_slots_between((skip).cadence, (skip).scheduled_for, (skip).last_scheduled_for, from_time, until_time) END;
COMMENT ON FUNCTION routines.slots_of_skip IS 'How many slots of a skip are at or after from_time and before until_time.';

---------------------------------------------------------------------------------------------- slots without an outcome
-- The same rules as in the tick and in settle_slots, which will record these slots, on the clock of the routine.
CREATE FUNCTION routines.open_spans(routine routines.routines, clock timestamptz DEFAULT now())
RETURNS TABLE (scheduled_for timestamptz, last_scheduled_for timestamptz, reason text)
LANGUAGE plpgsql STABLE ROWS 1 AS $$
DECLARE
    cadence   routines.cadence := routines.cadence_of(routine);
    own_now   timestamptz := routines.without_spread(routine, clock);
    settled   timestamptz := coalesce((routine).settled_until,
                                      CASE WHEN (routine).paused THEN (routine).paused_at ELSE (routine).created_at END);
    moved_to  timestamptz := CASE WHEN (routine).moved_to > settled THEN (routine).moved_to END;
    pause_end timestamptz := routines.without_spread(routine, (routine).paused_until);
    -- The first slot that the tick will look at.
    due       timestamptz := CASE WHEN (routine).paused THEN routines.slot_after_pause(routine)
                                  ELSE routines.without_spread(routine, (routine).next_run_at) END;
BEGIN
    IF due <= (routine).settled_until THEN
        due := routines.next_fire(cadence, (routine).settled_until);
    END IF;
    -- Slots of a pause; or those that a person has set next_run_at past.
    scheduled_for := least(moved_to, routines.next_fire(cadence, settled));
    last_scheduled_for := least(own_now, coalesce(CASE WHEN (routine).paused THEN pause_end ELSE due END, 'infinity')
                                         - interval '1 microsecond');
    IF scheduled_for <= last_scheduled_for AND (due IS NOT NULL OR (routine).paused) THEN
        last_scheduled_for := greatest(scheduled_for, routines.latest_slot(cadence, last_scheduled_for),
                                       CASE WHEN moved_to <= last_scheduled_for THEN moved_to END);
        reason := CASE WHEN (routine).paused THEN 'paused' ELSE 'pending' END;
        RETURN NEXT;
    END IF;
    IF due <= own_now THEN
        scheduled_for := due;
        last_scheduled_for := greatest(due, routines.latest_slot(cadence, own_now));
        reason := 'pending';
        RETURN NEXT;
    END IF;
END $$;
COMMENT ON FUNCTION routines.open_spans IS
    'Spans of slots of a routine that are due and not in the ledger yet. paused: they fall in its current pause, and will be skipped. pending: a tick will decide.';

-- Plain SQL, so that the rest is called for few routines.
CREATE FUNCTION routines.may_have_open_spans(routine routines.routines, clock timestamptz) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE RETURN
    (routine).paused OR (routine).next_run_at <= clock
    OR routines.latest_slot_of(routine, routines.without_spread(routine, clock)) > coalesce((routine).settled_until, (routine).created_at);
COMMENT ON FUNCTION routines.may_have_open_spans IS 'Returns false if open_spans has nothing for a routine.';

------------------------------------------------------------------------------------------------------------- the report
-- Plain SQL, so that it is planned once, with the report. As plpgsql it was planned for each routine with trouble, and took longer than
-- all the rest.
CREATE FUNCTION routines.recovered_slots(
    of_routine bigint, from_time timestamptz, until_time timestamptz, last_completed timestamptz, failed_slots timestamptz[],
    lost_slots timestamptz[], lost_counts bigint[], clock timestamptz
) RETURNS TABLE (recovered bigint) LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT CASE WHEN failed_slots IS NULL AND lost_slots IS NULL THEN 0 ELSE
        (SELECT count(*) FROM unnest(failed_slots) AS slot WHERE slot < recovery)
        + (SELECT coalesce(sum(slots)::bigint, 0) FROM unnest(lost_slots, lost_counts) AS lost (first_slot, slots) WHERE first_slot < recovery)
        -- Of the others, those that a backfill has filled.
        + (SELECT count(*) FROM routines.trajectories AS fill
           WHERE (recovery > ALL (lost_slots)) IS NOT TRUE AND lost_slots IS NOT NULL
             AND triggered_by_routine_id = of_routine AND rerun_of IS NULL
             AND fills_slot >= greatest(from_time, recovery) AND fills_slot < until_time
             AND routines.status_of_slot(id, status, retried_by) = 'completed'
             AND EXISTS (SELECT FROM routines.skips_between(of_routine, fills_slot, fills_slot + interval '1 microsecond')
                         WHERE reason IN ('missed', 'failed_to_start', 'backoff'))) END
    FROM (
        -- Most trouble is followed by a slot that completed within this time. Otherwise the next 100 runs are looked at.
        SELECT CASE WHEN until_time <= clock
            AND (last_completed > ALL (coalesce(failed_slots, '{}')) AND last_completed > ALL (coalesce(lost_slots, '{}'))) IS NOT TRUE
            AND EXISTS (SELECT FROM (SELECT routines.status_of_slot(id, status, retried_by) AS status FROM routines.trajectories
                                     WHERE triggered_by_routine_id = of_routine AND scheduled_for >= until_time
                                     ORDER BY scheduled_for LIMIT 100) AS later WHERE status = 'completed')
            THEN until_time ELSE last_completed END AS recovery OFFSET 0) AS since;
$$;
COMMENT ON FUNCTION routines.recovered_slots IS
    'How many failed or lost slots were filled since, or are followed by a slot whose run completed, even one after until_time. Each of lost_slots is the first of as many slots as lost_counts says.';

CREATE FUNCTION routines.reported_routines(of_collection bigint, from_time timestamptz, until_time timestamptz)
RETURNS TABLE (id bigint, task text, name text, is_deleted boolean) LANGUAGE sql STABLE ROWS 1000 AS $$
    SELECT routine_names.routine_id, tasks.name, routine_names.name, false
    FROM routines.tasks JOIN routines.routine_names ON routine_names.task_id = tasks.id
    WHERE tasks.collection_id = of_collection
    UNION ALL
    SELECT deleted.id, coalesce(tasks.name, deleted_tasks.name, 'deleted'), deleted.name, true
    FROM routines.deleted_routines AS deleted
    LEFT JOIN routines.tasks ON tasks.id = deleted.task_id
    LEFT JOIN routines.deleted_tasks ON deleted_tasks.id = deleted.task_id
    WHERE deleted.collection_id = of_collection AND deleted.deleted_at >= from_time
      AND (EXISTS (SELECT FROM routines.trajectories
                   WHERE triggered_by_routine_id = deleted.id AND scheduled_for >= from_time AND scheduled_for < until_time)
           OR EXISTS (SELECT FROM routines.skips_between(deleted.id, from_time, until_time)));
$$;
COMMENT ON FUNCTION routines.reported_routines IS
    'The routines of a collection, and those deleted since that have a slot in the ledger in this time.';

CREATE FUNCTION routines.report_of(
    of_collection bigint, from_time timestamptz, until_time timestamptz, late_after_seconds integer DEFAULT 60,
    clock timestamptz DEFAULT now(), after_task text DEFAULT NULL, after_routine text DEFAULT NULL, after_id bigint DEFAULT NULL,
    most integer DEFAULT NULL
) RETURNS TABLE (
    task text, routine text, routine_id bigint, is_deleted boolean, expected bigint, started bigint, on_time bigint, late bigint,
    completed bigint, failed bigint, cancelled bigint, archived bigint, active bigint, skipped bigint, overlap bigint, coalesced bigint, missed bigint,
    paused bigint, failed_to_start bigint, calendar bigint, outside_hours bigint, backoff bigint, pending bigint, recovered bigint,
    max_delay_seconds float8
) LANGUAGE sql STABLE ROWS 1000 AS $$
    WITH reported AS MATERIALIZED (
        SELECT id, task, name, is_deleted, row_number() OVER (ORDER BY task, name, id) AS place
        FROM routines.reported_routines(of_collection, from_time, until_time)
        WHERE after_id IS NULL OR (task, name, id) > (after_task, after_routine, after_id)
        ORDER BY place LIMIT most
    ),
    run AS MATERIALIZED (
        SELECT * FROM routines.counted_runs(ARRAY(SELECT id FROM reported), from_time, until_time,
                                            make_interval(secs => late_after_seconds), clock)
    ),
    skip AS MATERIALIZED (
        SELECT counted.id, sum(slots) FILTER (WHERE reason <> 'pending') AS skipped, sum(slots) FILTER (WHERE reason = 'overlap') AS overlap,
               sum(slots) FILTER (WHERE reason = 'coalesced') AS coalesced,
               sum(slots) FILTER (WHERE reason = 'missed') AS missed, sum(slots) FILTER (WHERE reason = 'paused') AS paused,
               sum(slots) FILTER (WHERE reason = 'failed_to_start') AS failed_to_start,
               sum(slots) FILTER (WHERE reason = 'calendar') AS calendar, sum(slots) FILTER (WHERE reason = 'outside_hours') AS outside_hours,
               sum(slots) FILTER (WHERE reason = 'backoff') AS backoff,
               sum(slots) FILTER (WHERE reason = 'pending') AS pending,
               array_agg(first_slot) FILTER (WHERE reason IN ('missed', 'failed_to_start', 'backoff')) AS lost_slots,
               array_agg(slots) FILTER (WHERE reason IN ('missed', 'failed_to_start', 'backoff')) AS lost_counts
        FROM (
            SELECT routine_id AS id, reason, scheduled_for AS first_slot, routines.slots_of_skip(skips, from_time, until_time) AS slots
            FROM routines.skips
            WHERE routine_id = ANY (ARRAY(SELECT id FROM reported)) AND scheduled_for >= from_time AND scheduled_for < until_time
            UNION ALL
            SELECT reported.id, across.reason, across.scheduled_for, routines.slots_of_skip(across, from_time, until_time)
            FROM reported CROSS JOIN LATERAL routines.span_across(reported.id, from_time, until_time) AS across
            UNION ALL
            SELECT routines.id, reason, open.scheduled_for, routines.count_slots_between(
                routines.cadence_of(routines), open.scheduled_for, open.last_scheduled_for, from_time, until_time)
            FROM routines.routines CROSS JOIN LATERAL routines.open_spans(routines, clock) AS open
            WHERE routines.id = ANY (ARRAY(SELECT id FROM reported)) AND coalesce(settled_until, created_at) < until_time
              AND routines.may_have_open_spans(routines, clock)
        ) AS counted
        GROUP BY counted.id
    )
    SELECT reported.task, reported.name, reported.id, reported.is_deleted,
           (coalesce(run.started, 0) + coalesce(skip.skipped, 0) + coalesce(skip.pending, 0))::bigint, coalesce(run.started, 0),
           coalesce(run.started - run.late, 0), coalesce(run.late, 0), coalesce(run.completed, 0), coalesce(run.failed, 0),
           coalesce(run.cancelled, 0), coalesce(run.archived, 0), coalesce(run.active, 0), coalesce(skip.skipped, 0)::bigint,
           coalesce(skip.overlap, 0)::bigint, coalesce(skip.coalesced, 0)::bigint, coalesce(skip.missed, 0)::bigint, coalesce(skip.paused, 0)::bigint,
           coalesce(skip.failed_to_start, 0)::bigint, coalesce(skip.calendar, 0)::bigint, coalesce(skip.outside_hours, 0)::bigint,
           coalesce(skip.backoff, 0)::bigint,
           coalesce(skip.pending, 0)::bigint,
           since.recovered,
           extract(epoch FROM run.max_delay)::float8
    FROM reported LEFT JOIN run ON run.routine_id = reported.id LEFT JOIN skip ON skip.id = reported.id
    CROSS JOIN LATERAL routines.recovered_slots(reported.id, from_time, until_time, run.last_completed, run.failed_slots,
                                                skip.lost_slots, skip.lost_counts, clock) AS since
    ORDER BY reported.place;
$$;
COMMENT ON FUNCTION routines.report_of IS
    'What the slots at or after from_time and before until_time became, for each routine of a collection, by task and name: after a given one, if given, and at most `most`. Slots that are not due yet do not count.';

CREATE FUNCTION routines.report(
    collection text, from_time timestamptz DEFAULT date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC',
    until_time timestamptz DEFAULT now(), late_after_seconds integer DEFAULT 60
) RETURNS TABLE (
    task text, routine text, expected bigint, started bigint, on_time bigint, late bigint, completed bigint, failed bigint,
    cancelled bigint, archived bigint, active bigint, skipped bigint, overlap bigint, coalesced bigint, missed bigint, paused bigint,
    failed_to_start bigint, calendar bigint, outside_hours bigint, backoff bigint, pending bigint, recovered bigint,
    max_delay_seconds float8, routine_id bigint, is_deleted boolean
) LANGUAGE sql STABLE ROWS 1000 AS $$
    SELECT found.task, found.routine, found.expected, found.started, found.on_time, found.late, found.completed, found.failed,
           found.cancelled, found.archived, found.active, found.skipped, found.overlap, found.coalesced, found.missed, found.paused,
           found.failed_to_start, found.calendar, found.outside_hours, found.backoff, found.pending, found.recovered, found.max_delay_seconds,
           found.routine_id, found.is_deleted
    FROM routines.collections CROSS JOIN LATERAL routines.report_of(
        collections.id, from_time, until_time, late_after_seconds) AS found
    WHERE collections.name = collection
    ORDER BY 1, 2, found.routine_id;
$$;
COMMENT ON FUNCTION routines.report IS
    'What was expected of the routines of a collection and what became of it, for slots at or after from_time and before until_time; by default since 00:00 UTC. expected = started + skipped + pending. Try: SELECT task, routine, expected, on_time, late, failed, skipped, recovered FROM routines.report(''demo'', now() - interval ''1 day'');';

------------------------------------------------------------------------------------------------------------------- gaps
-- A loop, so that no more slots are computed than are returned, however long a span is.
CREATE FUNCTION routines.skipped_slots(
    of_routine bigint, from_time timestamptz, until_time timestamptz, slot_limit integer, only_reason text DEFAULT NULL,
    clock timestamptz DEFAULT now()
) RETURNS TABLE (
    scheduled_for timestamptz, due_at timestamptz, reason text, detail text, blocking_trajectory_id bigint, recorded_at timestamptz
) LANGUAGE plpgsql STABLE ROWS 100 AS $$
DECLARE
    span record;
    left_over integer := slot_limit;
    since timestamptz;
    filled timestamptz[];
BEGIN
    FOR span IN
        (SELECT skips.scheduled_for AS first_slot, skips.last_scheduled_for AS last_slot, skips.cadence, skips.reason, skips.detail,
                skips.blocking_trajectory_id, skips.recorded_at, skips.due_at - skips.last_scheduled_for AS away, skips.filled_by
         FROM routines.skips
         WHERE routine_id = of_routine AND skips.scheduled_for >= from_time AND skips.scheduled_for < until_time
           AND (skips.filled_by IS NULL OR skips.slot_count > 1)
           AND coalesce(skips.reason = only_reason, true)
         ORDER BY skips.scheduled_for LIMIT slot_limit)
        UNION ALL
        SELECT skips.scheduled_for, skips.last_scheduled_for, skips.cadence, skips.reason, skips.detail, skips.blocking_trajectory_id,
               skips.recorded_at, skips.due_at - skips.last_scheduled_for, skips.filled_by
        FROM routines.skips_between(of_routine, from_time, from_time) AS skips
        WHERE coalesce(skips.reason = only_reason, true) AND (skips.filled_by IS NULL OR skips.slot_count > 1)
        UNION ALL
        SELECT open.scheduled_for, open.last_scheduled_for, routines.cadence_of(routines), open.reason,
               routines.pause_in_words(paused_reason, paused_at, paused_until, paused_note), NULL, NULL, spread_offset, NULL
        FROM routines.routines CROSS JOIN LATERAL routines.open_spans(routines, clock) AS open
        WHERE routines.id = of_routine AND open.reason = 'paused' AND coalesce(only_reason = 'paused', true)
        ORDER BY first_slot
    LOOP
        reason := span.reason;
        detail := span.detail;
        blocking_trajectory_id := span.blocking_trajectory_id;
        recorded_at := span.recorded_at;
        since := greatest(from_time, span.first_slot + interval '1 microsecond');
        filled := CASE WHEN span.filled_by IS NOT NULL THEN ARRAY(
            SELECT fills_slot FROM routines.trajectories
            WHERE triggered_by_routine_id = of_routine AND fills_slot BETWEEN span.first_slot AND span.last_slot AND rerun_of IS NULL) END;
        FOR scheduled_for IN
            SELECT span.first_slot WHERE span.first_slot >= from_time AND span.first_slot < until_time
            UNION ALL
            SELECT routines.first_slots_between(span.cadence, since, least(until_time, span.last_slot),
                                                left_over + coalesce(cardinality(filled), 0))
            WHERE since < least(until_time, span.last_slot)
            UNION ALL
            SELECT span.last_slot
            WHERE span.last_slot > span.first_slot AND span.last_slot >= from_time AND span.last_slot < until_time
        LOOP
            CONTINUE WHEN scheduled_for = ANY (filled);
            EXIT WHEN left_over <= 0;
            due_at := scheduled_for + span.away;
            left_over := left_over - 1;
            RETURN NEXT;
        END LOOP;
        EXIT WHEN left_over <= 0;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.skipped_slots IS
    'The first slots of a routine at or after from_time and before until_time that were skipped and not filled since, or fall in its current pause, one by one, in order; at most slot_limit, and of one reason, if given.';

CREATE FUNCTION routines.gaps_of(
    of_routine bigint, from_time timestamptz, until_time timestamptz, slot_limit integer, only_reason text DEFAULT NULL,
    with_failed boolean DEFAULT false, clock timestamptz DEFAULT now(), of_collection bigint DEFAULT NULL
) RETURNS TABLE (
    scheduled_for timestamptz, due_at timestamptz, reason text, detail text, trajectory_id bigint, blocking_trajectory_id bigint,
    recorded_at timestamptz
) LANGUAGE sql STABLE ROWS 100 AS $$
    SELECT * FROM (
        SELECT scheduled_for, due_at, reason, detail, NULL::bigint AS trajectory_id, blocking_trajectory_id, recorded_at
        FROM routines.skipped_slots(of_routine, from_time, until_time, slot_limit, only_reason, clock)
        UNION ALL
        (SELECT first.slot, due_at, 'failed', last.error, last.id, NULL, last.ended_at
         FROM (SELECT scheduled_for AS slot, due_at, id, retried_by FROM routines.trajectories
               WHERE triggered_by_routine_id = of_routine AND scheduled_for >= from_time AND scheduled_for < until_time
                 AND (status = 'failed' OR retried_by IS NOT NULL) AND coalesce(collection_id = of_collection, true)
               UNION ALL
               SELECT fills_slot, NULL, id, retried_by FROM routines.trajectories
               WHERE triggered_by_routine_id = of_routine AND fills_slot >= from_time AND fills_slot < until_time AND rerun_of IS NULL
                 AND (status = 'failed' OR retried_by IS NOT NULL) AND coalesce(collection_id = of_collection, true)) AS first
         CROSS JOIN LATERAL (SELECT attempt.id, attempt.error, attempt.ended_at FROM routines.trajectories AS attempt
                             WHERE attempt.id = routines.last_attempt(first.id, first.retried_by) AND attempt.status = 'failed' LIMIT 1) AS last
         WHERE with_failed
         ORDER BY first.slot LIMIT slot_limit)
    ) AS gap
    ORDER BY scheduled_for LIMIT slot_limit;
$$;
COMMENT ON FUNCTION routines.gaps_of IS 'As gaps, by the id of the routine.';

CREATE FUNCTION routines.gaps(
    routine text, from_time timestamptz DEFAULT now() - interval '30 days', until_time timestamptz DEFAULT now(),
    with_failed boolean DEFAULT false, slot_limit integer DEFAULT 1000
) RETURNS TABLE (
    scheduled_for timestamptz, due_at timestamptz, reason text, detail text, trajectory_id bigint, blocking_trajectory_id bigint,
    recorded_at timestamptz
) LANGUAGE sql STABLE ROWS 100 AS $$
    SELECT * FROM routines.gaps_of(routines.routine_id(routine), from_time, until_time, slot_limit, NULL, with_failed)
$$;
COMMENT ON FUNCTION routines.gaps IS
    'The slots of a routine that never ran, and that no backfill has filled, oldest first, and why; with_failed also those whose run failed, with the reason failed. Try: SELECT * FROM routines.gaps(''demo/hello/every-hour'', now() - interval ''1 week'');';
