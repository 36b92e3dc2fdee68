-- Webhooks: an outbox that is a queue of its own, and endpoints that are stopped when they keep failing. The claim is in
-- queries/deliveries.sql.

-- Triggers:
--   AFTER UPDATE, once a statement  forget_secrets_of_ended   delivered or given up: deletes secrets that nothing else needs
--   AFTER DELETE                    forget_secret_of_deleted  the same for a delivery that was still due
--   AFTER UPDATE                    note_given_up             given up: notes it for rules that watch webhook_stopped
-- Rows are inserted by the trigger settle_end of trajectories, and for notices by the workers that judge alerts.
CREATE TABLE routines.webhook_deliveries (
    id              bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT webhook_deliveries_pkey PRIMARY KEY,
    collection_id   bigint NOT NULL,
    trajectory_id   bigint CONSTRAINT webhook_deliveries_trajectory_id_fkey REFERENCES routines.trajectories (id) ON DELETE CASCADE,
    routine_id      bigint,
    rule_id         bigint,
    event_id        uuid NOT NULL DEFAULT gen_random_uuid(),
    event_status    text NOT NULL,
    url             text NOT NULL,
    host            text NOT NULL GENERATED ALWAYS AS (coalesce(lower(substring(url FROM '^[A-Za-z]+://([^/?#]*)')), '')) STORED,
    lane            integer NOT NULL GENERATED ALWAYS AS (
                    ('x' || left(md5(coalesce(lower(substring(url FROM '^[A-Za-z]+://([^/?#]*)')), '')), 8))::bit(32)::integer) STORED,
    secret_id       uuid,
    body            bytea,
    fence           integer NOT NULL DEFAULT 0,
    claimed_at      timestamptz,
    attempts        jsonb NOT NULL DEFAULT '[]' CONSTRAINT webhook_deliveries_attempts_is_array CHECK (jsonb_typeof(attempts) = 'array'),
    failures        integer NOT NULL DEFAULT 0,
    is_redelivery   boolean NOT NULL DEFAULT false,
    next_attempt_at timestamptz DEFAULT now(),
    created_at      timestamptz NOT NULL DEFAULT now(),
    delivered_at    timestamptz,
    give_up_reason  text,
    -- A notice has its body from the start: it tells what was so when it was queued.
    CONSTRAINT webhook_deliveries_is_of_a_run_or_a_rule CHECK (
        CASE WHEN rule_id IS NULL THEN trajectory_id IS NOT NULL
             ELSE trajectory_id IS NULL AND routine_id IS NULL AND body IS NOT NULL END),
    CONSTRAINT webhook_deliveries_claim_fits_state CHECK (claimed_at IS NULL OR next_attempt_at IS NOT NULL),
    CONSTRAINT webhook_deliveries_end_has_outcome
        CHECK (next_attempt_at IS NOT NULL OR delivered_at IS NOT NULL OR give_up_reason IS NOT NULL)
);
-- All due deliveries, oldest first.
CREATE INDEX webhook_deliveries_next_attempt_at_idx ON routines.webhook_deliveries (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
-- The lanes of the queue: the deliveries to one receiver, the earliest due first. A lane is a hash, so a walk that begins at a
-- random number begins at a random receiver.
CREATE INDEX webhook_deliveries_lane_idx ON routines.webhook_deliveries (collection_id, lane, next_attempt_at)
    WHERE next_attempt_at IS NOT NULL;
-- Claimed deliveries: few rows.
CREATE INDEX webhook_deliveries_claimed_idx ON routines.webhook_deliveries (collection_id, lane) WHERE claimed_at IS NOT NULL;
-- A routine's deliveries, newest first.
CREATE INDEX webhook_deliveries_routine_id_idx ON routines.webhook_deliveries (routine_id, id);
-- A run's deliveries.
CREATE INDEX webhook_deliveries_trajectory_id_idx ON routines.webhook_deliveries (trajectory_id);
-- Due webhooks that need a secret, for routines.forget_secrets.
CREATE INDEX webhook_deliveries_secret_id_idx ON routines.webhook_deliveries (secret_id)
    WHERE secret_id IS NOT NULL AND next_attempt_at IS NOT NULL;
COMMENT ON TABLE  routines.webhook_deliveries IS
    'The outbox of completion webhooks, written in the transaction that ends the run, and of notices of alerts.';
COMMENT ON COLUMN routines.webhook_deliveries.id IS 'Database id, and `id` in the API.';
COMMENT ON COLUMN routines.webhook_deliveries.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.webhook_deliveries.trajectory_id IS 'The run that ended; null for a notice.';
COMMENT ON COLUMN routines.webhook_deliveries.routine_id IS 'The routine that started the run; null if the API started it, and for a notice.';
COMMENT ON COLUMN routines.webhook_deliveries.rule_id IS 'Of a notice: the rule, which may have been deleted; null for the webhook of a run.';
COMMENT ON COLUMN routines.webhook_deliveries.event_id IS
    'The webhook-id of every attempt. Random, so that after a restore no other event gets the same id, which a receiver would take for a repetition.';
COMMENT ON COLUMN routines.webhook_deliveries.event_status IS
    'The final status that it reports; the run may have been archived since. Of a notice: the event, recovered or digest.';
COMMENT ON COLUMN routines.webhook_deliveries.url IS
    'The URL to send to, as it was when the run was created or the notice queued.';
COMMENT ON COLUMN routines.webhook_deliveries.host IS 'Host and port of the URL: the receiver.';
COMMENT ON COLUMN routines.webhook_deliveries.lane IS
    'A hash of the host. Deliveries to one receiver wait for each other, never for those to other receivers.';
COMMENT ON COLUMN routines.webhook_deliveries.secret_id IS 'The secret that signs it; null for unsigned.';
COMMENT ON COLUMN routines.webhook_deliveries.body IS
    'The body, the same bytes at every attempt; null before the first, but for notices.';
COMMENT ON COLUMN routines.webhook_deliveries.fence IS 'Raised by every claim. Every later write of the worker names it.';
COMMENT ON COLUMN routines.webhook_deliveries.claimed_at IS
    'When a worker claimed it; null if it is not claimed. The lease ends at next_attempt_at.';
COMMENT ON COLUMN routines.webhook_deliveries.attempts IS
    'The newest 50 attempts: {at, status, error, duration_seconds}, and of the newest three, if they failed, what was answered: {status, headers, body, truncated}, at most 4 KiB of the body.';
COMMENT ON COLUMN routines.webhook_deliveries.failures IS
    'Failed attempts since it was created or requested again: its place in the retry schedule.';
COMMENT ON COLUMN routines.webhook_deliveries.is_redelivery IS
    'True if a person requested it again: the next attempt is made even if the endpoint is stopped.';
COMMENT ON COLUMN routines.webhook_deliveries.next_attempt_at IS
    'When to try next, or when the lease of the worker that is trying ends; null once delivered or given up.';
COMMENT ON COLUMN routines.webhook_deliveries.created_at IS 'When the run ended, or the notice was queued.';
COMMENT ON COLUMN routines.webhook_deliveries.delivered_at IS 'When the receiver last accepted it; null if it has not.';
COMMENT ON COLUMN routines.webhook_deliveries.give_up_reason IS 'Why it is not tried again; null if delivered or still due.';
SELECT routines.protect('routines.webhook_deliveries');

CREATE FUNCTION routines.with_attempt(
    attempts jsonb, at timestamptz, status integer, error text, duration_seconds float8, answer jsonb DEFAULT NULL
) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE RETURN
    (CASE WHEN jsonb_array_length(attempts) >= 50 THEN attempts - 0 ELSE attempts END || (jsonb_build_object(
        'at', to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'status', status, 'error', error,
        'duration_seconds', duration_seconds)
     || CASE WHEN answer IS NULL THEN '{}' ELSE jsonb_build_object('answer', answer) END)) #- '{-4,answer}';
COMMENT ON FUNCTION routines.with_attempt IS
    'The attempts of a delivery with one more appended. The newest 50 are kept, and what was answered to the newest three of these, if they failed.';

CREATE FUNCTION routines.forget_secrets_of_ended() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ended record;
BEGIN
    IF NOT EXISTS (SELECT FROM after WHERE secret_id IS NOT NULL AND next_attempt_at IS NULL) THEN
        RETURN NULL;
    END IF;
    -- Of two deliveries that end at once, the second waits here and then sees that the first has ended. All secrets are locked
    -- in one order, so that two workers that settle many deliveries do not wait for each other.
    PERFORM FROM routines.secrets
    WHERE id IN (SELECT before.secret_id FROM before JOIN after USING (id)
                 WHERE before.next_attempt_at IS NOT NULL AND after.next_attempt_at IS NULL)
    ORDER BY id FOR UPDATE;
    FOR ended IN
        SELECT before.routine_id, array_agg(DISTINCT before.secret_id) AS secret_ids FROM before JOIN after USING (id)
        WHERE before.secret_id IS NOT NULL AND before.next_attempt_at IS NOT NULL AND after.next_attempt_at IS NULL
        GROUP BY before.routine_id
    LOOP
        PERFORM routines.forget_secrets(ended.secret_ids, ended.routine_id, NULL);
    END LOOP;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_secrets_of_ended IS 'Deletes secrets after the last delivery that needed them has ended.';
CREATE TRIGGER forget_secrets_of_ended AFTER UPDATE ON routines.webhook_deliveries
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION routines.forget_secrets_of_ended();

CREATE FUNCTION routines.forget_secret_of_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM FROM routines.secrets WHERE id = OLD.secret_id FOR UPDATE;
    PERFORM routines.forget_secrets(ARRAY[OLD.secret_id], OLD.routine_id, NULL);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_secret_of_deleted IS 'Deletes a secret after the last delivery that needed it was deleted.';
CREATE TRIGGER forget_secret_of_deleted AFTER DELETE ON routines.webhook_deliveries
    FOR EACH ROW WHEN (OLD.secret_id IS NOT NULL AND OLD.next_attempt_at IS NOT NULL)
    EXECUTE FUNCTION routines.forget_secret_of_deleted();

CREATE FUNCTION routines.note_given_up() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.alert_events (collection_id, routine_id, event, subject, trajectory_id, detail)
    SELECT NEW.collection_id, NEW.routine_id, 'webhook_stopped', 'webhook:' || NEW.id, NEW.trajectory_id,
           format('the webhook of run %s to %s was given up: %s', NEW.trajectory_id, NEW.host, NEW.give_up_reason)
    WHERE EXISTS (SELECT FROM routines.alert_rules WHERE collection_id = NEW.collection_id);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_given_up IS 'Notes that a webhook of a routine was given up, if its collection has rules.';
CREATE TRIGGER note_given_up AFTER UPDATE OF give_up_reason ON routines.webhook_deliveries
    FOR EACH ROW WHEN (NEW.routine_id IS NOT NULL AND NEW.give_up_reason IS NOT NULL AND OLD.give_up_reason IS NULL)
    EXECUTE FUNCTION routines.note_given_up();

------------------------------------------------------------------------------------------------------------------ bodies
CREATE FUNCTION routines.json_time(at timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE RETURN
    coalesce('"' || replace(to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '.000000', '') || 'Z"', 'null');
COMMENT ON FUNCTION routines.json_time IS 'A time as JSON, as the API writes it; null for null.';

-- jsonb writes all digits of a number: 1e22 is an integer of 23 digits, and 1e300 one of 301. Floats have at most 17
-- significant digits, so the others are zeros, which an exponent replaces. The number stays the same. Integers beyond bigint
-- with more digits come from activities, and stay as they are. The same rule in Python: src/routines_core/json_numbers.py.
CREATE FUNCTION routines.json_text(written text) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN (
        SELECT string_agg(CASE
            WHEN token ~ '^-?[0-9]{19,}$' AND length(trim(token, '-0')) <= 17
                 AND token::numeric NOT BETWEEN -9223372036854775808 AND 9223372036854775807
                 AND abs(token::numeric) <= 1.7976931348623157e308
            THEN rtrim(token, '0') || 'e' || length(token) - length(rtrim(token, '0'))
            WHEN token ~ '^-?0\.0[0-9]{18,}$' AND length(ltrim(token, '-0.')) <= 17
            THEN regexp_replace(token, '^(-?)0\.0*([0-9]+)$', '\1\2') || 'e-' || length(split_part(token, '.', 2))
            ELSE token END, '' ORDER BY number)
        FROM regexp_matches(written, '"(?:[^"\\]|\\.)*"|-?[0-9.]+|[^"0-9-]+', 'g') WITH ORDINALITY AS matched (parts, number)
        CROSS JOIN LATERAL (SELECT parts[1] AS token) AS first);
END $$;
COMMENT ON FUNCTION routines.json_text IS 'The text of a jsonb value with floats in a short form; null for null.';

CREATE FUNCTION routines.json_within(value jsonb, most_bytes integer) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    shown text;
BEGIN
    IF pg_column_size(value) > most_bytes THEN  -- the size as stored: a large value is not even read
        RETURN NULL;
    END IF;
    shown := coalesce(value::text, 'null');  -- may be longer: values are stored compressed
    IF shown ~ '[0-9]{19}' THEN
        shown := routines.json_text(shown);
    END IF;
    RETURN CASE WHEN octet_length(shown) <= most_bytes THEN shown END;
END $$;
COMMENT ON FUNCTION routines.json_within IS 'A value as text; null if it takes more than most_bytes, whether stored or written.';

CREATE FUNCTION routines.webhook_steps(
    run_id bigint, kept_steps jsonb, most_value_bytes integer, most_bytes integer, OUT shown text, OUT is_cut boolean
) LANGUAGE plpgsql STABLE AS $$
DECLARE
    step record;
    head text;
    tail text;
    outputs text;
    inputs text;
    most integer;
    room integer := most_bytes;
    wasted integer := 0;
    steps text[] := '{}';
BEGIN
    is_cut := false;
    -- From the last step back, since the results stand at the end.
    FOR step IN SELECT * FROM routines.steps_of(run_id, kept_steps) ORDER BY position DESC LOOP
        head := format('%s:{"status":%s,"activity":%s', to_json(step.name), to_json(step.status), to_json(step.activity));
        tail := format(
            '"created":%s,"ended":%s,"duration_seconds":%s,"error":%s%s', routines.json_time(step.created_at),
            routines.json_time(step.ended_at),
            coalesce(extract(epoch FROM step.ended_at - step.created_at)::float8::text, 'null'),
            coalesce(to_json(step.error)::text, 'null'), ',"kept_from":' || nullif(step.trajectory_id, run_id));
        room := room - octet_length(head) - octet_length(tail) - 60;  -- the rest of the step's punctuation
        IF room < 0 THEN
            is_cut := true;
            EXIT;
        END IF;
        -- A value that proves too large only when it is written has cost time. After a few of them no more are read.
        most := CASE WHEN wasted < 4 THEN least(most_value_bytes, room) ELSE 0 END;
        outputs := routines.json_within(step.outputs, most);
        wasted := wasted + (outputs IS NULL AND pg_column_size(step.outputs) <= most)::integer;
        room := room - coalesce(octet_length(outputs), 0);
        most := CASE WHEN wasted < 4 THEN least(most_value_bytes, room) ELSE 0 END;
        inputs := routines.json_within(step.inputs, most);
        wasted := wasted + (inputs IS NULL AND pg_column_size(step.inputs) <= most)::integer;
        room := room - coalesce(octet_length(inputs), 0);
        is_cut := is_cut OR inputs IS NULL OR outputs IS NULL;
        steps := format('%s,"inputs":%s,"outputs":%s,%s%s}', head, coalesce(inputs, 'null'), coalesce(outputs, 'null'), tail,
                        CASE WHEN inputs IS NULL OR outputs IS NULL THEN ',"truncated":true' ELSE '' END) || steps;
    END LOOP;
    shown := array_to_string(steps, ',');
END $$;
COMMENT ON FUNCTION routines.webhook_steps IS
    'The steps of a run as members of a JSON object, in at most most_bytes, and whether anything was left out: values that take more than most_value_bytes or do not fit are null, and the first steps are left out if there are too many.';

CREATE FUNCTION routines.webhook_body(
    of_run bigint, event_status text, most_value_bytes integer, most_bytes integer
) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    run record;
    listed record;
    head text;
    tail text;
    params text;
    configs text;
    run_labels text;
    room integer;
BEGIN
    SELECT trajectories.*, collections.name AS collection, coalesce(tasks.name, deleted_tasks.name, 'deleted') AS task,
           coalesce(workflow -> 'step_configs', '{}') AS step_configs,
           coalesce(json_array_length(workflow -> 'steps'), 0) AS total_steps
    INTO run
    FROM routines.trajectories
    JOIN routines.task_versions ON task_versions.task_id = trajectories.task_id
                                AND task_versions.version = trajectories.task_version
    JOIN routines.collections ON collections.id = trajectories.collection_id
    LEFT JOIN routines.tasks ON tasks.id = trajectories.task_id
    LEFT JOIN routines.deleted_tasks ON deleted_tasks.id = trajectories.task_id
    WHERE trajectories.id = of_run;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    head := format(
        '"trajectory_id":%s,"workflow_id":%s,"run_id":%s,"name":%s,"status":%s,"created":%s,"updated":%s,"created_at":%s,'
        '"started_at":%s,"ended_at":%s',
        of_run, to_json(routines.workflow_id(run.collection, run.task, of_run)), to_json(routines.run_id(of_run, run.created_at, run.nonce)),
        to_json(run.collection || '/' || run.task), to_json(event_status), routines.json_time(run.created_at),
        routines.json_time(run.updated_at), routines.json_time(run.created_at), routines.json_time(run.started_at),
        routines.json_time(run.ended_at));
    tail := format(
        '"total_steps":%s,"completed_steps":%s,"error":%s,"triggered_by_routine_id":%s,"scheduled_for":%s,"trigger":%s,'
        '"webhook_url":%s%s%s%s%s%s%s%s%s',
        run.total_steps, (SELECT count(*) FROM routines.steps WHERE trajectory_id = of_run AND steps.status = 'completed')
                         + (SELECT count(*) FROM jsonb_object_keys(run.kept_steps)),
        coalesce(to_json(run.error)::text, 'null'), coalesce(run.triggered_by_routine_id::text, 'null'),
        routines.json_time(run.scheduled_for), to_json(run.trigger), coalesce(to_json(run.webhook_url)::text, 'null'),
        ',"retry_of":' || run.retry_of, ',"retry_number":' || run.retry_number, ',"rerun_of":' || run.rerun_of,
        ',"kept_steps":' || run.kept_steps::text,
        ',"backfill_id":' || run.backfill_id || ',"fills_slot":' || routines.json_time(run.fills_slot),
        ',"routine_revision":' || nullif(routines.revision_of_run(of_run), 1),
        ',"parent_trajectory_id":' || run.parent_id,
        ',"parent_name":' || (SELECT to_json(routines.run_name(parents)) FROM routines.trajectories AS parents
                              WHERE parents.id = run.parent_id));
    room := most_bytes - octet_length(head) - octet_length(tail) - 100;  -- the remaining names and punctuation
    params := routines.json_within(run.init_params, least(most_value_bytes, room));
    room := room - coalesce(octet_length(params), 0);
    run_labels := routines.json_within(run.labels, least(most_value_bytes, room));
    room := room - coalesce(octet_length(run_labels), 0);
    SELECT * INTO listed FROM routines.webhook_steps(of_run, run.kept_steps, most_value_bytes, room);
    room := room - octet_length(listed.shown);
    configs := CASE WHEN octet_length(run.step_configs::text) <= least(most_value_bytes, room) THEN run.step_configs::text END;
    RETURN format(
        '{%s,"init_params":%s,"step_configs":%s,"steps":{%s},"labels":%s,%s%s}', head, coalesce(params, 'null'),
        coalesce(configs, 'null'), listed.shown, coalesce(run_labels, 'null'), tail,
        CASE WHEN listed.is_cut OR params IS NULL OR run_labels IS NULL OR configs IS NULL THEN ',"truncated":true'
             ELSE '' END);
END $$;
COMMENT ON FUNCTION routines.webhook_body IS
    'The run as the API shows it, with the status in which it ended, as JSON of at most most_bytes. Values that take more than most_value_bytes, or do not fit, are null, and their step and the whole then say truncated: true.';

-- No triggers.
CREATE TABLE routines.webhook_endpoints (
    id             bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT webhook_endpoints_pkey PRIMARY KEY,
    collection_id  bigint NOT NULL,
    url            text NOT NULL,
    lane           integer NOT NULL GENERATED ALWAYS AS (
                   ('x' || left(md5(coalesce(lower(substring(url FROM '^[A-Za-z]+://([^/?#]*)')), '')), 8))::bit(32)::integer) STORED,
    failing_since  timestamptz NOT NULL,
    stopped_at     timestamptz,
    stopped_reason text,
    CONSTRAINT webhook_endpoints_stop_has_reason CHECK ((stopped_at IS NULL) = (stopped_reason IS NULL))
);
-- On a digest, because a URL may exceed the size limit of an index entry.
CREATE UNIQUE INDEX webhook_endpoints_url_key ON routines.webhook_endpoints (collection_id, md5(url));
COMMENT ON TABLE  routines.webhook_endpoints IS
    'Webhook URLs that are failing or were stopped for it. A working URL has no row. DELETE a row in psql to try the URL again; rows expire after 90 days.';
COMMENT ON COLUMN routines.webhook_endpoints.id IS 'Database id.';
COMMENT ON COLUMN routines.webhook_endpoints.collection_id IS 'The tenant. Failures in another collection stop nothing here.';
COMMENT ON COLUMN routines.webhook_endpoints.url IS 'The whole URL.';
COMMENT ON COLUMN routines.webhook_endpoints.lane IS 'Same as in webhook_deliveries.';
COMMENT ON COLUMN routines.webhook_endpoints.failing_since IS 'The first failure since it last worked.';
COMMENT ON COLUMN routines.webhook_endpoints.stopped_at IS 'When sending to it was stopped; null while it is still tried.';
COMMENT ON COLUMN routines.webhook_endpoints.stopped_reason IS 'Why it was stopped; null while it is still tried.';
SELECT routines.protect('routines.webhook_endpoints');
