-- Retries of scheduled runs, and routines that stop after failures. A retry is a run of its own, inserted in the transaction that
-- ends the failed one, so no tick sees its routine without an active run in between. Until its time it waits as a run does that
-- waits for the next attempt of a step: running, without a worker, and with its time as the end of its lease (suspend and reap in
-- queries/runs.sql).

----------------------------------------------------------------------------------------------------- when to try again
CREATE FUNCTION routines.retry_delay(retry jsonb, retry_number integer) RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN make_interval(secs => CASE jsonb_typeof(retry -> 'backoff')
    WHEN 'array' THEN (retry -> 'backoff' ->> least(retry_number, jsonb_array_length(retry -> 'backoff')) - 1)::float8
    ELSE least(coalesce((retry -> 'backoff' ->> 'initial')::float8, 60)
                   * power(coalesce((retry -> 'backoff' ->> 'multiplier')::float8, 2), retry_number - 1),
               coalesce((retry -> 'backoff' ->> 'max')::float8, 3600)) END);
COMMENT ON FUNCTION routines.retry_delay IS
    'How long after the failure the retry of this number begins, by the backoff of a routine''s retry; without one after 1 minute, then 2, 4 and so on, up to an hour.';

CREATE FUNCTION routines.http_date(header text) RETURNS timestamptz LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    RETURN substring(header FROM '^[A-Z][a-z]{2}, ([0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT)$')::timestamptz;
EXCEPTION
    WHEN datetime_field_overflow OR invalid_datetime_format THEN
        RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.http_date IS 'A time as HTTP headers write it: Sun, 06 Nov 1994 08:49:37 GMT; null for any other text.';

CREATE FUNCTION routines.reset_time(reset text, answered_at timestamptz) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN reset ~ '^[0-9]{1,13}(\.[0-9]{1,9})?$' THEN CASE
    WHEN reset::float8 >= 1e12 THEN to_timestamp(reset::float8 / 1000)
    WHEN reset::float8 >= 1e9 THEN to_timestamp(reset::float8)
    ELSE answered_at + make_interval(secs => reset::float8) END END;
COMMENT ON FUNCTION routines.reset_time IS
    'The time at which a rate limit is reset, from a header that has it as seconds from then on, or in seconds or milliseconds since 1970; null for any other text.';

