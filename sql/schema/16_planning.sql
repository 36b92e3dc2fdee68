-- Planning: how many slots are coming, and when it is quiet. Reads what the cadences and the ledger say, and writes nothing.

CREATE FUNCTION routines.slots_between(cadence routines.cadence, from_time timestamptz, until_time timestamptz)
RETURNS SETOF timestamptz LANGUAGE plpgsql IMMUTABLE ROWS 100 AS $$
DECLARE
    slot timestamptz;
    -- Hours and not days, whose length depends on the session's time zone.
    step interval := CASE (cadence).type WHEN 'hourly' THEN interval '1 hour' WHEN 'daily' THEN interval '24 hours'
                     WHEN 'weekly' THEN interval '168 hours'
                     WHEN 'interval' THEN make_interval(mins => (cadence).every_minutes) END;
BEGIN
    IF (cadence).type = 'cron' THEN
        RETURN QUERY SELECT moment FROM routines.cron_slots(
            routines.cron_rules((cadence).expression), routines.clocks_of((cadence).timezone),
            greatest(from_time, (cadence).starts_at) - interval '1 microsecond',
            least(until_time - interval '1 microsecond', (cadence).ends_at)) AS moment ORDER BY moment;
        RETURN;
    END IF;
    slot := routines.next_fire(cadence, from_time - interval '1 microsecond');
    IF step IS NOT NULL AND (cadence).ends_at IS NULL THEN
        RETURN QUERY SELECT generate_series(slot, until_time - interval '1 microsecond', step);
        RETURN;
    END IF;
    WHILE slot < until_time LOOP
        RETURN NEXT slot;
        slot := routines.next_fire(cadence, slot);
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.slots_between IS
    'The slots at or after from_time and before until_time. Try: SELECT routines.slots_between(routines.cadence_from_json(''{"type": "daily", "hour_utc": 9, "minute_utc": 0}''), now(), now() + interval ''1 week'');';

-- Computes no more than it returns, whatever the cadence: a year of an interval of a minute has half a million slots.
CREATE FUNCTION routines.first_slots_between(
    cadence routines.cadence, from_time timestamptz, until_time timestamptz, slot_limit integer
) RETURNS SETOF timestamptz LANGUAGE plpgsql IMMUTABLE ROWS 100 AS $$
BEGIN
    IF (cadence).type = 'cron' THEN
        RETURN QUERY SELECT * FROM routines.later_cron_slots(
            routines.cron_rules((cadence).expression), routines.clocks_of((cadence).timezone),
            greatest(from_time, (cadence).starts_at) - interval '1 microsecond',
            least(until_time - interval '1 microsecond', (cadence).ends_at), slot_limit);
        RETURN;
    END IF;
    RETURN QUERY SELECT * FROM routines.slots_between(cadence, from_time, CASE (cadence).type
        WHEN 'interval' THEN least(until_time, greatest(from_time, (cadence).starts_at)
                                               + (slot_limit + 1) * make_interval(mins => (cadence).every_minutes))
        ELSE until_time END) LIMIT slot_limit;
END $$;
COMMENT ON FUNCTION routines.first_slots_between IS
    'The first slot_limit slots at or after from_time and before until_time, in order.';

-- Searches the index as newest_ended does.
CREATE FUNCTION routines.usual_seconds(of_task bigint) RETURNS float8 LANGUAGE sql STABLE
RETURN (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM ended_at - started_at)::float8)
        FROM (SELECT ended_at, started_at FROM routines.trajectories
              WHERE task_id = ANY (ARRAY[of_task]) AND final_status = 'completed'
              ORDER BY task_id DESC, id DESC LIMIT 100) AS newest);
COMMENT ON FUNCTION routines.usual_seconds IS
    'How long a run of this task usually takes: the median of its newest 100 completed runs; null if there is none.';

