-- Slots that no tick will see.
--
-- Every slot from a routine's creation to its end is accounted for exactly once: by the tick, or by these triggers when a
-- person pauses, changes or deletes a routine before a ticker gets to it. A slot that a person passes over, by setting
-- next_run_at forward, is recorded as missed. The tick and settle_slots find such slots between settled_until and next_run_at,
-- where normally there are none, so no trigger needs to watch next_run_at, which each fire writes.

CREATE FUNCTION routines.utc(at timestamptz) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"');
COMMENT ON FUNCTION routines.utc IS 'A time as sentences show it: 2026-05-04T09:00:00Z, without fractions of a second.';

CREATE FUNCTION routines.pause_in_words(
    paused_reason text, paused_at timestamptz, paused_until timestamptz, paused_note text
) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    coalesce(paused_reason, 'paused by hand') || ', since ' || routines.utc(paused_at)
    || coalesce(', until ' || routines.utc(paused_until), '') || coalesce(': ' || rtrim(paused_note, '.'), '');
COMMENT ON FUNCTION routines.pause_in_words IS
    'A pause as sentences show it: paused by hand, since 2026-12-24T08:00:00Z, until 2027-01-04T08:00:00Z: office closed.';

CREATE FUNCTION routines.passed_over_detail(next_run_at timestamptz) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'next_run_at was set past it by hand, to ' || routines.utc(next_run_at);
COMMENT ON FUNCTION routines.passed_over_detail IS 'The detail that skips records for slots that a person passed over.';

CREATE FUNCTION routines.settle_span(
    old routines.routines, first_slot timestamptz, last_slot timestamptz, reason text, detail text
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    cadence    routines.cadence := routines.cadence_of(old);
    slot_count bigint := greatest(1, routines.slots_in_span(cadence, first_slot, last_slot));
BEGIN
    IF reason = 'missed' AND routines.has_exclusions(old) THEN
        INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, due_at, slot_count, cadence,
                                    reason, detail)
        SELECT old.collection_id, old.id, span.span_begin, span.span_end, span.span_end + old.spread_offset, span.slot_count,
               CASE WHEN span.slot_count > 1 THEN span.cadence END, span.reason,
               CASE WHEN span.reason = 'missed' THEN settle_span.detail ELSE span.detail END
        FROM routines.judged_spans(old.id, first_slot, last_slot, NULL, NULL) AS span
        ON CONFLICT ON CONSTRAINT skips_slot_key DO NOTHING;
        RETURN;
    END IF;
    INSERT INTO routines.skips (collection_id, routine_id, scheduled_for, last_scheduled_for, due_at, slot_count, cadence,
                                reason, detail)
    VALUES (old.collection_id, old.id, first_slot, last_slot, last_slot + old.spread_offset, slot_count,
            CASE WHEN slot_count > 1 THEN cadence END, reason, detail)
    ON CONFLICT ON CONSTRAINT skips_slot_key DO NOTHING;
END $$;
COMMENT ON FUNCTION routines.settle_span IS
    'Records that the slots of a routine from first_slot to last_slot, both included, started no run. Of missed slots, those that a calendar or active hours exclude are recorded as excluded.';

CREATE FUNCTION routines.settle_slots() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    cadence       routines.cadence := routines.cadence_of(OLD);
    settled_until timestamptz := CASE TG_OP WHEN 'UPDATE' THEN NEW.settled_until ELSE OLD.settled_until END;
    -- Slots up to here get their outcome now: those that are due, by the clock of the routine before or after the change; if its
    -- cadence changes or it is deleted, also one that waits for its offset.
    clock         timestamptz := CASE
        WHEN TG_OP = 'DELETE' THEN now()
        WHEN cadence IS DISTINCT FROM routines.cadence_of(NEW) THEN now()
        ELSE greatest(routines.without_spread(OLD, now()), routines.without_spread(NEW, now())) END;
    next_slot     timestamptz := routines.without_spread(OLD, OLD.next_run_at);
    pause_end     timestamptz := routines.without_spread(OLD, OLD.paused_until);
    is_paused     boolean := OLD.paused OR TG_OP = 'UPDATE' AND NEW.paused;
    pause         text := CASE WHEN OLD.paused THEN routines.pause_in_words(
        OLD.paused_reason, OLD.paused_at, OLD.paused_until, OLD.paused_note) END;
    moved_to      timestamptz := CASE WHEN OLD.moved_to > coalesce(settled_until, OLD.created_at) THEN OLD.moved_to END;
    -- The first slot without an outcome. What was due when a pause began was settled then. One that has moved comes before the next
    -- slot of the cadence.
    first_slot    timestamptz := least(moved_to, routines.next_fire(
        cadence, coalesce(settled_until, CASE WHEN OLD.paused THEN OLD.paused_at ELSE OLD.created_at END)));
    passed_until  timestamptz;
    last_slot     timestamptz;
