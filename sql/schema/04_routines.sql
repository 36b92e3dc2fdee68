-- Routines. Each rule of a cadence is a named constraint, so a row typed in psql is as safe as one that came by HTTP, and an
-- error names the broken rule.

-- Triggers, in the order in which they fire. Where two share an event, Postgres fires them by name, and these names are
-- chosen for that order.
--   BEFORE INSERT                  check_exclusions_of_new     checks calendar and active_hours, and keeps active_minutes (chapter
--                                                              05_calendars)
--   BEFORE UPDATE                  check_exclusions            the same
--   BEFORE INSERT or UPDATE        check_run_settings          checks init_params_from_slot, timeout_seconds, retry,
--                                                              pause_after_failures and max_concurrent (chapter 06_slots)
--   BEFORE INSERT or UPDATE        keep_next_run_at            recomputes next_run_at if cadence or paused changes, moves it if the
--                                                              spread does; refuses a pause that ends in the past
--   BEFORE UPDATE                  settle_slots                if cadence or paused changes: records the slots that no tick will
--                                                              see; must come after keep_next_run_at
--   BEFORE DELETE                  settle_slots_of_deleted     the same for a deleted routine
--   AFTER INSERT                   follow_created_webhook_url  restarts a stopped webhook endpoint that the routine names
--   AFTER INSERT                   refuse_missing_secrets_of_new  raises if a secret does not exist in its collection
--   AFTER INSERT                   keep_calendar_uses_of_new   adds to routine_calendars; raises if a calendar does not exist in its
--                                                              collection (chapter 05_calendars)
--   AFTER INSERT, per statement    keep_names_of_new           adds to routine_names
--   AFTER INSERT, per statement    note_new_routines           adds to the audit (chapter 15_audit)
--   AFTER UPDATE                   cancel_unbegun              if it is paused: cancels a retry that no worker has begun, and a run
--                                                              that waits for a place (chapter 06_retries)
--   AFTER UPDATE                   follow_changed_webhook_url  like follow_created_webhook_url; must come before forget_replaced_secrets:
--                                                              the end of a delivery, too, locks the endpoint before the secret
--   AFTER UPDATE                   forget_replaced_secrets     deletes ciphertexts that the routine no longer refers to
--   AFTER UPDATE                   keep_calendar_uses          updates routine_calendars, with the same check
--   AFTER UPDATE                   keep_names_of_changed       updates routine_names
--   AFTER UPDATE                   note_changed_routine        adds to the audit
--   AFTER UPDATE                   note_pause                  if it is paused or resumed: notes it for alert rules (chapter 08_alerts)
--   AFTER UPDATE                   refuse_missing_secrets      raises if a secret does not exist in its collection
--   AFTER DELETE                   cancel_unbegun_of_deleted   the same for a deleted routine; must come before forget_secrets_of_deleted
--   AFTER DELETE                   forget_secrets_of_deleted   deletes its ciphertexts
--   AFTER DELETE                   keep_calendar_uses_of_deleted  deletes from routine_calendars
--   AFTER DELETE                   keep_names_of_deleted       moves the name from routine_names to deleted_routines
--   AFTER DELETE                   note_deleted_routine        adds to the audit
--   AFTER DELETE                   note_deletion               notes it for alert rules
--   AFTER TRUNCATE, per statement  keep_names_of_truncated     empties routine_names
-- A fire updates next_run_at, upcoming, moved_to, settled_until, last_run_at, strikes and backoff_left only, and fires none of them.
--
-- Names have their index in routine_names. Why: docs/decisions/0013.
CREATE TABLE routines.routines (
    id                     bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT routines_pkey PRIMARY KEY,
    collection_id          bigint NOT NULL,
    task_id                bigint NOT NULL,
    name                   routines.slug NOT NULL,
    cadence_type           text NOT NULL CONSTRAINT routines_cadence_type_is_known
                           CHECK (cadence_type IN ('manual', 'hourly', 'daily', 'weekdays', 'weekly', 'cron', 'interval', 'once')),
    hour_utc               smallint CONSTRAINT routines_hour_utc_in_range CHECK (hour_utc BETWEEN 0 AND 23),
    minute_utc             smallint NOT NULL DEFAULT 0 CONSTRAINT routines_minute_utc_in_range CHECK (minute_utc BETWEEN 0 AND 59),
    day_of_week            text CONSTRAINT routines_day_of_week_is_known
                           CHECK (day_of_week IN ('mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun')),
    expression             jsonb CONSTRAINT routines_expression_is_text CHECK (jsonb_typeof(expression) IN ('string', 'array')),
    timezone               text,
    every_minutes          integer CONSTRAINT routines_every_minutes_in_range CHECK (every_minutes BETWEEN 1 AND 525600),
    anchor                 timestamptz CONSTRAINT routines_anchor_in_range CHECK (anchor >= '1970-01-01Z' AND anchor < '2200-01-01Z'),
    once_at                timestamptz CONSTRAINT routines_once_at_in_range CHECK (once_at >= '1970-01-01Z' AND once_at < '2200-01-01Z'),
    starts_at              timestamptz CONSTRAINT routines_starts_at_in_range CHECK (starts_at >= '1970-01-01Z' AND starts_at < '2200-01-01Z'),
    ends_at                timestamptz CONSTRAINT routines_ends_at_in_range CHECK (ends_at >= '1970-01-01Z' AND ends_at < '2200-01-01Z'),
    upcoming               timestamptz[],
    init_params_overrides  routines.json_object NOT NULL DEFAULT '{}',
    init_params_from_slot  jsonb,
    secret_refs            routines.json_object NOT NULL DEFAULT '{}',
    webhook_url            text CONSTRAINT routines_webhook_url_is_http
                           CHECK (webhook_url ~ '^[Hh][Tt][Tt][Pp][Ss]?://[^[:space:]/?#@]+([/?#][^[:space:]]*)?$' AND length(webhook_url) <= 2048),
    webhook_secret_id      uuid,
    paused                 boolean NOT NULL DEFAULT false,
    paused_at              timestamptz,
    paused_reason          text,
    paused_until           timestamptz,
    paused_note            text CONSTRAINT routines_paused_note_length CHECK (length(paused_note) BETWEEN 1 AND 500),
    calendar               jsonb,
    active_hours           jsonb,
    active_minutes         int4multirange,
    moved_to               timestamptz,
    strikes                smallint NOT NULL DEFAULT 0,
    overlap_policy         text NOT NULL DEFAULT 'skip' CONSTRAINT routines_overlap_policy_is_known
                           CHECK (overlap_policy IN ('skip', 'queue_one', 'cancel_other', 'allow')),
    max_concurrent         smallint,
    catchup_window_seconds integer CONSTRAINT routines_catchup_window_seconds_is_not_negative CHECK (catchup_window_seconds >= 0),
    timeout_seconds        integer,
    retry                  jsonb,
    pause_after_failures   integer,
    after_failures         text,
    counts_failures_since  timestamptz,
    backoff_left           integer,
    spread_seconds         integer,
    spread_offset          interval,
    next_run_at            timestamptz,
    settled_until          timestamptz,
    last_run_at            timestamptz,
    created_at             timestamptz NOT NULL DEFAULT now(),
    updated_at             timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT routines_hour_utc_fits_cadence
        CHECK ((hour_utc IS NOT NULL) = (cadence_type IN ('daily', 'weekdays', 'weekly'))),
    CONSTRAINT routines_minute_utc_fits_cadence CHECK (cadence_type IN ('hourly', 'daily', 'weekdays', 'weekly') OR minute_utc = 0),
    CONSTRAINT routines_day_of_week_fits_cadence CHECK ((day_of_week IS NOT NULL) = (cadence_type = 'weekly')),
    CONSTRAINT routines_expression_fits_cadence CHECK ((expression IS NOT NULL) = (cadence_type = 'cron')),
    CONSTRAINT routines_timezone_fits_cadence CHECK ((timezone IS NOT NULL) = (cadence_type = 'cron')),
    CONSTRAINT routines_every_minutes_fits_cadence CHECK ((every_minutes IS NOT NULL) = (cadence_type = 'interval')),
    CONSTRAINT routines_anchor_fits_cadence CHECK ((anchor IS NOT NULL) = (cadence_type = 'interval')),
    CONSTRAINT routines_once_at_fits_cadence CHECK ((once_at IS NOT NULL) = (cadence_type = 'once')),
    CONSTRAINT routines_bounds_are_ordered CHECK (starts_at <= ends_at),
    -- Only a cadence that ends may have no next slot.
    CONSTRAINT routines_next_run_at_fits_state CHECK (
        CASE WHEN paused OR cadence_type = 'manual' THEN next_run_at IS NULL
             ELSE next_run_at IS NOT NULL OR cadence_type = 'once' OR ends_at IS NOT NULL END),
    -- Reject timestamps that Python cannot represent. The ticker retries a failed batch routine by routine, and one unreadable
    -- next_run_at would keep it from all the others.
    CONSTRAINT routines_next_run_at_in_range CHECK (next_run_at >= '1970-01-01Z' AND next_run_at < '2200-01-01Z'),
    CONSTRAINT routines_settled_until_in_range CHECK (settled_until >= '1970-01-01Z' AND settled_until < '2200-01-01Z'),
    CONSTRAINT routines_paused_until_fits_state CHECK (paused OR paused_until IS NULL),
    CONSTRAINT routines_paused_note_fits_state CHECK (paused OR paused_note IS NULL),
    -- A year less, so that the slot after the pause is in range too.
    CONSTRAINT routines_paused_until_in_range CHECK (paused_until >= '1970-01-01Z' AND paused_until < '2199-01-01Z'),
    CONSTRAINT routines_created_at_in_range CHECK (created_at >= '1970-01-01Z' AND created_at < '2200-01-01Z')
) WITH (
    -- Room for the next version of a row on its own page. Where there is none, a fire writes two pages and locks the old version in a
    -- record of WAL: 10.0 records and 1,106 bytes a fire without this room, 9.2 and 978 with it.
    fillfactor = 85,
    -- Each fire leaves a dead row version and dead index entries, so vacuum starts at 2 % instead of 20 %. It always cleans the
    -- indexes: among a million routines 10,000 fires touch less than 2 % of the pages, and vacuum would leave the indexes alone
    -- by default. Later fires then took 10 % more CPU time.
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05, vacuum_index_cleanup = on
);
-- The tick claims from this index. Due routines are at its head; routines without a next slot are not in it.
CREATE INDEX routines_next_run_at_idx ON routines.routines (next_run_at) WHERE next_run_at IS NOT NULL;
-- Routines paused by strikes, for metrics. Nearly empty: a fire writes no row that belongs in it.
CREATE INDEX routines_struck_idx ON routines.routines (id) WHERE paused_reason IS NOT NULL;
-- Pauses with an end, for the ticker that ends them. A fire writes no row that belongs in it either.
CREATE INDEX routines_paused_until_idx ON routines.routines (paused_until) WHERE paused_until IS NOT NULL;