-- Routines with the same cadence have the same slots, so these are computed once for all of them. The load comes when a slot is
-- due, so routines with a spread count `away` from their slots: by whole minutes, since there are few of them.
CREATE FUNCTION routines.coming_slots(of_collection bigint, from_time timestamptz, until_time timestamptz)
RETURNS TABLE (slot timestamptz, slots bigint, expected_seconds float8) LANGUAGE sql STABLE ROWS 1000 AS $$
    WITH alike AS MATERIALIZED (
        SELECT routines.cadence_of(routine) AS cadence, routines.without_spread(routine, next_run_at) AS next_slot,
               CASE WHEN extract(second FROM next_run_at - spread_offset) = 0 THEN date_trunc('minute', spread_offset)
                    ELSE spread_offset END AS away, task.id AS task_id,
               CASE WHEN routines.has_exclusions(routine)
                    THEN jsonb_build_array(calendar, active_hours, routines.zone_of(routine)) END AS exclusions,
               count(*) AS number, min(routine.id) AS routine_id
        FROM routines.tasks AS task
        JOIN routines.routine_names ON routine_names.task_id = task.id
        JOIN routines.routines AS routine ON routine.id = routine_names.routine_id
        WHERE task.collection_id = of_collection AND routine.next_run_at < until_time
        GROUP BY 1, 2, 3, 4, 5
    ),
    excluded AS MATERIALIZED (
        SELECT exclusions, routines.excluded_times(
            (SELECT routine FROM routines.routines AS routine WHERE id = min(routine_id)), from_time - interval '1 hour', until_time) AS times
        FROM alike WHERE exclusions IS NOT NULL GROUP BY exclusions
    ),
    lasting AS MATERIALIZED (
        SELECT task_id, coalesce(routines.usual_seconds(task_id), 0) AS seconds FROM (SELECT DISTINCT task_id FROM alike) AS tasks
    )
    SELECT moved.slot, sum(part.number)::bigint, sum(part.seconds)
    FROM (SELECT cadence, next_slot, exclusions, array_agg(coalesce(away, '0')) AS aways, max(away) AS farthest,
                 array_agg(number) AS numbers, array_agg(seconds) AS seconds
          FROM (SELECT cadence, next_slot, exclusions, away, sum(number) AS number, sum(number * seconds) AS seconds
                FROM alike JOIN lasting USING (task_id) GROUP BY cadence, next_slot, exclusions, away) AS parts
          GROUP BY cadence, next_slot, exclusions) AS due
    LEFT JOIN excluded USING (exclusions)
    CROSS JOIN LATERAL (SELECT coalesce(from_time - farthest, from_time) AS since) AS reach
    CROSS JOIN LATERAL (
        SELECT due.next_slot AS slot WHERE due.next_slot >= since
        UNION ALL
        SELECT routines.slots_between(due.cadence, greatest(since, due.next_slot + interval '1 microsecond'), until_time)
    ) AS coming
    CROSS JOIN LATERAL unnest(due.aways, due.numbers, due.seconds) AS part (away, number, seconds)
    CROSS JOIN LATERAL (SELECT coming.slot + part.away AS slot) AS moved
    WHERE moved.slot >= from_time AND moved.slot < until_time
      AND (times IS NULL OR NOT times @> coming.slot)
    GROUP BY moved.slot;
$$;
COMMENT ON FUNCTION routines.coming_slots IS
    'When slots of a collection are due from from_time until before until_time: how many routines have one then, and how many seconds their runs usually take together. Spread slots are due in the minute in which they fire. Paused routines have none. Slots that calendars or active hours exclude do not count, and neither do times to which they will move.';

