-- Alerts: the rules by which a collection wants to be told, one row for each alert, and what alerts are opened for. Workers
-- evaluate the rules (queries/alerts.sql), so an alert needs no ticker. Its notice is a webhook like any other: chapter
-- 08_webhooks. What a notice says: chapter 13_notices. Why this design: docs/decisions/0030.

------------------------------------------------------------------------------------------------------------------ rules
-- Triggers, in the order in which they fire:
--   BEFORE UPDATE  keep_updated_at               of what a person sets: sets updated_at
--   AFTER INSERT   follow_created_webhook_url    restarts a stopped webhook endpoint that the rule names
--   AFTER UPDATE   follow_changed_webhook_url    the same
--   AFTER UPDATE   forget_replaced_secret        deletes the secret that signed its notices
--   AFTER UPDATE   suppress_unwatched            closes alerts that the rule no longer watches
--   AFTER DELETE   forget_secret_of_deleted      deletes the secret
--   AFTER all      note_rule                     adds to the audit (chapter 15_audit)
CREATE TABLE routines.alert_rules (
    id                bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT alert_rules_pkey PRIMARY KEY,
    collection_id     bigint NOT NULL,
    name              routines.slug NOT NULL,
    events            text[] NOT NULL,
    task_id           bigint,
    routine_id        bigint CONSTRAINT alert_rules_routine_id_fkey REFERENCES routines.routine_names (routine_id) ON DELETE CASCADE,
    after_seconds     integer CONSTRAINT alert_rules_after_seconds_in_range CHECK (after_seconds BETWEEN 1 AND 2592000),
    streak            integer CONSTRAINT alert_rules_streak_in_range CHECK (streak BETWEEN 2 AND 100),
    webhook_url       text NOT NULL CONSTRAINT alert_rules_webhook_url_is_http
                      CHECK (webhook_url ~ '^[Hh][Tt][Tt][Pp][Ss]?://[^[:space:]/?#@]+([/?#][^[:space:]]*)?$' AND length(webhook_url) <= 2048),
    webhook_secret_id uuid,
    digest_at_utc     time CONSTRAINT alert_rules_digest_at_utc_is_a_minute
                      CHECK (digest_at_utc < '24:00' AND digest_at_utc = date_trunc('minute', digest_at_utc::interval)::time),
    digested_until    timestamptz NOT NULL DEFAULT now(),
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT alert_rules_name_key UNIQUE (collection_id, name),
    CONSTRAINT alert_rules_task_fkey FOREIGN KEY (task_id, collection_id) REFERENCES routines.tasks (id, collection_id) ON DELETE CASCADE,
    CONSTRAINT alert_rules_events_are_known CHECK (
        events <@ '{late,missed,failed,streak,slow,paused,webhook_stopped,recovered}' AND array_position(events, NULL) IS NULL
        AND cardinality(events) <= 8),
    CONSTRAINT alert_rules_events_alert CHECK (events && '{late,missed,failed,streak,slow,paused,webhook_stopped}'),
    CONSTRAINT alert_rules_after_seconds_fits_events CHECK (after_seconds IS NULL OR events && '{late,slow}'),
    CONSTRAINT alert_rules_streak_fits_events CHECK ((streak IS NOT NULL) = ('streak' = ANY (events))),
    CONSTRAINT alert_rules_routine_has_task CHECK (routine_id IS NULL OR task_id IS NOT NULL)
);
CREATE INDEX alert_rules_task_id_idx ON routines.alert_rules (task_id);
CREATE INDEX alert_rules_routine_id_idx ON routines.alert_rules (routine_id);
CREATE INDEX alert_rules_webhook_secret_id_idx ON routines.alert_rules (webhook_secret_id);
COMMENT ON TABLE  routines.alert_rules IS 'What a collection wants to be told of its routines, and where.';
COMMENT ON COLUMN routines.alert_rules.id IS 'Database id, never exposed by HTTP.';
COMMENT ON COLUMN routines.alert_rules.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.alert_rules.name IS 'Unique in its collection.';
COMMENT ON COLUMN routines.alert_rules.events IS
    '`on` in the API. late: a slot has been due for longer than after_seconds and has no outcome. missed: a slot was missed. failed: a slot failed, with its last attempt. streak: so many slots in a row did. slow: a run takes longer than after_seconds, or than three times what is usual. paused: the scheduler paused the routine. webhook_stopped: a webhook of its runs was given up. recovered: an alert of these is over.';