COMMENT ON TABLE  routines.routines IS 'A saved, recurring invocation of a task.';
COMMENT ON COLUMN routines.routines.id IS 'Database id, and `id` in the API.';
COMMENT ON COLUMN routines.routines.collection_id IS 'The tenant, the same as the task''s.';
COMMENT ON COLUMN routines.routines.task_id IS 'The task that it runs. A task with routines cannot be deleted: see routine_names.';
COMMENT ON COLUMN routines.routines.name IS 'Unique in its task: see routine_names.';
COMMENT ON COLUMN routines.routines.cadence_type IS
    'manual, hourly, daily, weekdays (Monday to Friday), weekly, cron, interval or once. Read the columns of the cadence as one value with routines.cadence_of(routines).';
COMMENT ON COLUMN routines.routines.hour_utc IS '0-23, required for daily, weekdays and weekly; null otherwise.';
COMMENT ON COLUMN routines.routines.minute_utc IS '0-59, for hourly the minute of the hour; 0 for types that do not take it.';
COMMENT ON COLUMN routines.routines.day_of_week IS 'mon to sun, required for weekly; null otherwise.';
COMMENT ON COLUMN routines.routines.expression IS
    'Required for cron: a JSON string, or an array of up to 10, for example ''"30 9 * * mon-fri"''; null otherwise.';
