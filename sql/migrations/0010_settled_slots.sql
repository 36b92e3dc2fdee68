-- Which slots have their outcome. Every slot from a routine's making to its end is accounted for exactly once: by the
-- tick, or by the triggers below where a person pauses, changes or deletes a routine before a ticker came.

ALTER TABLE routines.routines
    ADD COLUMN settled_until timestamptz,
    ADD COLUMN catchup_window_seconds integer
        CONSTRAINT routines_catchup_window_seconds_is_not_negative CHECK (catchup_window_seconds >= 0),
    -- A slot at -infinity cannot be counted from, and one at infinity never comes.
    ADD CONSTRAINT routines_next_run_at_is_finite CHECK (isfinite(next_run_at)),
    ADD CONSTRAINT routines_settled_until_is_finite CHECK (isfinite(settled_until));
COMMENT ON COLUMN routines.routines.settled_until IS
    'The newest slot that has its outcome: no slot at or before it gets another one, whatever next_run_at is set to; null: none yet.';
COMMENT ON COLUMN routines.routines.catchup_window_seconds IS
    'How old a slot may be to still fire after an outage; 0: never catch up; null: the default of its cadence.';

-- The cadence of a span, so that the slots in it can be told from the times between them. Hour, minute and day are
-- those of its last slot.
ALTER TABLE routines.skips
    ADD COLUMN cadence_type text,
    ADD CONSTRAINT skips_span_names_cadence CHECK (slot_count = 1 OR cadence_type IS NOT NULL) NOT VALID;
COMMENT ON COLUMN routines.skips.cadence_type IS 'Of a span, the cadence that its slots followed; null: a single slot.';

CREATE FUNCTION routines.is_slot_of_span(cadence_type text, first_slot timestamptz, last_slot timestamptz, at timestamptz)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    at IN (first_slot, last_slot) OR at > first_slot AND at < last_slot AND at = routines.latest_slot(
        cadence_type,
        extract(hour FROM last_slot AT TIME ZONE 'UTC')::integer,
        extract(minute FROM last_slot AT TIME ZONE 'UTC')::integer,
        ('{mon,tue,wed,thu,fri,sat,sun}'::text[])[extract(isodow FROM last_slot AT TIME ZONE 'UTC')::integer],
        at);
COMMENT ON FUNCTION routines.is_slot_of_span IS 'Whether a time is one of the slots of a span in skips, or falls between two of them.';

CREATE FUNCTION routines.next_slots(
    cadence_type text, hour_utc integer, minute_utc integer, day_of_week text, after timestamptz, slot_limit integer
) RETURNS SETOF timestamptz LANGUAGE sql IMMUTABLE ROWS 10 AS $$
    WITH RECURSIVE slots (slot, position) AS (
        SELECT routines.next_fire(cadence_type, hour_utc, minute_utc, day_of_week, after), 1
        UNION ALL
        SELECT routines.next_fire(cadence_type, hour_utc, minute_utc, day_of_week, slot), position + 1
        FROM slots WHERE position < slot_limit
    )
    SELECT slot FROM slots WHERE slot IS NOT NULL AND slot_limit > 0 ORDER BY slot;
$$;
COMMENT ON FUNCTION routines.next_slots IS
    'The first slot_limit slots later than `after`. Try: SELECT routines.next_slots(''weekdays'', 9, 0, NULL, now(), 10);';

CREATE FUNCTION routines.settle_slots() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    settled_until timestamptz := CASE TG_OP WHEN 'UPDATE' THEN NEW.settled_until ELSE OLD.settled_until END;
    is_paused     boolean := OLD.paused OR TG_OP = 'UPDATE' AND NEW.paused;
    newest        timestamptz := routines.latest_slot(OLD.cadence_type, OLD.hour_utc, OLD.minute_utc, OLD.day_of_week, now());
    first_slot    timestamptz := CASE
        -- A pause begins after the slot that it was made at: that one was settled when it was made.
        WHEN OLD.paused OR OLD.next_run_at <= settled_until THEN routines.next_fire(
            OLD.cadence_type, OLD.hour_utc, OLD.minute_utc, OLD.day_of_week, greatest(OLD.paused_at, settled_until))
        ELSE OLD.next_run_at END;
    last_slot     timestamptz := greatest(newest, first_slot);
    slot_count    bigint;
BEGIN
    -- Whoever writes settled_until has settled the slots itself: the tick, when it pauses after three strikes.
    IF TG_OP = 'UPDATE' AND NEW.settled_until IS DISTINCT FROM OLD.settled_until THEN
        RETURN NEW;
    END IF;
    IF first_slot <= now() THEN
        slot_count := greatest(1, routines.count_slots(OLD.cadence_type, routines.latest_slot(
            OLD.cadence_type, OLD.hour_utc, OLD.minute_utc, OLD.day_of_week, first_slot), newest));
        INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, slot_count, cadence_type,
                                    reason, detail)
        VALUES (OLD.collection_id, OLD.id, first_slot, last_slot, slot_count,
                CASE WHEN slot_count > 1 THEN OLD.cadence_type END,
                CASE WHEN is_paused THEN 'paused' ELSE 'missed' END,
                CASE WHEN OLD.paused THEN coalesce(OLD.paused_reason, 'paused by hand') || ', since '
                                          || to_char(OLD.paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                     WHEN is_paused THEN 'paused by hand before a ticker came'
                     WHEN TG_OP = 'DELETE' THEN 'the routine was deleted before a ticker came'
                     ELSE 'the cadence was changed before a ticker came' END)
        ON CONFLICT ON CONSTRAINT skips_slot_key DO NOTHING;
        settled_until := greatest(settled_until, last_slot);
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    -- In a pause nothing is due: what was no slot until now never becomes one by a change of cadence.
    IF OLD.paused THEN
        settled_until := greatest(settled_until, now());
    END IF;
    NEW.settled_until := settled_until;
    -- Only where the database's clock was set back: what has its outcome does not come again.
    IF NEW.next_run_at <= settled_until THEN
        NEW.next_run_at := routines.next_fire(
            NEW.cadence_type, NEW.hour_utc, NEW.minute_utc, NEW.day_of_week, settled_until);
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.settle_slots IS
    'Gives slots their outcome which no tick will see any more: those that were due when a person paused, changed or deleted the routine, and those that fell in a pause, once it ends.';

-- Named so that it fires after keep_next_run_at: triggers go by name. Not fired by the tick.
CREATE TRIGGER settle_slots
    BEFORE UPDATE OF cadence_type, hour_utc, minute_utc, day_of_week, paused ON routines.routines
    FOR EACH ROW WHEN ((OLD.cadence_type, OLD.hour_utc, OLD.minute_utc, OLD.day_of_week, OLD.paused)
        IS DISTINCT FROM (NEW.cadence_type, NEW.hour_utc, NEW.minute_utc, NEW.day_of_week, NEW.paused))
    EXECUTE FUNCTION routines.settle_slots();
CREATE TRIGGER settle_slots_of_deleted BEFORE DELETE ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.settle_slots();
