-- Sums of days: how the scheduled runs of each routine ended on each day that has been over for two hours. A report of a month reads a
-- row for each day instead of every run. Workers add the rows. Whatever changes a run of a day later is noted in day_changes in the
-- same transaction; reports then read the runs of that day, until a worker has summed it up again. So a report is that of the
-- ledger at any moment.

-- Triggers:
--   AFTER TRUNCATE  begin_anew  lets workers begin at the oldest run again
-- No foreign keys: history outlives the routine.
CREATE TABLE routines.day_sums (
    routine_id     bigint NOT NULL,
    day            date NOT NULL,
    collection_id  bigint NOT NULL,
    is_open        boolean NOT NULL,
    started        integer NOT NULL DEFAULT 0,
    late           integer NOT NULL DEFAULT 0,
    completed      integer NOT NULL DEFAULT 0,
    failed         integer NOT NULL DEFAULT 0,
    cancelled      integer NOT NULL DEFAULT 0,
    archived       integer NOT NULL DEFAULT 0,
    max_delay      interval,
    failed_slots   timestamptz[],
    last_completed timestamptz,
    summed_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT day_sums_pkey PRIMARY KEY (routine_id, day)
);
-- What retention leaves behind.
CREATE INDEX day_sums_day_idx ON routines.day_sums (day);
COMMENT ON TABLE  routines.day_sums IS
    'How the scheduled runs of each routine ended, by day. Read by reports only. After TRUNCATE workers sum up anew; nothing else may delete rows.';
COMMENT ON COLUMN routines.day_sums.routine_id IS 'The routine, which may have been deleted. It has no row for a day without runs.';
COMMENT ON COLUMN routines.day_sums.day IS 'The UTC day of the slots.';
COMMENT ON COLUMN routines.day_sums.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.day_sums.is_open IS 'Whether a run had not ended: the sums do not count.';
COMMENT ON COLUMN routines.day_sums.started IS 'The number of runs.';
COMMENT ON COLUMN routines.day_sums.late IS 'How many began more than 60 seconds after the slot was due.';
COMMENT ON COLUMN routines.day_sums.completed IS 'Slots whose last attempt completed.';
COMMENT ON COLUMN routines.day_sums.failed IS 'Slots whose last attempt failed.';
COMMENT ON COLUMN routines.day_sums.cancelled IS 'Slots whose last attempt was cancelled.';
COMMENT ON COLUMN routines.day_sums.archived IS 'Slots whose last attempt was archived.';
COMMENT ON COLUMN routines.day_sums.max_delay IS 'The longest time from a slot''s due time to the start of its run.';
COMMENT ON COLUMN routines.day_sums.failed_slots IS 'The slots that failed; null if none did.';
COMMENT ON COLUMN routines.day_sums.last_completed IS 'The latest slot that completed; null if none did.';
COMMENT ON COLUMN routines.day_sums.summed_at IS 'When it was summed up.';
SELECT routines.protect('routines.day_sums');