COMMENT ON COLUMN routines.routines.timezone IS 'For cron: the IANA name of its time zone; UTC if it is not given; null otherwise.';
COMMENT ON COLUMN routines.routines.every_minutes IS 'Required for interval: 1-525600; null otherwise.';
COMMENT ON COLUMN routines.routines.anchor IS
    'For interval: one of its slots, earlier or later than now; the minute of its creation if it is not given; null otherwise.';
COMMENT ON COLUMN routines.routines.once_at IS 'Required for once: its only slot; null otherwise.';
COMMENT ON COLUMN routines.routines.starts_at IS 'No slot is earlier; null for no bound.';
COMMENT ON COLUMN routines.routines.ends_at IS 'No slot is later; null for no bound.';
COMMENT ON COLUMN routines.routines.upcoming IS
    'Slots around the present, from which the tick reads; null for a cadence that it computes at no cost. Maintained by a trigger and the tick: see slot_window.';
COMMENT ON COLUMN routines.routines.init_params_overrides IS
    'Merged over the task''s init_params when it fires, key by key at the top level.';
COMMENT ON COLUMN routines.routines.init_params_from_slot IS
    'Parameters that each run takes from its slot: {"date": "slot.date"}, merged over init_params_overrides; null for none. See slot_values.';
COMMENT ON COLUMN routines.routines.secret_refs IS 'Secret params: their names, with the ids of their ciphertexts in secrets.';
COMMENT ON COLUMN routines.routines.webhook_url IS 'Receives a webhook when a run has ended; null for none.';
COMMENT ON COLUMN routines.routines.webhook_secret_id IS 'The secret that signs the webhook; null for unsigned.';
COMMENT ON COLUMN routines.routines.paused IS 'True stops the schedule. If you UPDATE it in psql, next_run_at follows.';
COMMENT ON COLUMN routines.routines.paused_at IS 'When it was paused; null if not paused. Maintained by a trigger.';
COMMENT ON COLUMN routines.routines.paused_reason IS 'Why the scheduler paused it; null if a person did.';
COMMENT ON COLUMN routines.routines.paused_until IS
    'When the pause ends by itself; null if it lasts until someone resumes the routine. From then on slots are due, even if no ticker is there yet to end the pause. Must be in the future when it is set; cleared when the routine is resumed.';