CREATE FUNCTION routines.past_slots(of_collection bigint, from_time timestamptz, until_time timestamptz)
RETURNS TABLE (slot timestamptz, is_started boolean, slots bigint) LANGUAGE sql STABLE ROWS 1000 AS $$
    WITH routine AS MATERIALIZED (
        SELECT routine_names.routine_id AS id
        FROM routines.tasks JOIN routines.routine_names ON routine_names.task_id = tasks.id
        WHERE tasks.collection_id = of_collection
    )
    SELECT run.due, true, count(*)
    FROM routine CROSS JOIN LATERAL (
        SELECT coalesce(due_at, scheduled_for) AS due FROM routines.trajectories
        -- A spread is an hour at most.
        WHERE triggered_by_routine_id = routine.id AND scheduled_for >= from_time - interval '1 hour' AND scheduled_for < until_time
    ) AS run
    WHERE run.due >= from_time AND run.due < until_time
    GROUP BY 1
    UNION ALL
    SELECT skipped.slot, false, count(*)
    FROM routine CROSS JOIN LATERAL (
        SELECT scheduled_for, last_scheduled_for, cadence, slot_count, due_at FROM routines.skips
        WHERE routine_id = routine.id AND scheduled_for >= from_time - interval '1 hour' AND scheduled_for < until_time
        UNION ALL
        -- Spans of a routine do not overlap, so only the latest that began before can reach into this time.
        SELECT * FROM (SELECT scheduled_for, last_scheduled_for, cadence, slot_count, due_at FROM routines.skips
                       WHERE routine_id = routine.id AND scheduled_for < from_time - interval '1 hour'
                       ORDER BY scheduled_for DESC LIMIT 1) AS earlier
        WHERE last_scheduled_for >= from_time - interval '1 hour'
    ) AS skip
    CROSS JOIN LATERAL (SELECT coalesce(due_at - last_scheduled_for, '0') AS away) AS spread
    CROSS JOIN LATERAL (
        SELECT skip.scheduled_for WHERE skip.scheduled_for >= from_time - away
        UNION ALL
        SELECT routines.slots_between(skip.cadence, greatest(from_time - away, skip.scheduled_for + interval '1 microsecond'),
                                      least(until_time - away, skip.last_scheduled_for)) WHERE skip.slot_count > 1
        UNION ALL
        SELECT skip.last_scheduled_for WHERE skip.slot_count > 1 AND skip.last_scheduled_for >= from_time - away
    ) AS slot (scheduled_for)
    CROSS JOIN LATERAL (SELECT slot.scheduled_for + away AS slot) AS skipped
    WHERE skipped.slot < until_time
    GROUP BY 1;
$$;
COMMENT ON FUNCTION routines.past_slots IS
    'The slots of a collection''s routines that were due from from_time until before until_time and have their outcome: how many started a run, and how many were skipped.';

CREATE FUNCTION routines.schedule_load(
    of_collection bigint, from_time timestamptz, until_time timestamptz, bucket interval, clock timestamptz DEFAULT now()
) RETURNS TABLE (at timestamptz, slots bigint, expected_seconds float8, started bigint, skipped bigint)
LANGUAGE sql STABLE ROWS 1000 AS $$
    SELECT date_bin(bucket, slot, timestamptz '1970-01-01Z'), sum(coming)::bigint, sum(seconds), sum(begun)::bigint, sum(left_out)::bigint
    FROM (
        SELECT slot, slots AS coming, expected_seconds AS seconds, 0 AS begun, 0 AS left_out
        FROM routines.coming_slots(of_collection, from_time, until_time)
        UNION ALL
        SELECT slot, 0, 0, CASE WHEN is_started THEN slots ELSE 0 END, CASE WHEN is_started THEN 0 ELSE slots END
        FROM routines.past_slots(of_collection, from_time, until_time) WHERE from_time < clock
    ) AS counted
    GROUP BY 1 ORDER BY 1;
$$;
COMMENT ON FUNCTION routines.schedule_load IS
    'The load of a collection''s schedule in each bucket in which there is any: coming slots and the seconds that their runs usually take, and what started or was skipped. Try: SELECT * FROM routines.schedule_load((SELECT id FROM routines.collections WHERE name = ''demo''), now(), now() + interval ''1 week'', ''1 hour'');';

