-- Routines. Each rule of the cadence is one named constraint, so that a row typed in psql is as safe as one that
-- came by HTTP, and so that an error can say which rule was broken.

CREATE TABLE routines.routines (
    id                    bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT routines_pkey PRIMARY KEY,
    collection_id         bigint NOT NULL,
    task_id               bigint NOT NULL,
    name                  routines.slug NOT NULL,
    cadence_type          text NOT NULL CONSTRAINT routines_cadence_type_is_known
                          CHECK (cadence_type IN ('manual', 'hourly', 'daily', 'weekdays', 'weekly')),
    hour_utc              smallint CONSTRAINT routines_hour_utc_in_range CHECK (hour_utc BETWEEN 0 AND 23),
    minute_utc            smallint NOT NULL DEFAULT 0 CONSTRAINT routines_minute_utc_in_range CHECK (minute_utc BETWEEN 0 AND 59),
    day_of_week           text CONSTRAINT routines_day_of_week_is_known
                          CHECK (day_of_week IN ('mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun')),
    init_params_overrides routines.json_object NOT NULL DEFAULT '{}',
    secret_refs           routines.json_object NOT NULL DEFAULT '{}',
    webhook_url           text,
    webhook_secret_id     uuid CONSTRAINT routines_webhook_secret_id_fkey REFERENCES routines.secrets (id),
    paused                boolean NOT NULL DEFAULT false,
    paused_at             timestamptz,
    paused_reason         text,
    strikes               smallint NOT NULL DEFAULT 0,
    overlap_policy        text NOT NULL DEFAULT 'skip' CONSTRAINT routines_overlap_policy_is_known CHECK (overlap_policy IN ('skip')),
    next_run_at           timestamptz,
    last_run_at           timestamptz,
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT routines_name_key UNIQUE (task_id, name),
    CONSTRAINT routines_task_fkey FOREIGN KEY (task_id, collection_id) REFERENCES routines.tasks (id, collection_id),
    CONSTRAINT routines_hour_utc_fits_cadence
        CHECK ((hour_utc IS NOT NULL) = (cadence_type IN ('daily', 'weekdays', 'weekly'))),
    CONSTRAINT routines_minute_utc_fits_cadence CHECK (cadence_type <> 'manual' OR minute_utc = 0),
    CONSTRAINT routines_day_of_week_fits_cadence CHECK ((day_of_week IS NOT NULL) = (cadence_type = 'weekly')),
    CONSTRAINT routines_next_run_at_fits_state CHECK ((next_run_at IS NULL) = (paused OR cadence_type = 'manual'))
) WITH (
    -- Each fire leaves one dead row version and three dead index entries: let vacuum come at 2 % instead of 20 %.
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05
);
-- The claim's index: the head of it is what is due. Paused and manual routines are not in it at all.
CREATE INDEX routines_next_run_at_idx ON routines.routines (next_run_at) WHERE next_run_at IS NOT NULL;

COMMENT ON TABLE  routines.routines IS 'A saved, recurring invocation of a task.';
COMMENT ON COLUMN routines.routines.id IS 'Database id, and `id` in the API.';
COMMENT ON COLUMN routines.routines.collection_id IS 'The tenant, the same as the task''s.';
COMMENT ON COLUMN routines.routines.task_id IS 'What it runs; a task cannot go while a routine hangs on it.';
COMMENT ON COLUMN routines.routines.name IS 'Unique in its task.';
COMMENT ON COLUMN routines.routines.cadence_type IS 'manual, hourly, daily, weekdays (Monday to Friday) or weekly.';
COMMENT ON COLUMN routines.routines.hour_utc IS '0-23; only and always for daily, weekdays and weekly.';
COMMENT ON COLUMN routines.routines.minute_utc IS '0-59; on hourly the minute of the hour; 0 on manual.';
COMMENT ON COLUMN routines.routines.day_of_week IS 'mon ... sun; only and always for weekly.';
COMMENT ON COLUMN routines.routines.init_params_overrides IS 'Merged over the task''s init_params, key by key at the top level, when it fires.';
COMMENT ON COLUMN routines.routines.secret_refs IS 'Name of each secret param and the id of its ciphertext in secrets.';
COMMENT ON COLUMN routines.routines.webhook_url IS 'Told when a run has ended; null: nobody is.';
COMMENT ON COLUMN routines.routines.webhook_secret_id IS 'Signs the webhook; null: unsigned.';
COMMENT ON COLUMN routines.routines.paused IS 'True stops the schedule. UPDATE it in psql: next_run_at follows.';
COMMENT ON COLUMN routines.routines.paused_at IS 'Since when; null: not paused. Kept by a trigger.';
COMMENT ON COLUMN routines.routines.paused_reason IS 'Why, where the scheduler itself paused it; null: somebody did.';
COMMENT ON COLUMN routines.routines.strikes IS 'Fires in a row that raised. At three the routine is paused; a fire that works sets it to 0.';
COMMENT ON COLUMN routines.routines.overlap_policy IS 'skip: a slot that comes while a run is active is recorded in skips, and not run.';
COMMENT ON COLUMN routines.routines.next_run_at IS 'The next slot that has no outcome yet; null: paused or manual. Kept by a trigger and advanced by the tick.';
COMMENT ON COLUMN routines.routines.last_run_at IS 'When it last started a run, on schedule or by run-now; null: never.';
COMMENT ON COLUMN routines.routines.created_at IS 'When it was made.';
COMMENT ON COLUMN routines.routines.updated_at IS 'Its last change by a person; a fire is none.';

CREATE FUNCTION routines.keep_next_run_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    IF TG_OP = 'UPDATE'
       AND (NEW.cadence_type, NEW.hour_utc, NEW.minute_utc, NEW.day_of_week, NEW.paused)
           IS NOT DISTINCT FROM (OLD.cadence_type, OLD.hour_utc, OLD.minute_utc, OLD.day_of_week, OLD.paused) THEN
        RETURN NEW;
    END IF;
    IF NEW.paused THEN
        NEW.next_run_at := NULL;
        NEW.paused_at := coalesce(NEW.paused_at, now());
    ELSE
        NEW.next_run_at := routines.next_fire(
            NEW.cadence_type, NEW.hour_utc, NEW.minute_utc, NEW.day_of_week, now());
        NEW.paused_at := NULL;
        NEW.paused_reason := NULL;
        NEW.strikes := 0;
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.keep_next_run_at IS
    'Keeps next_run_at true when cadence or paused changes. Resuming computes from now: nothing is made up for.';

-- Not fired by the tick, which writes next_run_at, last_run_at and strikes alone.
CREATE TRIGGER keep_next_run_at
    BEFORE INSERT OR UPDATE OF name, cadence_type, hour_utc, minute_utc, day_of_week, paused,
        init_params_overrides, secret_refs, webhook_url, webhook_secret_id ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.keep_next_run_at();