COMMENT ON COLUMN routines.routines.paused_note IS 'What a person noted about the pause, for the ledger and for why; null for nothing. Cleared when the routine is resumed.';
COMMENT ON COLUMN routines.routines.calendar IS
    'Days on which it does not fire: {"exclude": ["holidays-de"], "on_excluded": "skip"}, with the names of calendars of its collection, and skip, next_day or next_business_day; null for none.';
COMMENT ON COLUMN routines.routines.active_hours IS
    'Outside of these it does not fire: {"timezone": "Europe/Berlin", "windows": ["mon-fri 08:00-18:00"], "outside": "skip"}, or defer; null for none.';
COMMENT ON COLUMN routines.routines.active_minutes IS
    'The minutes of the week within active_hours, from Monday 00:00. Maintained by a trigger.';
COMMENT ON COLUMN routines.routines.moved_to IS
    'The time to which its last excluded slot has moved, until that has its outcome; null otherwise. Maintained by the tick; kept during a pause.';
COMMENT ON COLUMN routines.routines.strikes IS
    'Consecutive fires that raised an error. At three the routine is paused; a successful fire resets it to 0.';
COMMENT ON COLUMN routines.routines.overlap_policy IS
    'What becomes of a slot that comes while a run is active. skip: it is recorded in skips and starts no run. queue_one: its run waits, and a later slot takes over a run that waits. cancel_other: the same, and the active runs are cancelled. allow: it starts unless max_concurrent runs are active. See chapter 06_overlap.';