CREATE FUNCTION routines.quiet_minutes(
    of_collection bigint, wish routines.cadence, window_minutes integer, clock timestamptz DEFAULT now()
) RETURNS TABLE (cadence jsonb, minutes_away integer, slots bigint) LANGUAGE sql STABLE ROWS 100 AS $$
    WITH load AS MATERIALIZED (
        SELECT date_bin('1 minute', slot, timestamptz '1970-01-01Z') AS slot, sum(slots)::bigint AS slots
        FROM routines.coming_slots(of_collection, clock, clock + interval '8 days') GROUP BY 1
    ),
    near AS (
        SELECT jsonb_populate_record(wish, CASE (wish).type WHEN 'hourly'
                   THEN jsonb_build_object('minute_utc', mod((wish).minute_utc + away + 60, 60))
                   ELSE jsonb_build_object('hour_utc', minute / 60, 'minute_utc', mod(minute, 60)) END) AS cadence, away
        FROM generate_series(-window_minutes, window_minutes) AS away
        CROSS JOIN LATERAL (SELECT (wish).hour_utc * 60 + (wish).minute_utc + away AS minute) AS moved
        -- Across midnight it would be another day, and half an hour away is as far as an hour goes.
        WHERE CASE (wish).type WHEN 'hourly' THEN away > -30 AND away <= 30 ELSE minute BETWEEN 0 AND 1439 END
    )
    SELECT routines.cadence_to_json(near.cadence), away, coalesce(max(load.slots), 0)
    FROM near
    CROSS JOIN LATERAL routines.slots_between(near.cadence, clock, clock + interval '8 days') AS own
    LEFT JOIN load ON load.slot = own
    GROUP BY near.cadence, away
    ORDER BY 3, abs(away), away;
$$;
COMMENT ON FUNCTION routines.quiet_minutes IS
    'The minutes around a wished cadence, the quietest first and of those the nearest: how many routines of the collection have a slot that is due in the same minute, at most, within the next eight days. For hourly, daily, weekdays and weekly.';

-------------------------------------------------------------------------------------------------- a cadence that is not saved
CREATE FUNCTION routines.preview(
    cadence routines.cadence, from_time timestamptz DEFAULT now(), until_time timestamptz DEFAULT now() + interval '1 year',
    slot_limit integer DEFAULT 10000, made_at timestamptz DEFAULT now(), spread_seconds integer DEFAULT NULL
) RETURNS TABLE (slot timestamptz, local_time text, dst text) LANGUAGE plpgsql STABLE ROWS 100 AS $$
DECLARE
    whole routines.cadence := routines.with_defaults(cadence, made_at);
BEGIN
    PERFORM routines.check_cadence(whole);
    PERFORM routines.check_spread(whole, spread_seconds);
    RETURN QUERY SELECT moment, routines.local_time_of(whole, moment), routines.dst_of(whole, moment)
                 FROM routines.first_slots_between(whole, from_time, until_time, slot_limit) AS moment;
END $$;
COMMENT ON FUNCTION routines.preview IS
    'The slots of a cadence as it is given for a routine made at made_at, by default those of a year, in UTC and, for cron, in local time. A spread is only checked: its offset comes with the id of a routine. Try: SELECT * FROM routines.preview(routines.cadence_from_json(''{"type": "cron", "expression": "30 2 * * *", "timezone": "Europe/Berlin"}''));';

CREATE FUNCTION routines.lack_of_slots(cadence routines.cadence, from_time timestamptz, until_time timestamptz) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    later   timestamptz := routines.next_fire(cadence, until_time - interval '1 microsecond');
    earlier timestamptz := routines.latest_slot(cadence, from_time - interval '1 microsecond');
