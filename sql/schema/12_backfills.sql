-- Backfills: a range of nominal slots is filled afterwards. For each slot whose run is missing, or is to be repeated, a ticker starts a
-- run that knows the slot as its own. It starts a few at a time, so a backfill of a year is one row until its runs are started.
--
-- The ledger stays as it was written. A slot with a run gets a later attempt, as by a rerun, and its outcome follows that. A skip
-- stays a skip and says filled_by. A slot without a row is one from before the routine existed, or one that retention has deleted.
-- trajectories_fill_key keeps two runs from filling one slot, as trajectories_slot_key does for scheduled runs.

-- Triggers:
--   BEFORE INSERT  check_backfill     rejects what cannot be filled, and fills in collection_id and made_by
CREATE TABLE routines.backfills (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT backfills_pkey PRIMARY KEY,
    collection_id bigint NOT NULL,
    routine_id    bigint NOT NULL,
    from_time     timestamptz NOT NULL,
    until_time    timestamptz NOT NULL,
    reprocess     text NOT NULL DEFAULT 'missing' CONSTRAINT backfills_reprocess_is_known
                  CHECK (reprocess IN ('missing', 'failed', 'all')),
    slot_order    text NOT NULL DEFAULT 'oldest' CONSTRAINT backfills_slot_order_is_known CHECK (slot_order IN ('oldest', 'newest')),
    max_active    smallint NOT NULL DEFAULT 1 CONSTRAINT backfills_max_active_in_range CHECK (max_active BETWEEN 1 AND 20),
    created_at    timestamptz NOT NULL DEFAULT now(),
    made_by       text NOT NULL,
    reached       timestamptz,
    started       integer NOT NULL DEFAULT 0,
    left_out      integer NOT NULL DEFAULT 0,
    next_look_at  timestamptz NOT NULL DEFAULT now(),
    held_by       text,
    ended_at      timestamptz,
    end_reason    text CONSTRAINT backfills_end_reason_is_known CHECK (end_reason IN ('expanded', 'cancelled', 'routine_deleted')),
    CONSTRAINT backfills_range_is_ordered CHECK (from_time < until_time),
    CONSTRAINT backfills_end_has_reason CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);
-- All that a ticker looks at while there is nothing to fill.
CREATE INDEX backfills_open_idx ON routines.backfills (next_look_at) WHERE ended_at IS NULL;
CREATE INDEX backfills_routine_id_idx ON routines.backfills (routine_id, id);
COMMENT ON TABLE  routines.backfills IS
    'Ranges of slots that are filled afterwards. INSERT INTO routines.backfills (routine_id, from_time, until_time) VALUES (1, ''2026-05-01Z'', ''2026-06-01Z''); first look at routines.slots_to_fill().';
COMMENT ON COLUMN routines.backfills.id IS 'Database id.';
COMMENT ON COLUMN routines.backfills.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.backfills.routine_id IS 'The routine, which may have been deleted.';
COMMENT ON COLUMN routines.backfills.from_time IS 'No slot is earlier.';
COMMENT ON COLUMN routines.backfills.until_time IS 'Every slot is earlier. Never in the future.';
COMMENT ON COLUMN routines.backfills.reprocess IS
    'missing: slots without a run. failed: also those whose last attempt failed or was cancelled. all: also those that completed, and those that retention has forgotten.';
COMMENT ON COLUMN routines.backfills.slot_order IS 'oldest: the oldest slot first. newest: the newest slot first.';
COMMENT ON COLUMN routines.backfills.max_active IS 'How many of its runs may be active at once.';
COMMENT ON COLUMN routines.backfills.created_at IS 'When it was requested.';
COMMENT ON COLUMN routines.backfills.made_by IS 'Who requested it: key 7, operator, or login postgres.';
COMMENT ON COLUMN routines.backfills.reached IS 'The last slot that was decided; null at the start.';
COMMENT ON COLUMN routines.backfills.started IS 'How many runs it has started.';
COMMENT ON COLUMN routines.backfills.left_out IS 'How many slots it has left as they were.';
COMMENT ON COLUMN routines.backfills.next_look_at IS 'When a ticker looks at it next.';
COMMENT ON COLUMN routines.backfills.held_by IS 'Why no ticker could start a run at the last look, other than the number of its own active runs; null for nothing.';
COMMENT ON COLUMN routines.backfills.ended_at IS 'From when on it starts no more runs; its runs may still be active.';
COMMENT ON COLUMN routines.backfills.end_reason IS 'expanded: every slot is decided. cancelled: a person cancelled it. routine_deleted: its routine was deleted.';
SELECT routines.protect('routines.backfills');