COMMENT ON COLUMN routines.routines.max_concurrent IS 'For allow: how many runs may be active at once, 1-100; null otherwise.';
COMMENT ON COLUMN routines.routines.catchup_window_seconds IS
    'The age up to which a missed slot still fires after an outage; 0 to never catch up; null for the default of its cadence.';
COMMENT ON COLUMN routines.routines.timeout_seconds IS
    'How long its runs may take from their first claim, at most as long as the worker allows any run; null for that.';
COMMENT ON COLUMN routines.routines.retry IS
    'How a scheduled run that failed is retried: {"max_attempts": 3, "backoff": [60, 300], "on": "any", "until": "next_slot"}; null for not at all. See retry_run.';
COMMENT ON COLUMN routines.routines.pause_after_failures IS
    'After how many slots in a row whose last attempt failed the routine stops, 1-100; null for never. See trip_breaker.';
COMMENT ON COLUMN routines.routines.after_failures IS
    'How it stops then. pause, or null: until someone resumes it. backoff: for 1 slot, and for twice as many each time that the slot after them fails too, up to 64.';
COMMENT ON COLUMN routines.routines.counts_failures_since IS
    'Only runs since then count towards pause_after_failures: when the routine was last resumed, or these settings were changed; null for all. Maintained by a trigger.';
COMMENT ON COLUMN routines.routines.backoff_left IS
    'How many slots it will still skip with the reason backoff; null for none. Maintained by trip_breaker and the tick.';
COMMENT ON COLUMN routines.routines.spread_seconds IS
    'Each slot fires up to this many seconds after its time, always by the same spread_offset: 1-3600, and below the shortest time between two slots; null for off, which 0 becomes.';
COMMENT ON COLUMN routines.routines.spread_offset IS
    'How long after its time each slot of this routine is due, from 0 to spread_seconds; null without a spread. Maintained by a trigger: see spread_offset().';
COMMENT ON COLUMN routines.routines.next_run_at IS
    'When it fires next: its next slot, plus spread_offset if it has a spread; null while paused, for manual, and once no slot is left. A trigger maintains it and the tick advances it. Setting it forward by hand passes over the slots before it: they are recorded as missed. Setting it back fires no slot a second time.';
COMMENT ON COLUMN routines.routines.settled_until IS
    'Every slot up to here has its outcome and never gets another, whatever next_run_at is set to; null if no slot since created_at has one.';
COMMENT ON COLUMN routines.routines.last_run_at IS 'When it last started a run, on schedule or by run-now; null if never.';
COMMENT ON COLUMN routines.routines.created_at IS 'When it was created.';
COMMENT ON COLUMN routines.routines.updated_at IS 'Its last change by a person, or by the scheduler when it paused or resumed it. Fires do not count.';
SELECT routines.protect('routines.routines');

-- The only place that turns the columns of a cadence into a value. Plain SQL, so that it disappears from query plans.
CREATE FUNCTION routines.cadence_of(routine routines.routines) RETURNS routines.cadence
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW((routine).cadence_type, (routine).hour_utc, (routine).minute_utc, (routine).day_of_week, (routine).expression,
           (routine).timezone, (routine).every_minutes, (routine).anchor, (routine).once_at, (routine).starts_at,
           (routine).ends_at)::routines.cadence;
COMMENT ON FUNCTION routines.cadence_of IS
    'The cadence of a routine. Try: SELECT routines.next_fire(routines.cadence_of(routines), now()) FROM routines.routines;';