-- No triggers. Rows are only added, so no transaction that changes a run waits for another. A worker deletes those that it saw before
-- it began to count.
CREATE TABLE routines.day_changes (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT day_changes_pkey PRIMARY KEY,
    routine_id    bigint NOT NULL,
    day           date NOT NULL,
    collection_id bigint NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX day_changes_day_idx ON routines.day_changes (day);
COMMENT ON TABLE  routines.day_changes IS 'Days on which a run changed more than half an hour after its slot. Reports do not use their sums.';
COMMENT ON COLUMN routines.day_changes.id IS 'Database id.';
COMMENT ON COLUMN routines.day_changes.routine_id IS 'The routine.';
COMMENT ON COLUMN routines.day_changes.day IS 'The UTC day of the slot.';
COMMENT ON COLUMN routines.day_changes.collection_id IS 'The tenant.';
SELECT routines.protect('routines.day_changes');

-- No triggers. One row.
CREATE TABLE routines.day_sums_progress (
    only_row      boolean NOT NULL DEFAULT true CONSTRAINT day_sums_progress_pkey PRIMARY KEY
                  CONSTRAINT day_sums_progress_is_one_row CHECK (only_row),
    summed_from   date NOT NULL,
    summed_until  date NOT NULL,
    after_routine bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);
COMMENT ON TABLE  routines.day_sums_progress IS 'Which days workers have summed up. One of them at a time locks it. Empty: none, and they will begin at the oldest run.';
COMMENT ON COLUMN routines.day_sums_progress.only_row IS 'Always true.';
COMMENT ON COLUMN routines.day_sums_progress.summed_from IS 'The first day that has been summed up.';
COMMENT ON COLUMN routines.day_sums_progress.summed_until IS 'The first day that has not been summed up completely.';
COMMENT ON COLUMN routines.day_sums_progress.after_routine IS 'Up to which routine that day has been summed up.';

CREATE FUNCTION routines.begin_anew() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM routines.day_sums_progress;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.begin_anew IS 'Forgets which days have been summed up.';
CREATE TRIGGER begin_anew AFTER TRUNCATE ON routines.day_sums FOR EACH STATEMENT EXECUTE FUNCTION routines.begin_anew();

CREATE FUNCTION routines.first_day_with_all_runs() RETURNS date LANGUAGE sql STABLE AS $$
    SELECT (deleted_until AT TIME ZONE 'UTC')::date + 1 FROM routines.retention WHERE what = 'trajectories';
$$;
COMMENT ON FUNCTION routines.first_day_with_all_runs IS
    'The first UTC day from which retention has deleted no run; null if it has deleted none.';

CREATE FUNCTION routines.day_begins_at(day date) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
RETURN day::timestamp AT TIME ZONE 'UTC';
COMMENT ON FUNCTION routines.day_begins_at IS 'The beginning of a UTC day.';

---------------------------------------------------------------------------------------------------------------- changes
-- A day is summed up two hours after its end, and a change of a run is noted from half an hour after its slot. So a transaction would have
-- to last for an hour and a half to be overlooked.
CREATE FUNCTION routines.mark_changed_day() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.day_changes (routine_id, day, collection_id)
    SELECT DISTINCT run.routine_id, (run.slot AT TIME ZONE 'UTC')::date, NEW.collection_id
    FROM (VALUES (NEW.triggered_by_routine_id, NEW.scheduled_for),
                 (CASE WHEN TG_OP = 'UPDATE' THEN OLD.triggered_by_routine_id END, CASE WHEN TG_OP = 'UPDATE' THEN OLD.scheduled_for END),
                 -- A retry changes what became of the slot of the run that failed first.
                 (NEW.triggered_by_routine_id, (SELECT first.scheduled_for FROM routines.trajectories AS first
                                                WHERE first.id = NEW.retry_of))) AS run (routine_id, slot)
    WHERE run.routine_id IS NOT NULL AND run.slot < now() - interval '30 minutes';
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.mark_changed_day IS 'Notes that the day of a scheduled run, or of the slot of a retry, has changed.';
CREATE TRIGGER mark_day_of_created AFTER INSERT ON routines.trajectories
    FOR EACH ROW WHEN (NEW.scheduled_for < now() - interval '30 minutes') EXECUTE FUNCTION routines.mark_changed_day();
CREATE TRIGGER mark_day_of_changed
    AFTER UPDATE OF status, triggered_by_routine_id, scheduled_for, due_at, started_at, ended_at, retry_of, retried_by ON routines.trajectories
    FOR EACH ROW WHEN (NEW.scheduled_for < now() - interval '30 minutes' OR OLD.scheduled_for < now() - interval '30 minutes'
                       OR NEW.retry_of IS NOT NULL)
    EXECUTE FUNCTION routines.mark_changed_day();

-- Once a statement, since retention deletes in batches.
CREATE FUNCTION routines.mark_days_of_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.day_changes (routine_id, day, collection_id)
    SELECT DISTINCT deleted.triggered_by_routine_id, (slot AT TIME ZONE 'UTC')::date, deleted.collection_id
    FROM deleted CROSS JOIN LATERAL (SELECT CASE WHEN deleted.retry_of IS NULL THEN deleted.scheduled_for ELSE (
        SELECT first.scheduled_for FROM routines.trajectories AS first WHERE first.id = deleted.retry_of) END AS slot) AS of_first
    WHERE deleted.triggered_by_routine_id IS NOT NULL AND slot < now() - interval '30 minutes';
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.mark_days_of_deleted IS 'Notes that the days of deleted runs have changed.';
CREATE TRIGGER mark_days_of_deleted AFTER DELETE ON routines.trajectories
    REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION routines.mark_days_of_deleted();

--------------------------------------------------------------------------------------------------------------- counting
CREATE TYPE routines.run_counts AS (
    routine_id bigint, started integer, late integer, completed integer, failed integer, cancelled integer, archived integer,
    active integer,    max_delay interval, failed_slots timestamptz[], last_completed timestamptz
);
COMMENT ON COLUMN routines.run_counts.routine_id IS 'The routine.';
COMMENT ON COLUMN routines.run_counts.started IS 'The number of runs.';
COMMENT ON COLUMN routines.run_counts.late IS 'How many began late.';
COMMENT ON COLUMN routines.run_counts.completed IS 'Slots whose last attempt completed.';
COMMENT ON COLUMN routines.run_counts.failed IS 'Slots whose last attempt failed.';
COMMENT ON COLUMN routines.run_counts.cancelled IS 'Slots whose last attempt was cancelled.';
COMMENT ON COLUMN routines.run_counts.archived IS 'Slots whose last attempt was archived.';
COMMENT ON COLUMN routines.run_counts.active IS 'Slots whose last attempt has not ended.';
COMMENT ON COLUMN routines.run_counts.max_delay IS 'The longest delay.';
COMMENT ON COLUMN routines.run_counts.failed_slots IS 'The slots that failed; null if none did.';
COMMENT ON COLUMN routines.run_counts.last_completed IS 'The latest slot that completed; null if none did.';
COMMENT ON TYPE routines.run_counts IS 'What became of the scheduled runs of a routine: as day_sums, and how many are active.';

-- Finds its runs in trajectories_slot_key and then reads each page of the table once, in the order of the pages, whichever routine
-- the rows belong to: a month of a thousand hourly routines took 0.45 s of processor time, and 1.1 s routine by routine. The
-- settings leave the planner no other way, and it plans for the ids that it is given. The runs are grouped twice, because the first
-- grouping is cheap for each run.
CREATE FUNCTION routines.count_runs(
    routine_ids bigint[], from_time timestamptz, until_time timestamptz, late_after interval, clock timestamptz
) RETURNS SETOF routines.run_counts LANGUAGE plpgsql STABLE ROWS 1000
SET plan_cache_mode = force_custom_plan SET enable_indexscan = off SET enable_seqscan = off SET work_mem = '64MB' AS $$
BEGIN
    RETURN QUERY
    SELECT id, sum(runs)::integer, coalesce(sum(runs) FILTER (WHERE is_late), 0)::integer,
           coalesce(sum(runs) FILTER (WHERE status = 'completed'), 0)::integer,
           coalesce(sum(runs) FILTER (WHERE status = 'failed'), 0)::integer,
           coalesce(sum(runs) FILTER (WHERE status = 'cancelled'), 0)::integer,
           coalesce(sum(runs) FILTER (WHERE status = 'archived'), 0)::integer,
           coalesce(sum(runs) FILTER (WHERE status IN ('pending', 'running')), 0)::integer, max(longest),
           max(failures) FILTER (WHERE is_late) || max(failures) FILTER (WHERE NOT is_late),
           max(newest) FILTER (WHERE status = 'completed')
    FROM (
        SELECT triggered_by_routine_id AS id, outcome.status, delay > late_after AS is_late, count(*)::integer AS runs, max(delay) AS longest,
               max(scheduled_for) AS newest, array_agg(scheduled_for) FILTER (WHERE outcome.status = 'failed') AS failures
        FROM routines.trajectories
        CROSS JOIN LATERAL (SELECT routines.status_of_slot(id, trajectories.status, retried_by) AS status) AS outcome
        CROSS JOIN LATERAL (SELECT greatest(
            coalesce(started_at, ended_at, clock) - coalesce(due_at, scheduled_for), '0') AS delay) AS begun
        WHERE triggered_by_routine_id = ANY (routine_ids) AND scheduled_for >= from_time AND scheduled_for < until_time
        GROUP BY 1, 2, 3
    ) AS alike
    GROUP BY id;
END $$;
COMMENT ON FUNCTION routines.count_runs IS
    'What became of the scheduled runs of these routines, of slots at or after from_time and before until_time. late: begun more than late_after after the slot was due. failed_slots: null if no run failed.';

---------------------------------------------------------------------------------------------------------------- summing
CREATE FUNCTION routines.sums_of_day(routine_ids bigint[], of_day date, clock timestamptz)
RETURNS SETOF routines.day_sums LANGUAGE sql STABLE ROWS 1000 AS $$
    SELECT run.routine_id, of_day, known.collection_id, run.active > 0, run.started::integer, run.late::integer, run.completed::integer,
           run.failed::integer, run.cancelled::integer, run.archived::integer, run.max_delay, run.failed_slots, run.last_completed, clock
    FROM routines.count_runs(routine_ids, routines.day_begins_at(of_day), routines.day_begins_at(of_day + 1), '60 s', clock) AS run
    CROSS JOIN LATERAL (
        SELECT collection_id FROM routines.routine_names WHERE routine_names.routine_id = run.routine_id
        UNION ALL
        SELECT collection_id FROM routines.deleted_routines WHERE deleted_routines.id = run.routine_id
        LIMIT 1) AS known;
$$;
COMMENT ON FUNCTION routines.sums_of_day IS
    'The sums of a day, from the runs. No row for a routine without runs, nor for one whose name is not known any more: no report lists it.';

-- What changes meanwhile is noted, and so summed up again.
CREATE FUNCTION routines.sum_up_next(batch_size integer, clock timestamptz DEFAULT now()) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    progress routines.day_sums_progress;
    page     bigint[];
BEGIN
    IF NOT EXISTS (SELECT FROM routines.day_sums_progress) THEN
        INSERT INTO routines.day_sums_progress (summed_from, summed_until)
        SELECT first_day, first_day
        FROM (SELECT (coalesce((SELECT created_at FROM routines.trajectories ORDER BY id LIMIT 1), clock) AT TIME ZONE 'UTC')::date) AS oldest (first_day)
        ON CONFLICT ON CONSTRAINT day_sums_progress_pkey DO NOTHING;
    END IF;
    SELECT * INTO progress FROM routines.day_sums_progress
    WHERE routines.day_begins_at(summed_until + 1) <= clock - interval '2 hours' FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    page := ARRAY(
        SELECT id FROM (
            (SELECT routine_id AS id FROM routines.routine_names WHERE routine_id > progress.after_routine ORDER BY routine_id LIMIT batch_size)
            UNION ALL
            (SELECT id FROM routines.deleted_routines WHERE id > progress.after_routine ORDER BY id LIMIT batch_size)) AS known
        ORDER BY id LIMIT batch_size);
    INSERT INTO routines.day_sums SELECT * FROM routines.sums_of_day(page, progress.summed_until, clock) ORDER BY routine_id
    ON CONFLICT ON CONSTRAINT day_sums_pkey DO NOTHING;
    UPDATE routines.day_sums_progress
    SET (summed_until, after_routine) = (
        SELECT CASE WHEN is_last THEN progress.summed_until + 1 ELSE progress.summed_until END,
               CASE WHEN is_last THEN 0 ELSE page[cardinality(page)] END
        FROM (SELECT cardinality(page) < batch_size AS is_last) AS page_end);
    RETURN greatest(cardinality(page), 1);
END $$;
COMMENT ON FUNCTION routines.sum_up_next IS
    'Sums up the first day that is not summed up yet and has been over for two hours, for the next batch_size routines. Returns how many there were, 1 at least; 0 if nothing is to be done, or another session is at it.';

-- In statements of their own: what is counted is newer than the changes that are then deleted, and what commits later has noted
-- another change.
CREATE FUNCTION routines.sum_up_changed(batch_size integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    taken   bigint[];
    changed record;
BEGIN
    PERFORM FROM routines.day_sums_progress FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    taken := ARRAY(SELECT id FROM routines.day_changes WHERE day < (SELECT summed_until FROM routines.day_sums_progress)
                   ORDER BY id LIMIT batch_size FOR UPDATE SKIP LOCKED);
    FOR changed IN
        SELECT day, array_agg(DISTINCT routine_id ORDER BY routine_id) AS routine_ids FROM routines.day_changes
        WHERE id = ANY (taken) GROUP BY day ORDER BY day
    LOOP
        DELETE FROM routines.day_sums WHERE day = changed.day AND routine_id = ANY (changed.routine_ids);
        INSERT INTO routines.day_sums SELECT * FROM routines.sums_of_day(changed.routine_ids, changed.day, now())
        ON CONFLICT ON CONSTRAINT day_sums_pkey DO NOTHING;
    END LOOP;
    DELETE FROM routines.day_changes WHERE id = ANY (taken);
    RETURN cardinality(taken);
END $$;
COMMENT ON FUNCTION routines.sum_up_changed IS
    'Sums up again the days of up to batch_size changes, and returns their number; 0 also if another session is at it.';

-- Of days of which retention has deleted runs, few are left: reports read these.
CREATE FUNCTION routines.forget_day_sums(batch_size integer) RETURNS integer LANGUAGE sql AS $$
    WITH gone AS (
        DELETE FROM routines.day_sums
        WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM routines.day_sums WHERE day < routines.first_day_with_all_runs()
            ORDER BY day LIMIT batch_size FOR UPDATE SKIP LOCKED))
        RETURNING 1
    ),
    unread AS (
        DELETE FROM routines.day_changes
        WHERE id = ANY (ARRAY(
            SELECT id FROM routines.day_changes WHERE day < routines.first_day_with_all_runs()
            ORDER BY day LIMIT batch_size FOR UPDATE SKIP LOCKED))
        RETURNING 1
    )
    SELECT ((SELECT count(*) FROM gone) + (SELECT count(*) FROM unread))::integer;