COMMENT ON COLUMN routines.alert_rules.task_id IS 'Watches only routines of this task, with which it is deleted; null for all.';
COMMENT ON COLUMN routines.alert_rules.routine_id IS 'Watches only this routine, with which it is deleted; null for all of the task.';
COMMENT ON COLUMN routines.alert_rules.after_seconds IS
    'For late and slow; null for 60 seconds, and for three times the usual duration of the routine.';
COMMENT ON COLUMN routines.alert_rules.streak IS 'For streak: how many slots; null without it.';
COMMENT ON COLUMN routines.alert_rules.webhook_url IS 'Receives the notices.';
COMMENT ON COLUMN routines.alert_rules.webhook_secret_id IS 'The secret that signs them; null for unsigned.';
COMMENT ON COLUMN routines.alert_rules.digest_at_utc IS 'When its daily digest is sent; null if each alert is told at once.';
COMMENT ON COLUMN routines.alert_rules.digested_until IS 'Up to when the last digest reached. Maintained by the workers.';
COMMENT ON COLUMN routines.alert_rules.created_at IS 'When it was created. What happened before opens no alert.';
COMMENT ON COLUMN routines.alert_rules.updated_at IS 'Its last change by a person.';
SELECT routines.protect('routines.alert_rules');

CREATE FUNCTION routines.watches(rule routines.alert_rules, of_task bigint, of_routine bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN
    coalesce((rule).task_id = of_task, true) AND coalesce((rule).routine_id = of_routine, true);
COMMENT ON FUNCTION routines.watches IS 'Whether a routine is in the scope of a rule of its collection.';

-- No triggers. No foreign keys: an alert outlives its routine, and a deleted rule leaves its alerts to retention.
CREATE TABLE routines.alerts (
    id                 bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT alerts_pkey PRIMARY KEY,
    collection_id      bigint NOT NULL,
    rule_id            bigint NOT NULL,
    routine_id         bigint NOT NULL,
    event              text NOT NULL CONSTRAINT alerts_event_is_known
                       CHECK (event IN ('late', 'missed', 'failed', 'streak', 'slow', 'paused', 'webhook_stopped')),
    subject            text NOT NULL,
    scheduled_for      timestamptz,
    trajectory_id      bigint,
    detail             text NOT NULL,
    opened_at          timestamptz NOT NULL DEFAULT now(),
    closed_at          timestamptz,
    suppressed_reason  text,
    tells_recovery     boolean NOT NULL DEFAULT false,
    notice_id          bigint,
    recovery_notice_id bigint,
    -- The same thing opens no second alert, whatever is evaluated twice.
    CONSTRAINT alerts_subject_key UNIQUE (rule_id, routine_id, event, subject),
    CONSTRAINT alerts_suppression_closes CHECK (suppressed_reason IS NULL OR closed_at IS NOT NULL),
    CONSTRAINT alerts_only_recoveries_are_told CHECK (NOT tells_recovery OR closed_at IS NOT NULL AND suppressed_reason IS NULL)
);
-- Of these a routine has one open alert, since they last; each slot that fails or is missed is an alert of its own.
CREATE UNIQUE INDEX alerts_open_key ON routines.alerts (rule_id, routine_id, event)
    WHERE closed_at IS NULL AND event NOT IN ('missed', 'failed');
-- Open alerts by what closes them. A search by another key says coalesce(closed_at, 'infinity') = 'infinity', which this index
-- cannot answer: see trajectories_active_idx.
CREATE INDEX alerts_open_idx ON routines.alerts (event, routine_id) WHERE closed_at IS NULL;
-- Alerts and recoveries that no notice tells yet.
CREATE INDEX alerts_untold_idx ON routines.alerts (rule_id, id) WHERE notice_id IS NULL AND suppressed_reason IS NULL;
CREATE INDEX alerts_tells_recovery_idx ON routines.alerts (rule_id, id) WHERE tells_recovery;
-- The alerts of a notice; the second also finds the newest notice about late routines.
CREATE INDEX alerts_notice_id_idx ON routines.alerts (notice_id) WHERE notice_id IS NOT NULL;
CREATE INDEX alerts_late_notice_idx ON routines.alerts (rule_id, notice_id) WHERE event = 'late' AND notice_id IS NOT NULL;
CREATE INDEX alerts_recovery_notice_id_idx ON routines.alerts (recovery_notice_id) WHERE recovery_notice_id IS NOT NULL;
-- A collection's alerts, newest first.
CREATE INDEX alerts_collection_id_idx ON routines.alerts (collection_id, id);
COMMENT ON TABLE  routines.alerts IS 'What the rules found: one row for each alert, with its life. As the API shows them: alert_details.';
COMMENT ON COLUMN routines.alerts.id IS 'alert_id in a notice, and `id` in the API.';
COMMENT ON COLUMN routines.alerts.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.alerts.rule_id IS 'The rule that it is of, which may have been deleted.';
COMMENT ON COLUMN routines.alerts.routine_id IS 'The routine, which may have been deleted.';
COMMENT ON COLUMN routines.alerts.event IS 'What happened: see alert_rules.events.';
COMMENT ON COLUMN routines.alerts.subject IS 'What it is about: the slot, the run, the pause or the webhook. Unique for the rule, routine and event.';
COMMENT ON COLUMN routines.alerts.scheduled_for IS 'The slot; the first of several, and of late the first that was; null if it is about none.';
COMMENT ON COLUMN routines.alerts.trajectory_id IS 'The run; null if it is about none.';
COMMENT ON COLUMN routines.alerts.detail IS 'A sentence for people.';
COMMENT ON COLUMN routines.alerts.opened_at IS 'When it was found.';
COMMENT ON COLUMN routines.alerts.closed_at IS 'When it was over, or was suppressed; null while it is open.';
COMMENT ON COLUMN routines.alerts.suppressed_reason IS
    'Why nobody is told any more: the routine was paused by hand or deleted, or the rule was changed; null if it is open or has recovered.';
COMMENT ON COLUMN routines.alerts.tells_recovery IS 'Whether it has recovered and a notice is still to say so.';
COMMENT ON COLUMN routines.alerts.notice_id IS
    'The webhook delivery that tells it, perhaps with others; null if none has been queued.';
COMMENT ON COLUMN routines.alerts.recovery_notice_id IS
    'The delivery that tells its recovery: notice_id again if it had recovered before that was queued; null if none does.';
SELECT routines.protect('routines.alerts');

--------------------------------------------------------------------------------------------------- what is to be judged
-- No triggers. An outbox: what happened is committed with its cause, and deleted in the transaction that opens or closes the
-- alerts. So nothing that commits late is overlooked, as it would be by a worker that went by ids or times. What lasts needs no
-- row here: workers find slots that are due, runs that go on, and starts after an alert.
CREATE TABLE routines.alert_events (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT alert_events_pkey PRIMARY KEY,
    collection_id bigint NOT NULL,
    routine_id    bigint NOT NULL,
    event         text NOT NULL CONSTRAINT alert_events_event_is_known CHECK (event IN (
                  'late', 'missed', 'failed', 'paused', 'webhook_stopped', 'completed', 'held', 'resumed', 'deleted')),
    subject       text,
    scheduled_for timestamptz,
    trajectory_id bigint,
    late_seconds  float8,
    detail        text,
    at            timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE  routines.alert_events IS
    'What happened in collections with rules since the workers last looked: they delete each row as they open or close alerts for it.';
COMMENT ON COLUMN routines.alert_events.id IS 'Database id.';
COMMENT ON COLUMN routines.alert_events.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.alert_events.routine_id IS 'The routine.';
COMMENT ON COLUMN routines.alert_events.event IS
    'An event that opens alerts; or completed (a slot), held (paused by hand), resumed or deleted, which close them.';
COMMENT ON COLUMN routines.alert_events.subject IS 'The subject of an alert that it opens.';
COMMENT ON COLUMN routines.alert_events.scheduled_for IS 'The slot; null if it is about none.';
COMMENT ON COLUMN routines.alert_events.trajectory_id IS 'The run; null if it is about none.';
COMMENT ON COLUMN routines.alert_events.late_seconds IS 'For late: how long the slot had been due when it got its outcome.';
COMMENT ON COLUMN routines.alert_events.detail IS 'The sentence of an alert that it opens, or the reason of a suppression.';
COMMENT ON COLUMN routines.alert_events.at IS 'When it happened.';
SELECT routines.protect('routines.alert_events');

CREATE FUNCTION routines.slot_subject(slot timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN 'slot:' || to_char(slot AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
COMMENT ON FUNCTION routines.slot_subject IS 'The subject of an alert about a slot.';

-- Called by follow_end, and only for the last attempt at a slot. One look, which in a collection without rules is the only one.
CREATE FUNCTION routines.note_end(run routines.trajectories) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    slot timestamptz := run.scheduled_for;
BEGIN
    IF NOT EXISTS (SELECT FROM routines.alert_rules WHERE collection_id = run.collection_id) THEN
        RETURN;
    END IF;
    IF run.retry_of IS NOT NULL THEN
        SELECT scheduled_for INTO slot FROM routines.trajectories WHERE id = run.retry_of;
    END IF;
    IF slot IS NULL THEN
        RETURN;  -- the rerun of a run that was for none
    END IF;
    INSERT INTO routines.alert_events (collection_id, routine_id, event, subject, scheduled_for, trajectory_id, detail)
    VALUES (run.collection_id, run.triggered_by_routine_id, run.status, routines.slot_subject(slot), slot, run.id,
            CASE run.status WHEN 'failed' THEN
                CASE WHEN run.retry_number > 0 THEN (run.retry_number + 1) || ' attempts failed; the last: ' ELSE '' END
                || routines.first_line(coalesce(run.error, 'no error was recorded')) END);
END $$;
COMMENT ON FUNCTION routines.note_end IS 'Notes how the last attempt at a slot ended, if the collection has rules.';

-- Once a statement, since the tick inserts in batches. Slots that a person passed over or settled count as missed, as they do in
-- routine_status.
CREATE FUNCTION routines.note_skips() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM routines.alert_rules) THEN
        RETURN NULL;
    END IF;
    INSERT INTO routines.alert_events (collection_id, routine_id, event, subject, scheduled_for, late_seconds, detail)
    SELECT inserted.collection_id, inserted.routine_id, CASE reason WHEN 'failed_to_start' THEN 'failed' ELSE 'missed' END,
           routines.slot_subject(scheduled_for), scheduled_for, NULL,
           CASE reason WHEN 'failed_to_start' THEN 'it could not start: ' || routines.first_line(coalesce(detail, 'no cause was recorded'))
                ELSE CASE WHEN slot_count > 1 THEN slot_count || ' slots were missed, the last at ' || routines.utc(last_scheduled_for)
                          ELSE 'the slot was missed' END || ': ' || coalesce(detail, 'no ticker ran in time') END
    FROM inserted
    WHERE reason IN ('missed', 'failed_to_start')
      AND EXISTS (SELECT FROM routines.alert_rules WHERE alert_rules.collection_id = inserted.collection_id)
    UNION ALL
    -- A tick that came late for the slot, which then started nothing.
    SELECT collection_id, routine_id, 'late', routines.slot_subject(scheduled_for), scheduled_for, late_seconds,
           'the slot was skipped ' || routines.duration_in_words(late_seconds) || ' after it was due'
    FROM (SELECT inserted.*, extract(epoch FROM recorded_at - scheduled_for
                                                - coalesce(due_at - last_scheduled_for, '0'))::float8 AS late_seconds
          FROM inserted WHERE reason IN ('overlap', 'failed_to_start', 'backoff', 'missed')) AS skipped
    WHERE routines.is_late_for_a_rule(collection_id, late_seconds);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_skips IS 'Notes slots that were missed, could not start, or were skipped late, in collections with rules.';

CREATE FUNCTION routines.is_late_for_a_rule(of_collection bigint, late_seconds float8) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT late_seconds > 0 AND EXISTS (
        SELECT FROM routines.alert_rules
        WHERE collection_id = of_collection AND 'late' = ANY (events) AND coalesce(after_seconds, 60) < late_seconds);
$$;
COMMENT ON FUNCTION routines.is_late_for_a_rule IS 'Whether a rule of this collection calls a slot late that got its outcome so long after it was due.';

CREATE TRIGGER note_skips AFTER INSERT ON routines.skips
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION routines.note_skips();

CREATE FUNCTION routines.seconds_late(slot timestamptz, due_at timestamptz, at timestamptz) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN slot IS NOT NULL THEN extract(epoch FROM at - coalesce(due_at, slot))::float8 END;
COMMENT ON FUNCTION routines.seconds_late IS 'How long a slot had been due at this time, in seconds; null for no slot.';

-- A slot that was late between two looks of the workers.
CREATE FUNCTION routines.note_late_runs(run_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO routines.alert_events (collection_id, routine_id, event, subject, scheduled_for, trajectory_id, late_seconds, detail, at)
    SELECT collection_id, triggered_by_routine_id, 'late', routines.slot_subject(scheduled_for), scheduled_for, id, late_seconds,
           'it started ' || routines.duration_in_words(late_seconds) || ' after it was due', created_at
    FROM routines.trajectories, LATERAL routines.seconds_late(scheduled_for, due_at, created_at) AS late_seconds
    WHERE id = ANY (run_ids) AND routines.is_late_for_a_rule(collection_id, late_seconds);
END $$;
COMMENT ON FUNCTION routines.note_late_runs IS 'Notes those of these runs whose slots were late, in collections with a rule that calls them so.';

CREATE FUNCTION routines.note_late_starts() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM routines.alert_rules) THEN
        PERFORM routines.note_late_runs(late.ids)
        FROM (SELECT array_agg(id) AS ids FROM inserted
              WHERE routines.is_late_for_a_rule(collection_id, routines.seconds_late(scheduled_for, due_at, created_at))) AS late
        WHERE late.ids IS NOT NULL;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_late_starts IS 'Notes slots that started late.';
CREATE TRIGGER note_late_starts AFTER INSERT ON routines.trajectories
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION routines.note_late_starts();

-- The run that waited for a place is now that of another slot: a later one, unless the cadence was changed. See take_over_waiting_run.
CREATE FUNCTION routines.note_late_takeover() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM routines.note_late_runs(ARRAY[NEW.id]);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_late_takeover IS 'Notes a late slot that took over the run of another.';
CREATE TRIGGER note_late_takeover AFTER UPDATE OF scheduled_for ON routines.trajectories
    FOR EACH ROW WHEN (OLD.scheduled_for IS DISTINCT FROM NEW.scheduled_for) EXECUTE FUNCTION routines.note_late_takeover();

CREATE FUNCTION routines.note_pause() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO routines.alert_events (collection_id, routine_id, event, subject, detail)
    SELECT OLD.collection_id, OLD.id,
           CASE WHEN TG_OP = 'DELETE' THEN 'deleted' WHEN NOT NEW.paused THEN 'resumed'
                WHEN NEW.paused_reason IS NULL THEN 'held' ELSE 'paused' END,
           'pause:' || routines.utc(NEW.paused_at),
           CASE WHEN TG_OP = 'DELETE' THEN 'the routine was deleted'
                WHEN NOT NEW.paused THEN NULL
                WHEN NEW.paused_reason IS NULL THEN 'the routine was '
                    || routines.pause_in_words(NULL, NEW.paused_at, NEW.paused_until, NEW.paused_note)
                ELSE NEW.paused_reason END
    WHERE EXISTS (SELECT FROM routines.alert_rules WHERE collection_id = OLD.collection_id);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_pause IS 'Notes that a routine was paused, resumed or deleted, if its collection has rules.';
CREATE TRIGGER note_pause AFTER UPDATE OF paused, paused_reason ON routines.routines
    FOR EACH ROW WHEN ((OLD.paused, OLD.paused_reason) IS DISTINCT FROM (NEW.paused, NEW.paused_reason)) EXECUTE FUNCTION routines.note_pause();
CREATE TRIGGER note_deletion AFTER DELETE ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.note_pause();

----------------------------------------------------------------------------------------------------- changes of a rule
CREATE FUNCTION routines.keep_rule_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;
COMMENT ON FUNCTION routines.keep_rule_updated_at IS 'Sets when a person last changed a rule.';
CREATE TRIGGER keep_updated_at
    BEFORE UPDATE OF name, events, task_id, routine_id, after_seconds, streak, webhook_url, webhook_secret_id, digest_at_utc
    ON routines.alert_rules FOR EACH ROW EXECUTE FUNCTION routines.keep_rule_updated_at();

CREATE TRIGGER follow_created_webhook_url AFTER INSERT ON routines.alert_rules
    FOR EACH ROW EXECUTE FUNCTION routines.restart_endpoint();
CREATE TRIGGER follow_changed_webhook_url AFTER UPDATE OF webhook_url ON routines.alert_rules
    FOR EACH ROW WHEN (NEW.webhook_url IS DISTINCT FROM OLD.webhook_url) EXECUTE FUNCTION routines.restart_endpoint();

CREATE FUNCTION routines.forget_secret_of_rule() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM routines.forget_secrets(ARRAY[OLD.webhook_secret_id], NULL, NULL);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.forget_secret_of_rule IS 'Deletes the secret that a rule no longer refers to, unless a due notice needs it.';
CREATE TRIGGER forget_replaced_secret AFTER UPDATE OF webhook_secret_id ON routines.alert_rules
    FOR EACH ROW WHEN (OLD.webhook_secret_id IS DISTINCT FROM NEW.webhook_secret_id AND OLD.webhook_secret_id IS NOT NULL)
    EXECUTE FUNCTION routines.forget_secret_of_rule();
CREATE TRIGGER forget_secret_of_deleted AFTER DELETE ON routines.alert_rules
    FOR EACH ROW WHEN (OLD.webhook_secret_id IS NOT NULL) EXECUTE FUNCTION routines.forget_secret_of_rule();

-- In the order in which workers close alerts.
CREATE FUNCTION routines.suppress_unwatched() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    WITH unwatched AS MATERIALIZED (
        SELECT id FROM routines.alerts
        WHERE rule_id = NEW.id AND closed_at IS NULL
          AND NOT (event = ANY (NEW.events) AND routines.watches(NEW, (
              SELECT task_id FROM routines.routines WHERE routines.id = alerts.routine_id), alerts.routine_id))
        ORDER BY alerts.routine_id, id FOR UPDATE
    )
    UPDATE routines.alerts SET closed_at = now(), suppressed_reason = 'the rule no longer watches it'
    WHERE id = ANY (ARRAY(SELECT id FROM unwatched));
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.suppress_unwatched IS 'Closes open alerts of events and routines that a rule no longer watches.';
CREATE TRIGGER suppress_unwatched AFTER UPDATE OF events, task_id, routine_id ON routines.alert_rules
    FOR EACH ROW WHEN ((OLD.events, OLD.task_id, OLD.routine_id) IS DISTINCT FROM (NEW.events, NEW.task_id, NEW.routine_id))
    EXECUTE FUNCTION routines.suppress_unwatched();

----------------------------------------------------------------------------------------------------- rounds of workers
-- No triggers.
CREATE TABLE routines.alert_rounds (
    what   text CONSTRAINT alert_rounds_pkey PRIMARY KEY
           CONSTRAINT alert_rounds_what_is_known CHECK (what IN ('events', 'late', 'slow', 'ends', 'notices', 'recoveries', 'digests')),
    ran_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 10);
INSERT INTO routines.alert_rounds (what) VALUES ('events'), ('late'), ('slow'), ('ends'), ('notices'), ('recoveries'), ('digests');
COMMENT ON TABLE  routines.alert_rounds IS
    'When a worker last ran each statement of queries/alerts.sql. The statement locks its row, so that one worker runs it at a time.';
COMMENT ON COLUMN routines.alert_rounds.what IS 'The statement.';
COMMENT ON COLUMN routines.alert_rounds.ran_at IS 'When it last ran.';

-- SKIP LOCKED: another worker is at it. A time in the future is that of a clock that was set back since.
CREATE FUNCTION routines.take_alert_turn(of_round text, every_seconds float8, at timestamptz) RETURNS timestamptz
LANGUAGE sql VOLATILE AS $$
    UPDATE routines.alert_rounds SET ran_at = coalesce(at, now())
    WHERE what = (SELECT what FROM routines.alert_rounds
                  WHERE what = of_round AND EXISTS (SELECT FROM routines.alert_rules)
                    AND (every_seconds IS NULL OR ran_at > coalesce(at, now())
                         OR ran_at <= coalesce(at, now()) - make_interval(secs => every_seconds))
                  FOR UPDATE SKIP LOCKED)
    RETURNING ran_at;
$$;
COMMENT ON FUNCTION routines.take_alert_turn IS
    'Takes the turn to run a statement of queries/alerts.sql until the end of the transaction, and returns the time to judge by: `at`, or now. Null if another session has it, one had it less than every_seconds ago, or there are no rules.';

-- Row by row and notice by notice, because a statement that joins a batch with the table may compare each with each.
CREATE FUNCTION routines.started_since(of_routine bigint, slot timestamptz) RETURNS timestamptz LANGUAGE sql STABLE
RETURN (SELECT created_at FROM routines.trajectories
        WHERE triggered_by_routine_id = of_routine AND scheduled_for >= slot ORDER BY scheduled_for LIMIT 1);
COMMENT ON FUNCTION routines.started_since IS
    'When the routine started on schedule for this slot or the next one that ran; null if it has not. This is the end of its being late.';

CREATE FUNCTION routines.close_alert(alert_id bigint, at timestamptz, reason text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE routines.alerts
    SET closed_at = greatest(at, opened_at), suppressed_reason = reason,
        tells_recovery = reason IS NULL AND EXISTS (
            SELECT FROM routines.alert_rules WHERE alert_rules.id = rule_id AND 'recovered' = ANY (events))
    WHERE id = alert_id AND coalesce(closed_at, 'infinity') = 'infinity';
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION routines.close_alert IS
    'Closes an alert that is over, or with a reason one that is suppressed. Returns whether it was open.';

CREATE FUNCTION routines.note_notice(alert_ids bigint[], told_by bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    noted integer;
BEGIN
    UPDATE routines.alerts
    SET notice_id = coalesce(notice_id, told_by), recovery_notice_id = CASE WHEN tells_recovery THEN told_by END, tells_recovery = false
    WHERE id = ANY (alert_ids);
    GET DIAGNOSTICS noted = ROW_COUNT;
    RETURN noted;
END $$;
COMMENT ON FUNCTION routines.note_notice IS
    'Notes in alerts the webhook delivery that tells them: their opening if none does yet, and their recovery if they are over. Returns their number.';