-- Plain SQL as well. width_bucket counts the slots of the window that are not later than a time.
CREATE FUNCTION routines.next_slot_of(routine routines.routines, after timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN nullif(coalesce(
    CASE WHEN after >= (routine).upcoming[1] THEN (routine).upcoming[width_bucket(after, (routine).upcoming) + 1] END,
    routines.next_fire(routines.cadence_of(routine), after)), 'infinity');
COMMENT ON FUNCTION routines.next_slot_of IS
    'The first slot of a routine strictly later than `after`: what next_fire returns, from `upcoming` where that reaches.';

CREATE FUNCTION routines.latest_slot_of(routine routines.routines, until timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN nullif(coalesce(
    CASE WHEN until < (routine).upcoming[cardinality((routine).upcoming)]
         THEN (routine).upcoming[width_bucket(until, (routine).upcoming)] END,
    routines.latest_slot(routines.cadence_of(routine), until)), '-infinity');
COMMENT ON FUNCTION routines.latest_slot_of IS
    'The last slot of a routine at or before `until`: what latest_slot returns, from `upcoming` where that reaches.';

-- A routine with a spread lives on a clock of its own, which is behind by its offset. On that clock a slot is due at its time, so
-- the rules of slots need no others for a spread: they take without_spread(now()) in place of now(). Plain SQL as well.
CREATE FUNCTION routines.without_spread(routine routines.routines, at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE RETURN coalesce(at - (routine).spread_offset, at);
COMMENT ON FUNCTION routines.without_spread IS
    'A time on the clock of a routine, which is behind by its spread_offset.';

CREATE FUNCTION routines.with_spread(routine routines.routines, slot timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE RETURN coalesce(slot + (routine).spread_offset, slot);
COMMENT ON FUNCTION routines.with_spread IS 'When a slot of a routine is due: spread_offset after its time.';

-- md5, because the hash functions of Postgres may change between versions. Scaled and not taken modulo, so that a wider spread
-- makes no offset smaller.
CREATE FUNCTION routines.spread_offset(of_routine bigint, spread_seconds integer) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN make_interval(
    secs => (('x' || left(md5('routines.spread.' || of_routine), 8))::bit(32)::bigint * (spread_seconds::bigint + 1)) >> 32);
COMMENT ON FUNCTION routines.spread_offset IS
    'The offset of a routine: 0 to spread_seconds in whole seconds, always the same for the same id; null without a spread.';

CREATE FUNCTION routines.first_moved_slot(routine routines.routines, OUT kept timestamptz, OUT computed timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    kept_slots     timestamptz[] := ARRAY(SELECT slot FROM unnest((routine).upcoming) AS slot
                                          WHERE slot > routines.without_spread(routine, now()) AND slot < 'infinity' ORDER BY slot);
    computed_slots timestamptz[] := ARRAY(SELECT routines.next_slots(
        routines.cadence_of(routine), routines.without_spread(routine, now()), greatest(cardinality(kept_slots), 1)));
BEGIN
    FOR position IN 1 .. greatest(cardinality(kept_slots), cardinality(computed_slots)) LOOP
        kept := kept_slots[position];
        computed := computed_slots[position];
        IF kept IS DISTINCT FROM computed AND kept IS NOT NULL THEN
            RETURN;
        END IF;
    END LOOP;
    kept := NULL;
    computed := NULL;
END $$;
COMMENT ON FUNCTION routines.first_moved_slot IS
    'The first coming slot in `upcoming` that the cadence does not have, with the slot in its place; null if there is none. Only new time zone data makes one.';

-- VOLATILE, so that it takes a snapshot of its own. The tick calls it once it has locked the routine, whose cadence may have been
-- changed since the tick began.
CREATE FUNCTION routines.current_cadence(of_routine bigint) RETURNS routines.cadence LANGUAGE sql VOLATILE AS $$
    SELECT routines.cadence_of(routines) FROM routines.routines WHERE id = of_routine;
$$;
COMMENT ON FUNCTION routines.current_cadence IS
    'The cadence that a routine has now, even if it was changed after the calling statement began.';

-- A pause is over when its end has come, whether or not a ticker has ended it: slots from then on are due.
CREATE FUNCTION routines.slot_after_pause(routine routines.routines) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE RETURN CASE WHEN (routine).paused_until IS NOT NULL THEN least(
    routines.next_fire(
        routines.cadence_of(routine), greatest(routines.without_spread(routine, (routine).paused_until) - interval '1 microsecond',
                                               coalesce((routine).settled_until, (routine).created_at))),
    CASE WHEN (routine).moved_to >= routines.without_spread(routine, (routine).paused_until) THEN (routine).moved_to END) END;
COMMENT ON FUNCTION routines.slot_after_pause IS
    'The first slot at or after the end of a routine''s pause, also one that has moved there; null if the pause has no end, and for manual.';

CREATE FUNCTION routines.keep_next_run_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    IF TG_OP = 'UPDATE' AND OLD.paused AND NOT NEW.paused THEN
        NEW.paused_until := NULL;
        NEW.paused_note := NULL;
    ELSIF NEW.paused_until <= now()
          AND (TG_OP = 'INSERT' OR (OLD.paused, OLD.paused_until) IS DISTINCT FROM (NEW.paused, NEW.paused_until)) THEN
        RAISE EXCEPTION 'paused_until must be in the future, but it is % and now is %', NEW.paused_until, now()
            USING ERRCODE = 'check_violation', CONSTRAINT = 'routines_paused_until_in_future';
    END IF;
    IF TG_OP = 'UPDATE' AND (OLD.paused AND NOT NEW.paused
                             OR (OLD.pause_after_failures, OLD.after_failures)
                                IS DISTINCT FROM (NEW.pause_after_failures, NEW.after_failures)) THEN
        NEW.counts_failures_since := CASE WHEN NEW.pause_after_failures IS NOT NULL THEN now() END;
        NEW.backoff_left := NULL;
    END IF;
    SELECT timezone, anchor INTO NEW.timezone, NEW.anchor FROM routines.with_defaults(routines.cadence_of(NEW), NEW.created_at);
    NEW.spread_seconds := nullif(NEW.spread_seconds, 0);
    NEW.spread_offset := routines.spread_offset(NEW.id, NEW.spread_seconds);
    IF TG_OP = 'UPDATE'
       AND (routines.cadence_of(NEW), NEW.paused) IS NOT DISTINCT FROM (routines.cadence_of(OLD), OLD.paused) THEN
        IF NEW.spread_seconds IS DISTINCT FROM OLD.spread_seconds THEN
            PERFORM routines.check_spread(routines.cadence_of(NEW), NEW.spread_seconds);
        END IF;
        -- The same slot at its new time; or a time that a person sets in the same statement.
        IF NEW.spread_offset IS DISTINCT FROM OLD.spread_offset AND NEW.next_run_at = OLD.next_run_at THEN
            NEW.next_run_at := routines.with_spread(NEW, routines.without_spread(OLD, OLD.next_run_at));
        END IF;
        RETURN NEW;
    END IF;
    PERFORM routines.check_cadence(routines.cadence_of(NEW));
    PERFORM routines.check_spread(routines.cadence_of(NEW), NEW.spread_seconds);
    IF TG_OP = 'INSERT' OR routines.cadence_of(NEW) IS DISTINCT FROM routines.cadence_of(OLD) THEN
        NEW.moved_to := NULL;
    END IF;
    IF NEW.paused THEN
        NEW.next_run_at := NULL;
        NEW.upcoming := NULL;
        NEW.paused_at := coalesce(NEW.paused_at, now());
    ELSE
        NEW.upcoming := routines.slot_window(routines.cadence_of(NEW), routines.without_spread(NEW, now()));
        NEW.next_run_at := routines.with_spread(NEW, CASE
            -- Slots from before are those of the cadence that there was, also if they are not due yet.
            WHEN TG_OP = 'INSERT' OR routines.cadence_of(NEW) IS DISTINCT FROM routines.cadence_of(OLD)
                THEN routines.next_slot_of(NEW, now())
            WHEN OLD.paused_until <= now() THEN routines.slot_after_pause(OLD)
            ELSE least(routines.next_slot_of(NEW, routines.without_spread(NEW, now())),
                       CASE WHEN NEW.moved_to > routines.without_spread(NEW, now()) THEN NEW.moved_to END) END);
        NEW.paused_at := NULL;
        NEW.paused_reason := NULL;
        NEW.strikes := 0;
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.keep_next_run_at IS
    'Keeps next_run_at correct when cadence, spread or paused changes, and fills in the defaults of a cadence. Resuming computes from now, or from the end of the pause if that has passed: nothing that fell in the pause is caught up.';
CREATE TRIGGER keep_next_run_at
    BEFORE INSERT OR UPDATE OF name, cadence_type, hour_utc, minute_utc, day_of_week, expression, timezone, every_minutes, anchor,
        once_at, starts_at, ends_at, spread_seconds, spread_offset, paused, paused_until, paused_note, calendar, active_hours,
        init_params_overrides, init_params_from_slot, secret_refs, webhook_url, webhook_secret_id, timeout_seconds, retry,
        pause_after_failures, after_failures, overlap_policy, max_concurrent ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.keep_next_run_at();

------------------------------------------------------------------------------------------- webhook endpoints and secrets
CREATE FUNCTION routines.restart_endpoint() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM routines.webhook_endpoints WHERE collection_id = NEW.collection_id AND md5(url) = md5(NEW.webhook_url);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.restart_endpoint IS 'Tries a stopped webhook endpoint again when a routine is set to its URL.';
CREATE TRIGGER follow_created_webhook_url AFTER INSERT ON routines.routines
    FOR EACH ROW WHEN (NEW.webhook_url IS NOT NULL) EXECUTE FUNCTION routines.restart_endpoint();
CREATE TRIGGER follow_changed_webhook_url AFTER UPDATE OF webhook_url ON routines.routines
    FOR EACH ROW WHEN (NEW.webhook_url IS DISTINCT FROM OLD.webhook_url AND NEW.webhook_url IS NOT NULL)
    EXECUTE FUNCTION routines.restart_endpoint();

CREATE FUNCTION routines.forget_secrets_of_routine() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM routines.forget_secrets(routines.secret_ids(OLD.secret_refs, OLD.webhook_secret_id), OLD.id, NULL);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_secrets_of_routine IS 'Deletes secrets that a routine no longer refers to.';
CREATE TRIGGER forget_replaced_secrets AFTER UPDATE OF secret_refs, webhook_secret_id ON routines.routines
    FOR EACH ROW WHEN (OLD.secret_refs IS DISTINCT FROM NEW.secret_refs
                       OR OLD.webhook_secret_id IS DISTINCT FROM NEW.webhook_secret_id)
    EXECUTE FUNCTION routines.forget_secrets_of_routine();
CREATE TRIGGER forget_secrets_of_deleted AFTER DELETE ON routines.routines
    FOR EACH ROW WHEN (OLD.secret_refs <> '{}' OR OLD.webhook_secret_id IS NOT NULL)
    EXECUTE FUNCTION routines.forget_secrets_of_routine();

-- Instead of a foreign key: deleting a secret would have to search all routines, which have no index on it, and a foreign
-- key cannot cover secret_refs. A secret is not deleted while its routine refers to it: see forget_secrets.
CREATE FUNCTION routines.refuse_missing_secrets() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    missing uuid;
BEGIN
    SELECT referred.id INTO missing
    FROM unnest(routines.secret_ids(NEW.secret_refs, NEW.webhook_secret_id)) AS referred (id)
    WHERE NOT EXISTS (SELECT FROM routines.secrets
                      WHERE secrets.id = referred.id AND secrets.collection_id = NEW.collection_id);
    IF FOUND THEN
        RAISE EXCEPTION 'routine % refers to the secret %, which its collection does not have', NEW.id, missing
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'routines_secrets_are_there';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.refuse_missing_secrets IS 'Rejects a routine that refers to a secret missing from its collection.';
CREATE TRIGGER refuse_missing_secrets_of_new AFTER INSERT ON routines.routines
    FOR EACH ROW WHEN (NEW.secret_refs <> '{}' OR NEW.webhook_secret_id IS NOT NULL)
    EXECUTE FUNCTION routines.refuse_missing_secrets();
CREATE TRIGGER refuse_missing_secrets AFTER UPDATE OF secret_refs, webhook_secret_id ON routines.routines
    FOR EACH ROW WHEN (OLD.secret_refs IS DISTINCT FROM NEW.secret_refs
                       OR OLD.webhook_secret_id IS DISTINCT FROM NEW.webhook_secret_id)
    EXECUTE FUNCTION routines.refuse_missing_secrets();
