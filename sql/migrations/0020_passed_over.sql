-- A slot that somebody passes over, by setting next_run_at forward by hand, has its outcome too: missed, with the reason.
-- The tick and settle_slots find such slots between settled_until and next_run_at, where otherwise there is none; so
-- nothing watches next_run_at itself, which each fire writes.

-- Until now next_run_at alone said how far a routine had come.
UPDATE routines.routines
SET settled_until = greatest(settled_until, least(now(), next_run_at - interval '1 microsecond'))
WHERE next_run_at IS NOT NULL;

COMMENT ON COLUMN routines.routines.next_run_at IS
    'The next slot that fires; null: paused or manual. Kept by a trigger and advanced by the tick. Set forward by hand it passes over the slots before it: they are missed. Set back it fires no slot a second time.';
COMMENT ON COLUMN routines.routines.settled_until IS
    'Up to here every slot has its outcome, and none gets another one, whatever next_run_at is set to; null: none has, since created_at.';
COMMENT ON COLUMN routines.skips.reason IS
    'overlap: a run was active. missed: no ticker ran, it came after the catch-up window, or the detail says why. paused: in a pause. failed_to_start: the fire raised.';
COMMENT ON COLUMN routines.skips.detail IS
    'The cause, for failed_to_start, paused, and what somebody''s change made missed.';

CREATE FUNCTION routines.passed_over_detail(next_run_at timestamptz) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    'next_run_at was set past it by hand, to ' || to_char(next_run_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"');
COMMENT ON FUNCTION routines.passed_over_detail IS 'What skips say of slots that somebody passed over.';

CREATE FUNCTION routines.slots_in_span(
    cadence_type text, hour_utc integer, minute_utc integer, day_of_week text, first_slot timestamptz, last_slot timestamptz
) RETURNS bigint LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN routines.count_slots(
        cadence_type,
        routines.latest_slot(cadence_type, hour_utc, minute_utc, day_of_week, first_slot),
        routines.latest_slot(cadence_type, hour_utc, minute_utc, day_of_week, last_slot));
END $$;
COMMENT ON FUNCTION routines.slots_in_span IS
    'How many slots there are from first_slot to last_slot, either of which may be a time between two slots that somebody set. Not plain SQL: it is called seldom, and each tick would plan its text.';

CREATE FUNCTION routines.settle_span(
    old routines.routines, first_slot timestamptz, last_slot timestamptz, reason text, detail text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    slot_count bigint := greatest(1, routines.slots_in_span(
        old.cadence_type, old.hour_utc, old.minute_utc, old.day_of_week, first_slot, last_slot));
BEGIN
    INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, slot_count, cadence_type,
                                reason, detail)
    VALUES (old.collection_id, old.id, first_slot, last_slot, slot_count,
            CASE WHEN slot_count > 1 THEN old.cadence_type END, reason, detail)
    ON CONFLICT ON CONSTRAINT skips_slot_key DO NOTHING;
END $$;
COMMENT ON FUNCTION routines.settle_span IS 'Records that the slots of a routine from first_slot to last_slot, both included, fired no run.';

CREATE OR REPLACE FUNCTION routines.settle_slots() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    settled_until timestamptz := CASE TG_OP WHEN 'UPDATE' THEN NEW.settled_until ELSE OLD.settled_until END;
    is_paused     boolean := OLD.paused OR TG_OP = 'UPDATE' AND NEW.paused;
    -- The first slot without outcome. A pause begins after the slot that it was made at: that one was settled then.
    first_slot    timestamptz := routines.next_fire(
        OLD.cadence_type, OLD.hour_utc, OLD.minute_utc, OLD.day_of_week,
        CASE WHEN OLD.paused THEN greatest(OLD.paused_at, settled_until) ELSE coalesce(settled_until, OLD.created_at) END);
    passed_until  timestamptz;
    last_slot     timestamptz;
BEGIN
    -- Whoever writes settled_until has settled the slots itself: the tick, when it pauses after three strikes.
    IF TG_OP = 'UPDATE' AND NEW.settled_until IS DISTINCT FROM OLD.settled_until THEN
        RETURN NEW;
    END IF;
    IF first_slot < OLD.next_run_at AND first_slot <= now() THEN
        passed_until := routines.latest_slot(OLD.cadence_type, OLD.hour_utc, OLD.minute_utc, OLD.day_of_week,
                                             least(now(), OLD.next_run_at - interval '1 microsecond'));
        PERFORM routines.settle_span(OLD, first_slot, passed_until, 'missed', routines.passed_over_detail(OLD.next_run_at));
        settled_until := greatest(settled_until, passed_until);
    END IF;
    -- Somebody may have set next_run_at to a time between two slots, or to before the routine was made.
    IF (OLD.next_run_at <= settled_until) IS NOT TRUE AND NOT OLD.paused THEN
        first_slot := OLD.next_run_at;
    END IF;
    IF first_slot <= now() THEN
        last_slot := greatest(first_slot, routines.latest_slot(
            OLD.cadence_type, OLD.hour_utc, OLD.minute_utc, OLD.day_of_week, now()));
        PERFORM routines.settle_span(
            OLD, first_slot, last_slot, CASE WHEN is_paused THEN 'paused' ELSE 'missed' END,
            CASE WHEN OLD.paused THEN coalesce(OLD.paused_reason, 'paused by hand') || ', since '
                                      || to_char(OLD.paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                 WHEN is_paused THEN 'paused by hand before a ticker came'
                 WHEN TG_OP = 'DELETE' THEN 'the routine was deleted before a ticker came'
                 ELSE 'the cadence was changed before a ticker came' END);
        settled_until := greatest(settled_until, last_slot);
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    -- What was no slot until now never becomes one by a change of cadence.
    NEW.settled_until := greatest(settled_until, now());
    -- Only where the database's clock was set back: what has its outcome does not come again.
    IF NEW.next_run_at <= NEW.settled_until THEN
        NEW.next_run_at := routines.next_fire(
            NEW.cadence_type, NEW.hour_utc, NEW.minute_utc, NEW.day_of_week, NEW.settled_until);
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.settle_slots IS
    'Gives slots their outcome which no tick will see any more: those that were due or passed over when a person paused, changed or deleted the routine, and those that fell in a pause, once it ends.';

-- Among a million routines 10,000 fires leave their dead versions on less than 2 % of the pages. Vacuum then leaves the
-- indexes alone, by default, and what is dead in them stays in the way of the fires after: they took a tenth more CPU time.
ALTER TABLE routines.routines SET (vacuum_index_cleanup = on);