-- A date is compared with the Date of the same response, because the clock of the provider may differ from ours.
CREATE FUNCTION routines.answered_until(answer jsonb, answered_at timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    headers     jsonb := answer -> 'headers';
    retry_after text := trim(headers ->> 'retry-after');
    reset       text := coalesce(headers ->> 'ratelimit-reset', headers ->> 'x-ratelimit-reset',
                                 substring(headers ->> 'ratelimit' FROM '(?:^|[;, ])(?:t|reset)=([0-9]+)'));
BEGIN
    IF retry_after ~ '^[0-9]{1,9}$' THEN
        RETURN answered_at + make_interval(secs => retry_after::float8);
    ELSIF routines.http_date(retry_after) IS NOT NULL THEN
        RETURN answered_at + (routines.http_date(retry_after) - coalesce(routines.http_date(headers ->> 'date'), answered_at));
    -- Providers send the state of a rate limit with every response. It matters once the limit is reached.
    ELSIF answer ->> 'status' = '429'
          OR '0' IN (headers ->> 'ratelimit-remaining', headers ->> 'x-ratelimit-remaining') THEN
        RETURN routines.reset_time(trim(reset), answered_at);
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.answered_until IS
    'The time before which the provider of this response wants no other request: by Retry-After, or by the reset of its rate limit if that is reached; null if it names none.';

------------------------------------------------------------------------------------------------------------- settings
CREATE FUNCTION routines.refuse_retry(field text, rule text) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = 'retry' || field || ': ' || rule, ERRCODE = 'check_violation',
        CONSTRAINT = 'routines_retry_is_valid';
END $$;
COMMENT ON FUNCTION routines.refuse_retry IS 'Raises the error of a retry that is not valid.';

CREATE FUNCTION routines.is_number(value jsonb, at_least float8, at_most float8, whole boolean DEFAULT false) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE jsonb_typeof(value) WHEN 'number' THEN (value #>> '{}')::numeric BETWEEN at_least::numeric AND at_most::numeric
    AND (NOT whole OR (value #>> '{}')::numeric % 1 = 0) ELSE false END;
COMMENT ON FUNCTION routines.is_number IS 'Whether a value is a number of this range, and a whole one if asked.';

CREATE FUNCTION routines.check_backoff(backoff jsonb) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    CASE jsonb_typeof(backoff)
        WHEN 'array' THEN
            IF jsonb_array_length(backoff) NOT BETWEEN 1 AND 20
               OR EXISTS (SELECT FROM jsonb_array_elements(backoff) WHERE NOT routines.is_number(value, 0, 86400)) THEN
                PERFORM routines.refuse_retry('.backoff', 'must be 1 to 20 delays of 0 to 86400 seconds');
            END IF;
        WHEN 'object' THEN
            IF backoff - '{initial,multiplier,max}'::text[] <> '{}' THEN
                PERFORM routines.refuse_retry('.backoff', 'takes initial, multiplier and max');
            ELSIF NOT (routines.is_number(coalesce(backoff -> 'initial', '60'), 0, 86400)
                       AND routines.is_number(coalesce(backoff -> 'max', '3600'), 0, 86400)) THEN
                PERFORM routines.refuse_retry('.backoff', 'initial and max must be 0 to 86400 seconds');
            ELSIF NOT routines.is_number(coalesce(backoff -> 'multiplier', '2'), 1, 10) THEN
                PERFORM routines.refuse_retry('.backoff', 'multiplier must be 1 to 10');
            END IF;
        ELSE
            PERFORM routines.refuse_retry('.backoff', 'must be an array of seconds, or an object');
    END CASE;
END $$;
COMMENT ON FUNCTION routines.check_backoff IS 'Raises an error if the backoff of a retry is not valid.';

CREATE FUNCTION routines.check_retry(retry jsonb) RETURNS void LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF jsonb_typeof(retry) <> 'object' OR retry - '{max_attempts,backoff,on,until}'::text[] <> '{}' THEN
        PERFORM routines.refuse_retry('', 'must be an object of max_attempts, backoff, on and until');
    ELSIF NOT routines.is_number(coalesce(retry -> 'max_attempts', 'null'), 2, 20, true) THEN
        PERFORM routines.refuse_retry('.max_attempts', 'must be 2 to 20, the first attempt included');
    ELSIF coalesce(retry -> 'on', '"any"') NOT IN ('"any"', '"transient"') THEN
        PERFORM routines.refuse_retry('.on', 'must be any or transient');
    ELSIF NOT (coalesce(retry -> 'until', '"next_slot"') = '"next_slot"' OR routines.is_number(retry -> 'until', 1, 604800, true)) THEN
        PERFORM routines.refuse_retry('.until', 'must be next_slot, or 1 to 604800 seconds');
    END IF;
    IF retry ? 'backoff' THEN
        PERFORM routines.check_backoff(retry -> 'backoff');
    END IF;
END $$;
COMMENT ON FUNCTION routines.check_retry IS 'Raises an error if a routine''s retry is not valid.';

--------------------------------------------------------------------------------------------------------------- retrying
CREATE FUNCTION routines.is_transient_failure(run routines.trajectories, crashes_before smallint) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT coalesce(
        (SELECT is_transient FROM routines.steps WHERE trajectory_id = run.id AND status = 'failed' ORDER BY position DESC LIMIT 1),
        -- Its workers were lost, or its deadline has passed. A worker may find that a moment before the database does.
        run.crashes > crashes_before OR run.deadline_at <= now() + interval '1 s', false);
$$;
COMMENT ON FUNCTION routines.is_transient_failure IS
    'Whether a run that fails now does so for a cause that may go away by itself, by the class of the step that failed; also if its workers were lost or its deadline has passed.';

-- The lock makes a pause or a deletion of the routine come before, and then there is no retry, or wait until this is committed and
-- then cancel the retry. Nothing that holds the routine waits for a run that a worker is ending.
CREATE FUNCTION routines.retry_run(run routines.trajectories) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    number   integer := coalesce(run.retry_number, 0) + 1;
    routine  record;
    first    record;
    retry_at timestamptz;
    made     bigint;
BEGIN
    SELECT retry, next_run_at, overlap_policy INTO routine FROM routines.routines
    WHERE id = run.triggered_by_routine_id AND retry IS NOT NULL AND NOT (paused AND coalesce(paused_until > now(), true))
    FOR SHARE;
    IF NOT FOUND OR number >= (routine.retry ->> 'max_attempts')::numeric
       OR routine.retry ->> 'on' = 'transient' AND NOT run.is_transient THEN
        RETURN NULL;
    END IF;
    -- The next slot has come: its run waits for this one.
    IF (jsonb_typeof(routine.retry -> 'until') IS DISTINCT FROM 'number' OR routine.overlap_policy = 'cancel_other')
       AND EXISTS (SELECT FROM routines.trajectories
                   WHERE triggered_by_routine_id = run.triggered_by_routine_id AND place < 1 AND final_status IS NULL) THEN
        RETURN NULL;
    END IF;
    SELECT id, created_at, scheduled_for INTO first FROM routines.trajectories WHERE id = coalesce(run.retry_of, run.id);
    retry_at := greatest(now() + routines.retry_delay(routine.retry, number), (
        SELECT routines.answered_until(answer, ended_at) FROM routines.steps
        WHERE trajectory_id = run.id AND status = 'failed' ORDER BY position DESC LIMIT 1));
    IF (CASE jsonb_typeof(routine.retry -> 'until')
           WHEN 'number' THEN retry_at > first.created_at + make_interval(secs => (routine.retry ->> 'until')::float8)
           -- Without a next slot a week at most: the provider of the failed response may have named a time in years.
           ELSE retry_at >= coalesce(routine.next_run_at, first.created_at + interval '7 days') END) THEN
        RETURN NULL;
    END IF;
    INSERT INTO routines.trajectories (
        collection_id, task_id, task_version, triggered_by_routine_id, trigger, retry_of, retry_number, status, lease_expires_at,
        timeout_seconds, traceparent, init_params, secret_refs, webhook_url, webhook_secret_id, slot_values)
    VALUES (
        run.collection_id, run.task_id, run.task_version, run.triggered_by_routine_id, 'retry', coalesce(run.retry_of, run.id), number,
        'running', retry_at, run.timeout_seconds, run.traceparent, run.init_params, run.secret_refs, run.webhook_url,
        run.webhook_secret_id,
        coalesce(run.slot_values, routines.slot_values(run.triggered_by_routine_id, first.scheduled_for, 'schedule')))
    RETURNING id INTO made;
    RETURN made;
END $$;
COMMENT ON FUNCTION routines.retry_run IS
    'Inserts the retry of a scheduled run, or of a retry, that fails now, and returns its id; null if its routine wants none: it was deleted or is paused, the attempts are spent, the failure is not of the kind that is retried, the run of the next slot waits already, or the time would be at or after that slot, or later than `until`. It waits at least as long as the provider of the failed response asked for, and has the parameters, secrets and slot of the run that failed.';

CREATE FUNCTION routines.cancel_unbegun() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE routines.trajectories
    SET status = 'cancelled', fence = fence + 1, ended_at = now(), updated_at = now(), lease_expires_at = NULL,
        error = 'cancelled: its routine was ' || CASE TG_OP WHEN 'DELETE' THEN 'deleted' ELSE 'paused' END || ' before the '
                || CASE trigger WHEN 'retry' THEN 'retry' ELSE 'run' END || ' began'
    WHERE triggered_by_routine_id = OLD.id AND (trigger <> 'schedule' OR place IS NOT NULL) AND final_status IS NULL
      AND (trigger = 'retry' OR place = 0) AND started_at IS NULL;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.cancel_unbegun IS
    'Cancels a retry that no worker has begun, and a run that waits for a place, when its routine is paused or deleted.';
CREATE TRIGGER cancel_unbegun AFTER UPDATE OF paused ON routines.routines
    FOR EACH ROW WHEN (NEW.paused AND NOT OLD.paused) EXECUTE FUNCTION routines.cancel_unbegun();
CREATE TRIGGER cancel_unbegun_of_deleted AFTER DELETE ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.cancel_unbegun();

------------------------------------------------------------------------------------------------------------- breaker
-- The length of the streak is read from the ledger, so that a run that completes need not reset a counter.
CREATE FUNCTION routines.failures_in_a_row(of_routine bigint, before_slot timestamptz, since timestamptz, most integer) RETURNS integer
LANGUAGE plpgsql STABLE AS $$
DECLARE
    outcome  text;
    failures integer := 0;
BEGIN
    FOR outcome IN
        SELECT routines.status_of_slot(id, status, retried_by) FROM routines.trajectories
        WHERE triggered_by_routine_id = of_routine AND scheduled_for < before_slot
          AND (since IS NULL OR created_at >= since)
        ORDER BY scheduled_for DESC LIMIT 10 * most
    LOOP
        EXIT WHEN outcome = 'completed' OR failures >= most;
        failures := failures + (outcome = 'failed')::integer;
    END LOOP;
    RETURN failures;
END $$;
COMMENT ON FUNCTION routines.failures_in_a_row IS
    'How many slots of a routine before this one failed since the last one that completed, at most `most`. Cancelled and archived runs are passed over, and only runs created `since` then count.';

CREATE FUNCTION routines.trip_breaker(run routines.trajectories) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    routine  record;
    slot     timestamptz := (SELECT scheduled_for FROM routines.trajectories WHERE id = coalesce(run.retry_of, run.id));
    failures integer;
BEGIN
    SELECT pause_after_failures AS most, after_failures, counts_failures_since INTO routine FROM routines.routines
    WHERE id = run.triggered_by_routine_id AND pause_after_failures IS NOT NULL AND NOT paused
      AND (counts_failures_since IS NULL OR run.created_at >= counts_failures_since)
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    failures := 1 + routines.failures_in_a_row(run.triggered_by_routine_id, slot, routine.counts_failures_since, routine.most + 6);
    IF failures < routine.most THEN
        RETURN;
    ELSIF routine.after_failures = 'backoff' THEN
        UPDATE routines.routines SET backoff_left = 2 ^ least(failures - routine.most, 6) WHERE id = run.triggered_by_routine_id;
    ELSE
        UPDATE routines.routines
        SET paused = true, paused_reason = format(
            'paused after %s; the last: %s',
            CASE routine.most WHEN 1 THEN 'a failed slot' ELSE routine.most || ' failed slots in a row' END,
            routines.first_line(coalesce(run.error, 'no error was recorded')))
        WHERE id = run.triggered_by_routine_id;
    END IF;
END $$;
COMMENT ON FUNCTION routines.trip_breaker IS
    'Stops the routine of a scheduled run that fails now, and that is not retried, if as many slots in a row have failed as its pause_after_failures: pauses it, or lets it skip slots.';

CREATE FUNCTION routines.backoff_detail(backoff_left integer) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 'the slots before it failed, and ' || CASE backoff_left - 1 WHEN 0 THEN 'the next slot is the next try'
    WHEN 1 THEN '1 more slot is skipped' ELSE backoff_left - 1 || ' more slots are skipped' END;
COMMENT ON FUNCTION routines.backoff_detail IS 'The detail of a slot that is skipped after failures, while this many are left to skip, itself included.';

-- One look at the routine, which for most routines is the only one.
CREATE FUNCTION routines.follow_failure(run routines.trajectories) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    retry bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM routines.routines WHERE id = run.triggered_by_routine_id
                   AND (routines.retry IS NOT NULL OR pause_after_failures IS NOT NULL)) THEN
        RETURN NULL;
    END IF;
    retry := routines.retry_run(run);
    IF retry IS NULL THEN
        PERFORM routines.trip_breaker(run);
    END IF;
    RETURN retry;
END $$;
COMMENT ON FUNCTION routines.follow_failure IS
    'What follows if a scheduled run or a retry fails now: its retry, whose id is returned, or else that its routine may stop.';