------------------------------------------------------------------------------------------------- the slots of a range
-- The ledger has every slot since the routine was created, also those of a cadence that it had then, apart from what retention has
-- deleted. Before that time the cadence of today says which slots there are.
CREATE FUNCTION routines.ledger_since(routine routines.routines) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
RETURN greatest((routine).created_at, (SELECT max(deleted_until) + interval '1 microsecond' FROM routines.retention));
COMMENT ON FUNCTION routines.ledger_since IS 'From when on the ledger has every slot of a routine.';

CREATE FUNCTION routines.last_slot_of_span(
    cadence routines.cadence, first_slot timestamptz, last_slot timestamptz, before timestamptz
) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN last_slot < before THEN last_slot
    ELSE greatest(first_slot, routines.latest_slot(cadence, before - interval '1 microsecond')) END;
COMMENT ON FUNCTION routines.last_slot_of_span IS 'The last slot of a span in skips that is earlier than `before`, which is later than first_slot.';

-- plpgsql, planned once: they are called for each slot.
CREATE FUNCTION routines.slot_after(routine routines.routines, after timestamptz, clock timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT min(slot) FROM (
        SELECT routines.next_slot_of_span(begun.cadence, begun.scheduled_for, begun.last_scheduled_for, after) AS slot
        FROM (SELECT * FROM routines.skips WHERE routine_id = (routine).id AND scheduled_for <= after
              ORDER BY scheduled_for DESC LIMIT 1) AS begun
        UNION ALL
        SELECT min(scheduled_for) FROM routines.skips WHERE routine_id = (routine).id AND scheduled_for > after
        UNION ALL
        SELECT min(scheduled_for) FROM routines.trajectories
        WHERE triggered_by_routine_id = (routine).id AND scheduled_for IS NOT NULL AND scheduled_for > after
        UNION ALL
        SELECT next_fire FROM routines.next_fire(routines.cadence_of(routine), after)
        WHERE next_fire < routines.ledger_since(routine)
        UNION ALL
        SELECT routines.next_slot_of_span(routines.cadence_of(routine), scheduled_for, last_scheduled_for, after)
        FROM routines.open_spans(routine, clock) WHERE (routine).paused AND reason = 'paused'
    ) AS candidate);
END $$;
COMMENT ON FUNCTION routines.slot_after IS
    'The first slot of a routine after this time that has an outcome, falls in its current pause, or comes before the ledger begins; null for none.';

CREATE FUNCTION routines.slot_before(routine routines.routines, before timestamptz, clock timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT max(slot) FROM (
        SELECT routines.last_slot_of_span(begun.cadence, begun.scheduled_for, begun.last_scheduled_for, before) AS slot
        FROM (SELECT * FROM routines.skips WHERE routine_id = (routine).id AND scheduled_for < before
              ORDER BY scheduled_for DESC LIMIT 1) AS begun
        UNION ALL
        SELECT max(scheduled_for) FROM routines.trajectories
        WHERE triggered_by_routine_id = (routine).id AND scheduled_for IS NOT NULL AND scheduled_for < before
        UNION ALL
        SELECT routines.latest_slot(
            routines.cadence_of(routine), least(before, routines.ledger_since(routine)) - interval '1 microsecond')
        UNION ALL
        SELECT routines.last_slot_of_span(routines.cadence_of(routine), scheduled_for, last_scheduled_for, before)
        FROM routines.open_spans(routine, clock) WHERE (routine).paused AND reason = 'paused' AND scheduled_for < before
    ) AS candidate);