BEGIN
    RETURN CASE
        WHEN (cadence).type = 'manual' THEN 'A manual routine has no slots: it runs only when someone starts it.'
        WHEN later IS NOT NULL THEN format('No slot falls in this time: the next is %s.', routines.utc(later))
        WHEN earlier IS NOT NULL THEN format('No slot is left: the last was %s.', routines.utc(earlier))
        ELSE 'It never comes: no slot lies between its first and its last time.' END;
END $$;
COMMENT ON FUNCTION routines.lack_of_slots IS 'Why a cadence has no slot at or after from_time and before until_time, in one sentence.';

CREATE FUNCTION routines.clock_changes(zone text, from_time timestamptz, until_time timestamptz)
RETURNS TABLE (moment timestamp, earlier interval, later interval) LANGUAGE plpgsql IMMUTABLE ROWS 2 AS $$
DECLARE
    day    timestamp;
    before timestamp;
    middle timestamp;
BEGIN
    FOR day IN SELECT * FROM generate_series(timezone('UTC', from_time), timezone('UTC', until_time), interval '1 day') LOOP
        earlier := routines.utc_offset(zone, day);
        later := routines.utc_offset(zone, day + interval '1 day');
        CONTINUE WHEN earlier = later;
        -- The change comes after `before` and not after `moment`.
        before := day;
        moment := day + interval '1 day';
        WHILE moment - before > interval '1 second' LOOP
            middle := date_trunc('second', before + (moment - before) / 2);
            EXIT WHEN middle <= before;
            IF routines.utc_offset(zone, middle) = later THEN
                moment := middle;
            ELSE
                before := middle;
            END IF;
        END LOOP;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.clock_changes IS
    'When the clocks of a time zone change, in UTC, and how far they are ahead of UTC before and after.';

-- Not for an expression that comes in every hour of a day: it misses an hour as everybody does.
CREATE FUNCTION routines.real_time_notes(cadence routines.cadence, from_time timestamptz, until_time timestamptz)
RETURNS TABLE (at timestamptz, note text) LANGUAGE sql STABLE ROWS 2 AS $$
    SELECT timezone('UTC', moment), format(
        CASE WHEN later > earlier THEN 'Clocks in %s skip %s to %s on %s: its slots at that time are left out.'
             ELSE 'Clocks in %s show %s to %s twice on %s: its slots at that time come twice.' END,
        (cadence).timezone, to_char(first, 'HH24:MI'), to_char(last, 'HH24:MI'), to_char(first, 'YYYY-MM-DD'))
    FROM routines.clock_changes(routines.clocks_of((cadence).timezone), from_time - interval '1 day', until_time)
    CROSS JOIN LATERAL (SELECT moment + least(earlier, later) AS first, moment + greatest(earlier, later) AS last) AS shown
    CROSS JOIN LATERAL (SELECT routines.cron_rules((cadence).expression) AS rules) AS parsed
    WHERE timezone('UTC', moment) BETWEEN from_time AND until_time AND EXISTS (
        SELECT FROM routines.cron_days(rules, routines.clocks_of((cadence).timezone), first::date, last::date)
        CROSS JOIN unnest((rules[rule_number]).minutes) AS minute
        WHERE (rules[rule_number]).is_real_time
          AND day + minute * interval '1 minute' >= first AND day + minute * interval '1 minute' < last
          AND (SELECT count(DISTINCT each / 60) FROM unnest((rules[rule_number]).minutes) AS each) < 24);
$$;
COMMENT ON FUNCTION routines.real_time_notes IS
    'A sentence for each change of the clocks at which an expression that goes by real time loses slots or has them twice.';

-- Only slots within a day of a change of the clocks are looked at closely.
CREATE FUNCTION routines.clock_warnings(
    cadence routines.cadence, slots timestamptz[], from_time timestamptz, until_time timestamptz, most integer
) RETURNS SETOF text LANGUAGE plpgsql STABLE ROWS 1 AS $$
DECLARE
    zone text := routines.clocks_of((cadence).timezone);
