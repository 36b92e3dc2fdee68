-- The timeline: what many routines did and will do, beside each other. Reads the ledger, the runs and the cadences, and writes nothing.

-- plpgsql, so that it stops at the runs that are too old: those that no slot started have no index by time, but ids in the order
-- of their creation, nearly. It also passes those that came after until_time, so the recent past is cheaper than what is long ago.
CREATE FUNCTION routines.runs_between(of_routine bigint, from_time timestamptz, until_time timestamptz, clock timestamptz DEFAULT now())
RETURNS TABLE (id bigint, status text, slot timestamptz, began_at timestamptz, ended_at timestamptz)
LANGUAGE plpgsql STABLE ROWS 20 AS $$
DECLARE
    of_trigger text;
    run        record;
    earlier    integer;
BEGIN
    RETURN QUERY
    SELECT * FROM (
        SELECT found.id, found.status, found.scheduled_for, coalesce(found.started_at, found.created_at) AS began, found.ended_at AS ended
        FROM routines.trajectories AS found
        WHERE triggered_by_routine_id = of_routine AND scheduled_for >= from_time AND scheduled_for < until_time
        UNION ALL
        (SELECT found.id, found.status, found.scheduled_for, coalesce(found.started_at, found.created_at), found.ended_at
         FROM routines.trajectories AS found
         WHERE triggered_by_routine_id = of_routine AND scheduled_for < least(from_time, until_time)
         ORDER BY scheduled_for DESC LIMIT 10)
    ) AS scheduled
    WHERE began < until_time AND coalesce(ended, clock) >= from_time;
    FOREACH of_trigger IN ARRAY '{run-now,retry,rerun,backfill}'::text[] LOOP
        earlier := 0;
        FOR run IN SELECT found.id, found.status, coalesce(found.started_at, found.created_at) AS began, found.created_at, found.ended_at AS ended
                   FROM routines.trajectories AS found
                   WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NULL AND trigger = of_trigger
                   ORDER BY found.id DESC LOOP
            earlier := earlier + CASE WHEN run.created_at < from_time THEN 1 ELSE 0 END;
            EXIT WHEN earlier > 10;
            IF run.began < until_time AND coalesce(run.ended, clock) >= from_time THEN
                id := run.id; status := run.status; slot := NULL; began_at := run.began; ended_at := run.ended;
                RETURN NEXT;
            END IF;
        END LOOP;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.runs_between IS
    'The runs of a routine that were active or waiting at some moment from from_time until before until_time, whatever started them. Of those from before from_time the newest 10 are looked at, of scheduled runs and of each other trigger.';

-- A page of routines is chosen first, so that its cost does not depend on how many others there are. What is of one kind and begins
-- in one bucket is one mark, so that the size of an answer does not depend on how often a routine fires.
CREATE FUNCTION routines.timeline_of(
    of_collection bigint, from_time timestamptz, until_time timestamptz, bucket interval, clock timestamptz DEFAULT now(),
    ids bigint[] DEFAULT NULL, part_of_name text DEFAULT '', after_task text DEFAULT NULL, after_routine text DEFAULT NULL,
    after_id bigint DEFAULT NULL, most integer DEFAULT NULL
) RETURNS TABLE (
    task text, routine text, routine_id bigint, paused_at timestamptz, paused_until timestamptz, kind text, at timestamptz,
    until timestamptz, number bigint, trajectory_id bigint, scheduled_for timestamptz
) LANGUAGE sql STABLE ROWS 1000 AS $$
    WITH shown AS MATERIALIZED (
        SELECT names.routine_id AS id, tasks.name AS task, names.name
        FROM routines.tasks JOIN routines.routine_names AS names ON names.task_id = tasks.id
        WHERE tasks.collection_id = of_collection AND (ids IS NULL OR names.routine_id = ANY (ids))
          AND strpos(tasks.name || '/' || names.name, part_of_name) > 0
          AND (after_id IS NULL OR (tasks.name, names.name, names.routine_id) > (after_task, after_routine, after_id))
        ORDER BY tasks.name, names.name, names.routine_id LIMIT most
    )
    SELECT shown.task, shown.name, found.id, found.paused_at, found.paused_until, marks.kind, marks.at, nullif(marks.until, 'infinity'),
           marks.number, marks.run, marks.slot
    FROM shown
    JOIN routines.routines AS found ON found.id = shown.id
    LEFT JOIN LATERAL (
        SELECT kind, min(at) AS at, max(until) AS until, sum(number)::bigint AS number,
               CASE WHEN count(*) = 1 THEN min(run) END AS run, min(slot) AS slot
        FROM (
            SELECT run.status AS kind, run.began_at AS at, coalesce(run.ended_at, 'infinity') AS until, 1::bigint AS number, run.id AS run, run.slot
            FROM routines.runs_between(found.id, from_time, until_time, clock) AS run
            UNION ALL
            SELECT skip.reason, skip.scheduled_for + away, skip.last_scheduled_for + away, skip.slot_count, NULL, skip.scheduled_for
            FROM routines.skips_between(found.id, from_time, until_time) AS skip
            CROSS JOIN LATERAL (SELECT coalesce(skip.due_at - skip.last_scheduled_for, '0') AS away) AS spread
            UNION ALL
            -- Slots that are due and have no outcome yet are among them.
            SELECT CASE WHEN due_at <= clock THEN 'due' ELSE 'coming' END, due_at, due_at, 1, NULL, coming.slot
            FROM routines.slots_of_routines(
                ARRAY[found.id], ARRAY[coalesce(routines.without_spread(found, found.next_run_at), routines.slot_after_pause(found))],
                from_time - interval '1 hour', until_time) AS coming
            CROSS JOIN LATERAL (SELECT routines.with_spread(found, coming.slot) AS due_at) AS due
            WHERE due_at >= from_time AND due_at < until_time
        ) AS mark
        GROUP BY kind, date_bin(bucket, greatest(at, from_time), timestamptz '1970-01-01Z')
    ) AS marks ON true
    ORDER BY shown.task, shown.name, found.id, marks.at, marks.kind;
$$;
COMMENT ON FUNCTION routines.timeline_of IS
    'What routines of a collection did from from_time until before until_time, and will do: a row for each kind of mark in each bucket, by task and name, after a given routine, if given, and at most `most` of them; one row without a kind for a routine without any. kind is the status of runs, the reason of skips, `due` for slots without an outcome, or `coming`. Slots that calendars or active hours will exclude are left out. Try: SELECT * FROM routines.timeline_of((SELECT id FROM routines.collections WHERE name = ''demo''), now() - interval ''12 hours'', now() + interval ''6 hours'', ''10 minutes'');';