END $$;
COMMENT ON FUNCTION routines.slot_before IS 'The last such slot before this time, see slot_after; null for none.';

-- plpgsql, so that it is called only where it is needed, and planned once.
CREATE FUNCTION routines.last_fill(of_routine bigint, slot timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (SELECT routines.last_attempt(id, retried_by) FROM routines.trajectories
            WHERE triggered_by_routine_id = of_routine AND fills_slot IS NOT NULL AND rerun_of IS NULL AND fills_slot = slot);
END $$;
COMMENT ON FUNCTION routines.last_fill IS
    'The last attempt at a slot that a backfill filled and that no scheduled run was for; null if none did.';

------------------------------------------------------------------------------------------- what becomes of each slot
CREATE TYPE routines.fate AS (becomes text, reason text, last_run bigint, skip_id bigint);
COMMENT ON TYPE routines.fate IS 'What a backfill makes of a slot.';
COMMENT ON COLUMN routines.fate.becomes IS 'run: its first run. rerun: another attempt. left: nothing.';
COMMENT ON COLUMN routines.fate.reason IS
    'What it is now: the status of its last attempt, the reason of its skip, paused in the current pause, before_creation, or forgotten, if retention may have deleted its run.';
COMMENT ON COLUMN routines.fate.last_run IS 'Its last attempt.';
COMMENT ON COLUMN routines.fate.skip_id IS 'Its skip, which may be a span.';

-- A slot that a calendar or the active hours exclude was left out on purpose, and so is never filled.
CREATE FUNCTION routines.fate_of_slot(routine routines.routines, slot timestamptz, reprocess text) RETURNS routines.fate
LANGUAGE plpgsql STABLE AS $$
DECLARE
    fate routines.fate;
    run  record;
    skip record;
BEGIN
    SELECT id, retried_by INTO run FROM routines.trajectories
    WHERE triggered_by_routine_id = (routine).id AND scheduled_for IS NOT NULL AND scheduled_for = slot;
    IF NOT FOUND THEN
        SELECT id, retried_by INTO run FROM routines.trajectories
        WHERE triggered_by_routine_id = (routine).id AND fills_slot IS NOT NULL AND rerun_of IS NULL AND fills_slot = slot;
    END IF;
    IF FOUND THEN
        fate.last_run := routines.last_attempt(run.id, run.retried_by);
        fate.reason := routines.status_of_attempt(fate.last_run);
        fate.becomes := CASE WHEN fate.reason IN ('pending', 'running') THEN 'left'
                             WHEN reprocess = 'all' OR reprocess = 'failed' AND fate.reason IN ('failed', 'cancelled') THEN 'rerun'
                             ELSE 'left' END;
        RETURN fate;
    END IF;
    SELECT id, cadence, scheduled_for, last_scheduled_for, reason, slot_count, filled_by INTO skip FROM routines.skips
    WHERE routine_id = (routine).id AND scheduled_for <= slot ORDER BY scheduled_for DESC LIMIT 1;
    IF FOUND AND skip.last_scheduled_for >= slot
       AND coalesce(routines.is_slot_of_span(skip.cadence, skip.scheduled_for, skip.last_scheduled_for, slot), false) THEN
        fate.skip_id := skip.id;
        -- The run that filled it was deleted.
        fate.reason := CASE WHEN skip.filled_by IS NOT NULL AND skip.slot_count = 1 THEN 'forgotten' ELSE skip.reason END;
    ELSIF slot < (routine).created_at THEN
        fate.reason := 'before_creation';
    ELSIF slot < routines.ledger_since(routine) THEN
        fate.reason := 'forgotten';
    ELSE
        fate.reason := 'paused';
    END IF;
    IF fate.skip_id IS NULL THEN
        fate.reason := coalesce((SELECT CASE WHEN routines.exclusion_of(routine, slot) IS NOT NULL THEN 'excluded' END), fate.reason);
    END IF;
    fate.becomes := CASE WHEN fate.reason IN ('calendar', 'outside_hours', 'excluded') THEN 'left'
                         WHEN fate.reason = 'forgotten' AND reprocess <> 'all' THEN 'left' ELSE 'run' END;
    RETURN fate;
END $$;
COMMENT ON FUNCTION routines.fate_of_slot IS 'What a backfill with this reprocess makes of a slot of a routine.';

CREATE FUNCTION routines.slots_to_fill(
    of_routine bigint, from_time timestamptz, until_time timestamptz, reprocess text DEFAULT 'missing', slot_order text DEFAULT 'oldest',
    reached timestamptz DEFAULT NULL, most_slots integer DEFAULT 1000, most_runs integer DEFAULT NULL, clock timestamptz DEFAULT now()
) RETURNS TABLE (slot timestamptz, becomes text, reason text, trajectory_id bigint, skip_id bigint)
LANGUAGE plpgsql STABLE ROWS 100 AS $$
DECLARE
    routine routines.routines := (SELECT routines FROM routines.routines WHERE id = of_routine);
    fate    routines.fate;
    slots   integer := 0;
    runs    integer := 0;
BEGIN
    slot := coalesce(reached, CASE slot_order WHEN 'newest' THEN until_time ELSE from_time - interval '1 microsecond' END);
    WHILE slots < most_slots AND coalesce(runs < most_runs, true) LOOP
        slot := CASE slot_order WHEN 'newest' THEN routines.slot_before(routine, slot, clock)
                                ELSE routines.slot_after(routine, slot, clock) END;
        EXIT WHEN (slot >= from_time AND slot < until_time) IS NOT TRUE;
        fate := routines.fate_of_slot(routine, slot, reprocess);
        becomes := fate.becomes;
        reason := fate.reason;
        trajectory_id := fate.last_run;
        skip_id := fate.skip_id;
        slots := slots + 1;
        runs := runs + CASE becomes WHEN 'left' THEN 0 ELSE 1 END;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.slots_to_fill IS
    'The slots of a routine at or after from_time and before until_time, and what a backfill would make of each: run, rerun or left, and why. From after the slot `reached` on, at most most_slots, and no more once most_runs of them are to run. Slots that are due and have no outcome yet are left to the schedule. Try: SELECT * FROM routines.slots_to_fill(routines.routine_id(''demo/hello/every-hour''), now() - interval ''1 week'', now());';

------------------------------------------------------------------------------------------------------------- requests
CREATE FUNCTION routines.most_open_backfills() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 20;
COMMENT ON FUNCTION routines.most_open_backfills IS 'How many backfills of a collection may be open at once.';
CREATE FUNCTION routines.most_slots_to_fill() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 10000;
COMMENT ON FUNCTION routines.most_slots_to_fill IS 'How many slots a backfill may have.';

CREATE FUNCTION routines.refuse_backfill(rule text, message text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', message USING ERRCODE = 'check_violation', CONSTRAINT = rule;
END $$;
COMMENT ON FUNCTION routines.refuse_backfill IS 'Raises the error of a backfill that breaks this rule.';

-- The advisory lock lets the requests of a collection be counted one after the other.
CREATE FUNCTION routines.check_backfill() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    routine routines.routines := (SELECT routines FROM routines.routines WHERE id = NEW.routine_id);
BEGIN
    IF (routine).id IS NULL THEN
        PERFORM routines.refuse_backfill('backfills_routine_exists', format('there is no routine %s', NEW.routine_id));
    ELSIF (routine).cadence_type = 'manual' THEN
        PERFORM routines.refuse_backfill('backfills_routine_has_slots', 'a manual routine has no slots');
    END IF;
    NEW.collection_id := (routine).collection_id;
    NEW.made_by := coalesce(NEW.made_by, (routines.actor()).actor);
    NEW.until_time := least(NEW.until_time, now());
    PERFORM pg_advisory_xact_lock(hashtext('routines.backfills'), hashtext(NEW.collection_id::text));
    IF (SELECT count(*) FROM routines.backfills WHERE collection_id = NEW.collection_id AND ended_at IS NULL)
       >= routines.most_open_backfills() THEN
        PERFORM routines.refuse_backfill('backfills_open_is_bounded', format(
            'the collection has %s open backfills, as many as it may: cancel one, or wait for its end', routines.most_open_backfills()));
    ELSIF (SELECT count(*) FROM routines.slots_to_fill(NEW.routine_id, NEW.from_time, NEW.until_time, NEW.reprocess, 'oldest', NULL,
                                                       routines.most_slots_to_fill() + 1)) > routines.most_slots_to_fill() THEN
        PERFORM routines.refuse_backfill('backfills_slots_is_bounded', format(
            'to: the range has more than %s slots', routines.most_slots_to_fill()));
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.check_backfill IS
    'Rejects a backfill of a manual routine, of too many slots, or beside too many open ones. Fills in the tenant and who requests it, and ends its range now at the latest.';
CREATE TRIGGER check_backfill BEFORE INSERT ON routines.backfills FOR EACH ROW EXECUTE FUNCTION routines.check_backfill();

-- In two statements: the second sees the runs that a ticker inserted while the first waited for it.
CREATE FUNCTION routines.cancel_backfill(backfill bigint, reason text DEFAULT 'cancelled') RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    UPDATE routines.backfills SET ended_at = now(), end_reason = reason, held_by = NULL WHERE id = backfill AND end_reason IS NULL;
    UPDATE routines.trajectories
    SET status = 'cancelled', fence = fence + 1, ended_at = now(), updated_at = now(), lease_expires_at = NULL,
        error = 'cancelled: its backfill was cancelled before the run began'
    WHERE backfill_id = backfill AND final_status IS NULL AND started_at IS NULL;
    RETURN EXISTS (SELECT FROM routines.backfills WHERE id = backfill);
END $$;
COMMENT ON FUNCTION routines.cancel_backfill IS
    'Ends a backfill, and cancels those of its runs that no worker has begun. Returns false if there is no such backfill.';

CREATE FUNCTION routines.end_backfills() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM routines.cancel_backfill(id, 'routine_deleted') FROM routines.backfills WHERE routine_id = OLD.id AND end_reason IS NULL;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.end_backfills IS 'Ends the backfills of a routine that is deleted.';
CREATE TRIGGER end_backfills AFTER DELETE ON routines.routines FOR EACH ROW EXECUTE FUNCTION routines.end_backfills();

------------------------------------------------------------------------------------------------------------ expansion
-- A backfill yields to the schedule: it starts no run while another run of the routine is active, and none shortly before the next
-- slot, since its own runs are active runs too and would hold that slot back.
CREATE FUNCTION routines.usual_duration(of_routine bigint) RETURNS interval LANGUAGE sql STABLE AS $$
    SELECT max(ended_at - started_at) FROM (
        (SELECT started_at, ended_at FROM routines.trajectories
         WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NOT NULL ORDER BY scheduled_for DESC LIMIT 10)
        UNION ALL
        (SELECT started_at, ended_at FROM routines.trajectories
         WHERE triggered_by_routine_id = of_routine AND scheduled_for IS NULL AND trigger = 'backfill' ORDER BY id DESC LIMIT 10)) AS newest;
$$;
COMMENT ON FUNCTION routines.usual_duration IS 'How long the longest of the newest runs of a routine took, of its scheduled ones and those of backfills; null if none has ended.';

CREATE FUNCTION routines.holds_backfill(routine routines.routines, others integer) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN (routine).paused THEN 'the routine is paused'
        WHEN others >= coalesce((routine).max_concurrent, 1) THEN 'another run of the routine is active'
        WHEN (routine).next_run_at - now() <= least(coalesce(routines.usual_duration((routine).id), '0'), (
            (routine).next_run_at - routines.with_spread(routine, routines.latest_slot(
                routines.cadence_of(routine), routines.without_spread(routine, (routine).next_run_at) - interval '1 microsecond'))) / 2)
            THEN 'the next slot comes before a run would usually end' END;
$$;
COMMENT ON FUNCTION routines.holds_backfill IS
    'Why a backfill of a routine must not start a run now, beside as many active runs that are not its own; null if it may. Up to half of the time between two slots is left to the next one.';

CREATE FUNCTION routines.start_backfill_run(
    backfill bigint, routine routines.routines, slot timestamptz, last_run bigint, skip_id bigint
) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    slot_values jsonb := routines.slot_values((routine).id, slot, 'backfill');
    made        bigint;
BEGIN
    INSERT INTO routines.trajectories (
        collection_id, task_id, task_version, triggered_by_routine_id, trigger, backfill_id, fills_slot, rerun_of, init_params,
        slot_values, secret_refs, webhook_url, webhook_secret_id, timeout_seconds)
    SELECT (routine).collection_id, tasks.id, tasks.version, (routine).id, 'backfill', backfill, slot, last_run,
           init_params || (routine).init_params_overrides || routines.params_from_slot((routine).init_params_from_slot, slot_values),
           slot_values, (routine).secret_refs, (routine).webhook_url, (routine).webhook_secret_id, (routine).timeout_seconds
    FROM routines.tasks JOIN routines.task_versions ON task_versions.task_id = tasks.id AND task_versions.version = tasks.version
    WHERE tasks.id = (routine).task_id
    RETURNING id INTO made;
    UPDATE routines.skips SET filled_by = made WHERE id = skip_id;
    RETURN made;
END $$;
COMMENT ON FUNCTION routines.start_backfill_run IS
    'Starts the run of a slot as the tick would start it now: by the version, the parameters and the secrets of today. As another attempt if last_run is given.';

-- All of it in one transaction: a ticker that is killed has advanced the backfill and started its runs, or neither. It waits for no
-- lock that a tick holds: a routine that is locked is left to the next look.
CREATE FUNCTION routines.expand_backfill(backfill bigint, most_slots integer DEFAULT 200) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    asked   routines.backfills;
    routine routines.routines;
    others  integer;
    free    integer;
    one     record;
    slots   integer := 0;
    runs    integer := 0;
BEGIN
    SELECT * INTO asked FROM routines.backfills WHERE id = backfill AND end_reason IS NULL FOR UPDATE SKIP LOCKED;
    SELECT * INTO routine FROM routines.routines WHERE id = asked.routine_id FOR UPDATE SKIP LOCKED;
    IF routine.id IS NULL THEN
        RETURN 0;
    END IF;
    SELECT count(*) FILTER (WHERE trajectories.backfill_id IS DISTINCT FROM backfill),
           asked.max_active - count(*) FILTER (WHERE trajectories.backfill_id = backfill)
    INTO others, free
    FROM routines.active_runs_of(routine.id) AS active JOIN routines.trajectories ON trajectories.id = active.trajectory_id;
    asked.held_by := routines.holds_backfill(routine, others);
    IF asked.held_by IS NULL AND free > 0 THEN
        FOR one IN SELECT * FROM routines.slots_to_fill(routine.id, asked.from_time, asked.until_time, asked.reprocess, asked.slot_order,
                                                          asked.reached, most_slots, free) LOOP
            slots := slots + 1;
            asked.reached := one.slot;
            IF one.becomes <> 'left' THEN
                PERFORM routines.start_backfill_run(backfill, routine, one.slot, one.trajectory_id, one.skip_id);
                runs := runs + 1;
            END IF;
        END LOOP;
        IF slots < most_slots AND runs < free THEN
            asked.ended_at := now();
            asked.end_reason := 'expanded';
        END IF;
    END IF;
    UPDATE routines.backfills
    SET reached = asked.reached, started = started + runs, left_out = left_out + slots - runs, held_by = asked.held_by,
        ended_at = asked.ended_at, end_reason = asked.end_reason,
        next_look_at = CASE WHEN slots = most_slots THEN now() ELSE now() + interval '1 s' END
    WHERE id = backfill;
    RETURN runs;
END $$;
COMMENT ON FUNCTION routines.expand_backfill IS
    'Starts as many runs of a backfill as may be active now, after looking at most_slots slots at most. Returns how many it started.';
REVOKE EXECUTE ON FUNCTION routines.expand_backfill FROM PUBLIC;