BEGIN
    RETURN QUERY
    WITH near AS MATERIALIZED (
        SELECT slot FROM unnest(slots) AS slot
        WHERE routines.utc_offset(zone, timezone('UTC', slot) - interval '1 day')
           <> routines.utc_offset(zone, timezone('UTC', slot) + interval '1 day')
    ),
    noted AS (
        SELECT note, row_number() OVER (ORDER BY at, note) AS position, count(*) OVER () AS total
        FROM (SELECT slot AS at, routines.clock_note(cadence, slot, slot <= now()) AS note FROM near
              UNION ALL
              SELECT * FROM routines.real_time_notes(
                  cadence, greatest(from_time, (cadence).starts_at), least(until_time, (cadence).ends_at))) AS notes
        WHERE note IS NOT NULL
    )
    SELECT CASE WHEN position <= most THEN note ELSE format('Clocks change at the time of %s more slots.', total - most) END
    FROM noted WHERE position <= most + 1 ORDER BY position;
END $$;
COMMENT ON FUNCTION routines.clock_warnings IS
    'A sentence for each of these slots that a change of the clocks moves, or whose time comes twice, and for each change from from_time to until_time that leaves slots out or repeats them; at most `most`, and then how many more there are.';

CREATE FUNCTION routines.overlap_warning(of_task bigint, slots timestamptz[]) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT format('Runs of %s usually take %s, but two slots are only %s apart, the first of them %s: a slot that comes while a run is active is skipped.',
                  tasks.name, routines.duration_in_words(usual.seconds), routines.duration_in_words(distance), routines.utc(slot))
    FROM routines.tasks
    CROSS JOIN LATERAL (SELECT routines.usual_seconds(tasks.id) AS seconds) AS usual
    CROSS JOIN LATERAL (
        SELECT slot, extract(epoch FROM lead(slot) OVER (ORDER BY slot) - slot)::float8 AS distance FROM unnest(slots) AS slot
        ORDER BY distance, slot LIMIT 1) AS nearest
    WHERE tasks.id = of_task AND distance < usual.seconds;
$$;
COMMENT ON FUNCTION routines.overlap_warning IS
    'A sentence if two of these slots are nearer to each other than a run of the task usually takes; otherwise null.';

CREATE FUNCTION routines.preview_warnings(
    cadence routines.cadence, from_time timestamptz DEFAULT now(), until_time timestamptz DEFAULT now() + interval '1 year',
    slot_limit integer DEFAULT 10000, made_at timestamptz DEFAULT now(), of_task bigint DEFAULT NULL
) RETURNS SETOF text LANGUAGE plpgsql STABLE ROWS 1 AS $$
DECLARE
    whole routines.cadence := routines.with_defaults(cadence, made_at);
    upto  timestamptz := until_time;
    slots timestamptz[];
BEGIN
    PERFORM routines.check_cadence(whole);
    slots := ARRAY(SELECT * FROM routines.first_slots_between(whole, from_time, until_time, slot_limit + 1));
    IF slots = '{}' THEN
        RETURN NEXT routines.lack_of_slots(whole, from_time, until_time);
        RETURN;
    END IF;
    IF cardinality(slots) > slot_limit THEN
        slots := slots[:slot_limit];
        upto := slots[slot_limit];
        RETURN NEXT format('This covers only the first %s slots, up to %s.', slot_limit, routines.utc(slots[slot_limit]));
    END IF;
    IF (whole).type = 'cron' THEN
        RETURN QUERY SELECT * FROM routines.clock_warnings(whole, slots, from_time, upto, 5);
    END IF;
    RETURN QUERY SELECT warning FROM routines.overlap_warning(of_task, slots) AS warning WHERE warning IS NOT NULL;
END $$;
COMMENT ON FUNCTION routines.preview_warnings IS
    'What to know before a cadence is saved, in sentences: slots that a change of the clocks moves or repeats, no slot at all, more slots than slot_limit, and slots nearer to each other than a run of the task usually takes. The same arguments as preview.';