$$;
COMMENT ON FUNCTION routines.forget_day_sums IS
    'Deletes up to batch_size sums and up to batch_size changes of days whose runs retention has deleted. Returns how many rows it deleted.';

---------------------------------------------------------------------------------------------------------------- reading
-- Arrays of a month at most.
CREATE AGGREGATE routines.concatenated(timestamptz[]) (sfunc = array_cat, stype = timestamptz[], parallel = safe);
COMMENT ON AGGREGATE routines.concatenated(timestamptz[]) IS 'Joins arrays into one; null if all are null.';

-- One statement reads sums and runs, so it sees both as of one moment.
CREATE FUNCTION routines.counted_runs(
    routine_ids bigint[], from_time timestamptz, until_time timestamptz, late_after interval, clock timestamptz
) RETURNS SETOF routines.run_counts LANGUAGE plpgsql STABLE ROWS 1000 AS $$
DECLARE
    progress  routines.day_sums_progress := (SELECT day_sums_progress FROM routines.day_sums_progress);
    -- The whole days of this time that are summed up.
    first_day date := greatest((from_time AT TIME ZONE 'UTC' - interval '1 microsecond')::date + 1, routines.first_day_with_all_runs(),
                               progress.summed_from);
    end_day   date := least((until_time AT TIME ZONE 'UTC')::date, progress.summed_until);
    summed_from  timestamptz := routines.day_begins_at(first_day);
    summed_until timestamptz := routines.day_begins_at(end_day);
