-- A cadence that changes in a pause holds from then on. Without this, the times that the new cadence would have had since the
-- pause began were taken for slots when the pause ended, and got outcomes.

CREATE OR REPLACE FUNCTION routines.settle_slots() RETURNS trigger LANGUAGE plpgsql AS $$
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