BEGIN
    -- A statement that writes settled_until has settled the slots itself: the tick, when it pauses after three strikes.
    IF TG_OP = 'UPDATE' AND NEW.settled_until IS DISTINCT FROM OLD.settled_until THEN
        RETURN NEW;
    END IF;
    IF first_slot < next_slot AND first_slot <= clock THEN
        passed_until := greatest(first_slot, routines.latest_slot(cadence, least(clock, next_slot - interval '1 microsecond')));
        PERFORM routines.settle_span(OLD, first_slot, passed_until, 'missed', routines.passed_over_detail(OLD.next_run_at));
        settled_until := greatest(settled_until, passed_until);
    END IF;
    -- The pause is over, whether or not a ticker has ended it.
    IF OLD.paused_until <= now() THEN
        last_slot := greatest(routines.latest_slot(cadence, pause_end - interval '1 microsecond'),
                              CASE WHEN moved_to < pause_end THEN moved_to END);
        IF first_slot <= last_slot THEN
            PERFORM routines.settle_span(OLD, first_slot, last_slot, 'paused', pause);
        END IF;
        settled_until := greatest(coalesce(settled_until, OLD.created_at), pause_end - interval '1 microsecond');
        -- Slots since then are due, and left to the tick if the routine is only resumed.
        IF TG_OP = 'UPDATE' AND cadence IS NOT DISTINCT FROM routines.cadence_of(NEW) THEN
            NEW.settled_until := settled_until;
            NEW.moved_to := CASE WHEN moved_to > settled_until THEN moved_to END;
            RETURN NEW;
        END IF;
        first_slot := least(CASE WHEN moved_to > settled_until THEN moved_to END, routines.next_fire(cadence, settled_until));
        is_paused := TG_OP = 'UPDATE' AND NEW.paused AND NEW.paused_until IS DISTINCT FROM OLD.paused_until;
        pause := NULL;
    END IF;
    -- A person may have set next_run_at to a time between two slots, or to before the routine's creation.
    IF (next_slot <= settled_until) IS NOT TRUE AND NOT OLD.paused THEN
        first_slot := next_slot;
    END IF;
    IF first_slot <= clock THEN
        last_slot := greatest(first_slot, routines.latest_slot(cadence, clock));
        PERFORM routines.settle_span(
            OLD, first_slot, last_slot, CASE WHEN is_paused THEN 'paused' ELSE 'missed' END,
            CASE WHEN pause IS NOT NULL THEN pause
                 WHEN is_paused THEN coalesce(NEW.paused_reason || ', before a ticker picked it up',
                                              'paused by hand before a ticker picked it up')
                 WHEN TG_OP = 'DELETE' THEN 'the routine was deleted before a ticker picked it up'
                 ELSE 'the cadence was changed before a ticker picked it up' END);
        settled_until := greatest(settled_until, last_slot);
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    -- A time in the past that was no slot does not become one when the cadence changes.
    NEW.settled_until := greatest(settled_until, clock, OLD.created_at);
    NEW.moved_to := CASE WHEN NEW.moved_to > NEW.settled_until THEN NEW.moved_to END;
    -- Only if the database's clock was set back, or the routine's by its spread: a slot with an outcome does not come again.
    IF routines.without_spread(NEW, NEW.next_run_at) <= NEW.settled_until THEN
        NEW.next_run_at := routines.with_spread(NEW, routines.next_fire(routines.cadence_of(NEW), NEW.settled_until));
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.settle_slots IS
    'Records the outcome of slots that no tick will see: those that were due or passed over when a person paused, changed or deleted the routine, and those that fell in a pause, once it ends.';
CREATE TRIGGER settle_slots
    BEFORE UPDATE OF cadence_type, hour_utc, minute_utc, day_of_week, expression, timezone, every_minutes, anchor, once_at, starts_at,
        ends_at, paused ON routines.routines
    FOR EACH ROW WHEN ((routines.cadence_of(OLD), OLD.paused) IS DISTINCT FROM (routines.cadence_of(NEW), NEW.paused))
    EXECUTE FUNCTION routines.settle_slots();
CREATE TRIGGER settle_slots_of_deleted BEFORE DELETE ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.settle_slots();