BEGIN
    IF late_after <> interval '60 s' OR progress IS NULL OR coalesce(first_day >= end_day, true) THEN
        RETURN QUERY SELECT * FROM routines.count_runs(routine_ids, from_time, until_time, late_after, clock);
        RETURN;
    END IF;
    RETURN QUERY
    WITH part AS (
        SELECT * FROM routines.count_runs(routine_ids, from_time, summed_from, late_after, clock) WHERE from_time < summed_from
        UNION ALL
        SELECT * FROM routines.count_runs(routine_ids, summed_until, until_time, late_after, clock) WHERE summed_until < until_time
        UNION ALL
        SELECT counted.*
        FROM (SELECT day, array_agg(unsure.routine_id) AS ids FROM (
                  SELECT day_sums.routine_id, day FROM routines.day_sums WHERE is_open AND day >= first_day AND day < end_day
                  UNION
                  SELECT day_changes.routine_id, day FROM routines.day_changes WHERE day >= first_day AND day < end_day) AS unsure
              WHERE unsure.routine_id IN (SELECT unnest(routine_ids)) GROUP BY day) AS stale
        CROSS JOIN LATERAL routines.count_runs(
            stale.ids, routines.day_begins_at(stale.day), routines.day_begins_at(stale.day + 1), late_after, clock) AS counted
        UNION ALL
        SELECT sums.routine_id, sums.started, sums.late, sums.completed, sums.failed, sums.cancelled, sums.archived, 0, sums.max_delay,
               sums.failed_slots, sums.last_completed
        FROM unnest(routine_ids) AS asked (id) JOIN routines.day_sums AS sums ON sums.routine_id = asked.id
        WHERE NOT is_open AND day >= first_day AND day < end_day
          AND (sums.routine_id, day) NOT IN (
              SELECT day_changes.routine_id, day_changes.day FROM routines.day_changes
              WHERE day_changes.day >= first_day AND day_changes.day < end_day)
    )
    SELECT part.routine_id, sum(part.started)::integer, sum(part.late)::integer, sum(part.completed)::integer, sum(part.failed)::integer,
           sum(part.cancelled)::integer, sum(part.archived)::integer, sum(part.active)::integer, max(part.max_delay),
           routines.concatenated(part.failed_slots), max(part.last_completed)
    FROM part GROUP BY part.routine_id HAVING sum(part.started) > 0;
END $$;
COMMENT ON FUNCTION routines.counted_runs IS 'As count_runs, by the sums of days where there are any.';
