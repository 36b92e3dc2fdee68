-- The audit: each change of a routine, task, key, limit, calendar, feed, rule or environment, with who made it, and what was before and
-- after. Triggers write it, so a statement typed in psql leaves its trace too. Why this design: docs/decisions/0028. Statements:
-- queries/audit.sql.

-- No triggers. Programs may read it and not write it; the worker deletes old entries.
CREATE TABLE routines.audit (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT audit_pkey PRIMARY KEY,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    collection_id bigint,
    kind          text NOT NULL CONSTRAINT audit_kind_is_known
                  CHECK (kind IN ('routine', 'task', 'key', 'limit', 'calendar', 'feed', 'rule', 'environment')),
    action        text NOT NULL CONSTRAINT audit_action_is_known CHECK (action IN ('created', 'changed', 'deleted')),
    object_id     bigint,
    task_id       bigint,
    name          text,
    revision      integer,
    last_run_id   bigint,
    before        jsonb NOT NULL,
    after         jsonb NOT NULL,
    actor         text NOT NULL,
    key_id        bigint,
    login         text NOT NULL DEFAULT session_user
);
CREATE INDEX audit_collection_id_idx ON routines.audit (collection_id, id);
-- Entries of other kinds are few among those of routines.
CREATE INDEX audit_kind_idx ON routines.audit (collection_id, kind, id) WHERE kind <> 'routine';
-- Revisions of a routine. Neither column ever decreases from one to the next, so the order of both is that of revisions.
CREATE INDEX audit_revisions_idx ON routines.audit (object_id, last_run_id, revision) WHERE kind = 'routine';
-- Versions of a task, which has few entries.
CREATE INDEX audit_versions_idx ON routines.audit (object_id, id) WHERE kind = 'task';
COMMENT ON TABLE  routines.audit IS
    'Who changed what. Only triggers write it; entries are never changed, and only the owner deletes one younger than a week. Field by field: TABLE routines.changes;';
COMMENT ON COLUMN routines.audit.id IS 'Later changes of the same object have greater ids.';
COMMENT ON COLUMN routines.audit.at IS 'When it was changed, by the clock; the change could be seen a moment later, once it was committed.';
COMMENT ON COLUMN routines.audit.collection_id IS 'The tenant; null for a limit of all collections.';
COMMENT ON COLUMN routines.audit.kind IS 'routine, task, key, limit, calendar, feed, rule or environment.';
COMMENT ON COLUMN routines.audit.action IS 'created, changed or deleted.';
COMMENT ON COLUMN routines.audit.object_id IS 'The id of the routine, task, key, calendar or feed; null for limits and the environment.';
COMMENT ON COLUMN routines.audit.task_id IS 'Of a routine: its task.';
COMMENT ON COLUMN routines.audit.name IS 'What it was called then, or the name of the limit; the id of a key or a feed; null for the environment.';
COMMENT ON COLUMN routines.audit.revision IS 'Of a routine: the number of this change, from 1, its creation; null for other kinds.';
COMMENT ON COLUMN routines.audit.last_run_id IS
    'Of a routine: the greatest id that a run had at this change, any run; 0 if there was none; null for other kinds. Runs of the routine with a greater id have this revision, or a later one.';
COMMENT ON COLUMN routines.audit.before IS 'The fields that changed, as they were, in the words of the API. A field that is missing had no value.';
COMMENT ON COLUMN routines.audit.after IS 'The same fields as they are since. A secret reads as ********, and as changed where it was replaced.';
COMMENT ON COLUMN routines.audit.actor IS
    'Who changed it: key 7 (by HTTP), operator (by HTTP with the operator''s token), scheduler (a ticker or a worker), or login and the name of the login.';
COMMENT ON COLUMN routines.audit.key_id IS 'The API key; null if none was used.';
COMMENT ON COLUMN routines.audit.login IS 'The login of the database session, that of the program included. No session can choose it.';
SELECT routines.protect('routines.audit');
-- A worker that has been taken over cannot hide what was changed in the last week. Restrictive: besides the other policies.
CREATE POLICY kept ON routines.audit AS RESTRICTIVE FOR DELETE
    USING (at < now() - interval '7 days' OR (SELECT routines.is_owner()));

-------------------------------------------------------------------------------------------------------------------- who
-- A session can set routines.key_id to any key, and only one that may call open_collection is believed: that of the API, which has
-- checked the key, and the owner's. `role` is what SET ROLE has chosen, and session_user the login, also while the triggers run as
-- the owner. Key 0 stands for an operator, who has none: see open_as_operator.
CREATE FUNCTION routines.actor(OUT actor text, OUT key_id bigint) LANGUAGE plpgsql STABLE AS $$
DECLARE
    role text := coalesce(nullif(current_setting('role'), 'none'), session_user);
BEGIN
    IF nullif(current_setting('routines.key_id', true), '') IS NOT NULL
       AND has_function_privilege(role, 'routines.open_collection(bigint)'::regprocedure, 'EXECUTE') THEN
        key_id := nullif(routines.current_key(), 0);
        actor := coalesce('key ' || key_id, 'operator');
    ELSIF role IN ('routines_ticker', 'routines_worker') THEN
        actor := 'scheduler';
    ELSE
        actor := 'login ' || session_user;
    END IF;
END $$;
COMMENT ON FUNCTION routines.actor IS 'Who makes the present change, and with which API key.';

------------------------------------------------------------------------------------------------------------------- what
CREATE FUNCTION routines.exact_utc(at timestamptz) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
RETURN replace(to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '.000000', '');
COMMENT ON FUNCTION routines.exact_utc IS 'A time as JSON has it, whatever the time zone of the session: 2026-05-04T09:00:00Z, with microseconds if it has any.';

-- A name whose secret is not the one of `earlier` reads as changed; without `earlier` none does.
CREATE FUNCTION routines.masked(secret_refs jsonb, earlier jsonb DEFAULT NULL) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT jsonb_object_agg(key, CASE WHEN value <> earlier -> key THEN 'changed' ELSE '********' END)
    FROM jsonb_each(secret_refs);
$$;
COMMENT ON FUNCTION routines.masked IS
    'Secrets as the audit shows them: {"TOKEN": "********"}, or changed if there was another one of the name; null for none.';

-- Plain SQL, which disappears from the statements of the triggers. Columns that the scheduler writes, or that follow from others,
-- are not in it: a test wants each column of routines to be here or among those. Without nulls, except in what the user sent.
CREATE FUNCTION routines.spec_of(routine routines.routines) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE
RETURN jsonb_strip_nulls(jsonb_build_object(
    'name', (routine).name,
    'cadence', jsonb_build_object(
        'type', (routine).cadence_type, 'hour_utc', (routine).hour_utc,
        'minute_utc', CASE WHEN (routine).cadence_type IN ('hourly', 'daily', 'weekdays', 'weekly') THEN (routine).minute_utc END,
        'day_of_week', (routine).day_of_week, 'expression', (routine).expression, 'timezone', (routine).timezone,
        'every_minutes', (routine).every_minutes, 'anchor', routines.exact_utc((routine).anchor),
        'at', routines.exact_utc((routine).once_at)),
    'starts_at', routines.exact_utc((routine).starts_at),
    'ends_at', routines.exact_utc((routine).ends_at),
    'init_params_from_slot', (routine).init_params_from_slot,
    'secret_params', CASE WHEN (routine).secret_refs <> '{}' THEN routines.masked((routine).secret_refs) END,
    'webhook_url', (routine).webhook_url,
    'webhook_secret', CASE WHEN (routine).webhook_secret_id IS NOT NULL THEN '********' END,
    'paused', (routine).paused,
    'paused_reason', (routine).paused_reason,
    'paused_until', routines.exact_utc((routine).paused_until),
    'paused_note', (routine).paused_note,
    'calendar', (routine).calendar,
    'active_hours', (routine).active_hours,
    'overlap_policy', (routine).overlap_policy,
    'max_concurrent', (routine).max_concurrent,
    'catchup_window_seconds', (routine).catchup_window_seconds,
    'timeout_seconds', (routine).timeout_seconds,
    'retry', (routine).retry,
    'pause_after_failures', (routine).pause_after_failures,
    'then', (routine).after_failures,
    'spread_seconds', (routine).spread_seconds
)) || jsonb_build_object('init_params_overrides', (routine).init_params_overrides);
COMMENT ON FUNCTION routines.spec_of IS
    'What a person decides about a routine, in the words of the API and without fields that are not set. Secrets are masked.';

CREATE FUNCTION routines.name_of_task(of_task bigint) RETURNS text LANGUAGE sql STABLE
RETURN coalesce((SELECT name FROM routines.tasks WHERE id = of_task), (SELECT name FROM routines.deleted_tasks WHERE id = of_task));
COMMENT ON FUNCTION routines.name_of_task IS 'The name of a task, or its last one if it was deleted.';

CREATE FUNCTION routines.note_change(
    kind text, operation text, collection_id bigint, object_id bigint, name text, before jsonb, after jsonb,
    task_id bigint DEFAULT NULL, revision integer DEFAULT NULL, last_run_id bigint DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_variable
BEGIN
    INSERT INTO routines.audit (collection_id, kind, action, object_id, task_id, name, revision, last_run_id, before, after, actor, key_id)
    SELECT collection_id, kind, CASE operation WHEN 'INSERT' THEN 'created' WHEN 'UPDATE' THEN 'changed' ELSE 'deleted' END,
           object_id, task_id, name, revision, last_run_id,
           CASE WHEN operation = 'UPDATE' THEN (SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(before)
                                                WHERE value IS DISTINCT FROM after -> key) ELSE before END,
           CASE WHEN operation = 'UPDATE' THEN (SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(after)
                                                WHERE value IS DISTINCT FROM before -> key) ELSE after END,
           who.actor, who.key_id
    FROM routines.actor() AS who WHERE before <> after;
END $$;
COMMENT ON FUNCTION routines.note_change IS
    'Adds an entry to the audit, by the current session, for a trigger: the fields that differ, or none if all are the same. `before` or `after` is {} where the object did not exist.';

--------------------------------------------------------------------------------------------------------------- routines
-- A fire, too, locks the routine, and draws the id of its run after that. So each run fired before a change has an id up to this one,
-- and each run fired after it a greater one. A slot that takes over a waiting run draws an id as well (taken_over_as). Times have
-- no such order: a change that began first may wait for a fire.
CREATE FUNCTION routines.last_run_id() RETURNS bigint LANGUAGE sql VOLATILE
RETURN coalesce(pg_sequence_last_value('routines.trajectories_id_seq'::regclass), 0);
COMMENT ON FUNCTION routines.last_run_id IS 'The greatest id that a run has been given; 0 if there was none yet.';

-- A session keeps the plan of its triggers. One made while the audit was nearly empty would read all of it, so none may.
--
-- Once per statement, so that an import of many routines pays little for each. A routine that comes back under its old id goes on
-- with its revisions.
CREATE FUNCTION routines.note_new_routines() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    INSERT INTO routines.audit (collection_id, kind, action, object_id, task_id, name, revision, last_run_id, before, after, actor, key_id)
    SELECT made.collection_id, 'routine', 'created', made.id, made.task_id, made.name, coalesce(earlier.revision, 0) + 1,
           routines.last_run_id(), '{}', routines.spec_of(made), who.actor, who.key_id
    FROM inserted AS made CROSS JOIN routines.actor() AS who
    LEFT JOIN LATERAL (SELECT revision FROM routines.audit
                       WHERE kind = 'routine' AND object_id = made.id
                       ORDER BY object_id DESC, last_run_id DESC, revision DESC LIMIT 1) AS earlier ON true;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_new_routines IS 'Adds an entry to the audit for each new routine.';
CREATE TRIGGER note_new_routines AFTER INSERT ON routines.routines
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION routines.note_new_routines();

CREATE FUNCTION routines.note_routine() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    before  jsonb := routines.spec_of(OLD);
    after   jsonb := CASE TG_OP WHEN 'UPDATE' THEN routines.spec_of(NEW) ELSE '{}' END;
    current routines.routines := CASE TG_OP WHEN 'UPDATE' THEN NEW ELSE OLD END;
    earlier integer;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.secret_refs <> OLD.secret_refs AND NEW.secret_refs <> '{}' THEN
            after := after || jsonb_build_object('secret_params', routines.masked(NEW.secret_refs, OLD.secret_refs));
        END IF;
        IF NEW.webhook_secret_id <> OLD.webhook_secret_id THEN
            after := after || '{"webhook_secret": "changed"}';
        END IF;
        IF NEW.task_id <> OLD.task_id THEN
            before := before || jsonb_build_object('task_name', routines.name_of_task(OLD.task_id));
            after := after || jsonb_build_object('task_name', routines.name_of_task(NEW.task_id));
        END IF;
        IF before = after THEN
            RETURN NULL;
        END IF;
    END IF;
    SELECT revision INTO earlier FROM routines.audit
    WHERE kind = 'routine' AND object_id = current.id ORDER BY object_id DESC, last_run_id DESC, revision DESC LIMIT 1;
    PERFORM routines.note_change(
        'routine', TG_OP, current.collection_id, current.id, current.name, before, after, current.task_id,
        coalesce(earlier, 0) + 1, routines.last_run_id());
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_routine IS 'Adds an entry to the audit when a person, or the scheduler, changes what a routine is to do, or deletes it.';
-- The columns that the tick writes with each fire are not among these, so a fire does not call it.
CREATE TRIGGER note_changed_routine AFTER UPDATE OF collection_id, task_id, name, cadence_type, hour_utc, minute_utc, day_of_week, expression,
        timezone, every_minutes, anchor, once_at, starts_at, ends_at, init_params_overrides, init_params_from_slot, secret_refs,
        webhook_url, webhook_secret_id, paused, paused_reason, paused_until, paused_note, calendar, active_hours, overlap_policy,
        max_concurrent, catchup_window_seconds, timeout_seconds, retry, pause_after_failures, after_failures, spread_seconds
    ON routines.routines FOR EACH ROW EXECUTE FUNCTION routines.note_routine();
CREATE TRIGGER note_deleted_routine AFTER DELETE ON routines.routines
    FOR EACH ROW EXECUTE FUNCTION routines.note_routine();

-- Of two changes of a field since, the earlier one has the value that it had then. Reads the later revisions only.
CREATE FUNCTION routines.spec_at(of_routine bigint, at_revision integer) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_object_agg(key, value) FILTER (WHERE value IS NOT NULL), '{}') FROM (
        SELECT DISTINCT ON (key) key, value FROM (
            SELECT key, before -> key AS value, revision
            FROM routines.audit CROSS JOIN LATERAL jsonb_object_keys(before || after) AS key
            WHERE kind = 'routine' AND object_id = of_routine AND revision > at_revision
            UNION ALL
            SELECT key, value, 2147483647
            FROM routines.routines CROSS JOIN LATERAL jsonb_each(routines.spec_of(routines))
            WHERE routines.id = of_routine) AS known
        ORDER BY key, revision) AS at_that_time;
$$;
COMMENT ON FUNCTION routines.spec_at IS
    'What spec_of returned for a routine at a revision. SELECT jsonb_pretty(routines.spec_at(42, 3));';

CREATE FUNCTION routines.revision_of_run(run bigint) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT (SELECT revision FROM routines.audit
            WHERE kind = 'routine' AND object_id = first.triggered_by_routine_id AND last_run_id < coalesce(first.taken_over_as, first.id)
            ORDER BY object_id DESC, last_run_id DESC, revision DESC LIMIT 1)
    FROM routines.trajectories JOIN routines.trajectories AS first ON first.id = coalesce(trajectories.retry_of, trajectories.id)
    WHERE trajectories.id = run;
$$;
COMMENT ON FUNCTION routines.revision_of_run IS
    'The revision of its routine that a run was fired with, for a retry that of the run which failed first; null if no routine started it, or if the audit does not go back so far.';

-------------------------------------------------------------------------------------------------------------- the others
-- A workflow with a number that jsonb does not have is kept as text, since the audit refuses no change.
CREATE FUNCTION routines.workflow_of(of_task bigint, of_version integer) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    found text := (SELECT workflow FROM routines.task_versions WHERE task_id = of_task AND version = of_version);
BEGIN
    RETURN found::jsonb;
EXCEPTION
    WHEN data_exception THEN RETURN to_jsonb(found);
END $$;
COMMENT ON FUNCTION routines.workflow_of IS 'The workflow of a version of a task; null if the version does not exist.';

CREATE FUNCTION routines.note_task() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before  jsonb := '{}';
    after   jsonb := '{}';
    current routines.tasks := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        before := jsonb_strip_nulls(jsonb_build_object(
            'name', OLD.name, 'description', OLD.description, 'version', OLD.version,
            'max_concurrent_runs', OLD.max_concurrent_runs));
    END IF;
    IF TG_OP <> 'DELETE' THEN
        after := jsonb_strip_nulls(jsonb_build_object(
            'name', NEW.name, 'description', NEW.description, 'version', NEW.version,
            'max_concurrent_runs', NEW.max_concurrent_runs));
    END IF;
    IF before -> 'version' IS DISTINCT FROM after -> 'version' THEN
        before := before || CASE WHEN TG_OP <> 'INSERT' THEN jsonb_build_object('workflow', routines.workflow_of(OLD.id, OLD.version))
                                 ELSE '{}' END;
        after := after || CASE WHEN TG_OP <> 'DELETE' THEN jsonb_build_object('workflow', routines.workflow_of(NEW.id, NEW.version))
                               ELSE '{}' END;
    END IF;
    PERFORM routines.note_change('task', TG_OP, current.collection_id, current.id, current.name, before, after);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_task IS 'Adds an entry to the audit when a task is created, changed or deleted, with its workflow where that is another one.';
CREATE TRIGGER note_task AFTER INSERT OR DELETE OR UPDATE OF name, description, version, max_concurrent_runs ON routines.tasks
    FOR EACH ROW EXECUTE FUNCTION routines.note_task();

CREATE FUNCTION routines.note_key() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before  jsonb := CASE WHEN TG_OP <> 'INSERT' THEN jsonb_strip_nulls(jsonb_build_object(
        'expires_at', routines.exact_utc(OLD.expires_at), 'revoked_at', routines.exact_utc(OLD.revoked_at), 'secret', '********'))
        ELSE '{}' END;
    after   jsonb := CASE WHEN TG_OP <> 'DELETE' THEN jsonb_strip_nulls(jsonb_build_object(
        'expires_at', routines.exact_utc(NEW.expires_at), 'revoked_at', routines.exact_utc(NEW.revoked_at), 'secret', '********'))
        ELSE '{}' END;
    current routines.api_keys := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    IF TG_OP = 'UPDATE' AND (OLD.secret_hash, OLD.pepper_id) <> (NEW.secret_hash, NEW.pepper_id) THEN
        after := after || '{"secret": "changed"}';
    END IF;
    PERFORM routines.note_change('key', TG_OP, current.collection_id, current.id, current.id::text, before, after);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_key IS 'Adds an entry to the audit when an API key is created, revoked or deleted, or when its end or its secret changes.';
CREATE TRIGGER note_key AFTER INSERT OR DELETE OR UPDATE OF collection_id, secret_hash, pepper_id, expires_at, revoked_at ON routines.api_keys
    FOR EACH ROW EXECUTE FUNCTION routines.note_key();

CREATE FUNCTION routines.note_limit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    current routines.collection_limits := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    -- With null, which is a value: no limit.
    PERFORM routines.note_change(
        'limit', TG_OP, current.collection_id, NULL, current.name,
        CASE WHEN TG_OP <> 'INSERT' THEN jsonb_build_object('value', OLD.value) ELSE '{}' END,
        CASE WHEN TG_OP <> 'DELETE' THEN jsonb_build_object('value', NEW.value) ELSE '{}' END);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_limit IS 'Adds an entry to the audit when a limit is set, changed or reset.';
CREATE TRIGGER note_limit AFTER INSERT OR UPDATE OR DELETE ON routines.collection_limits
    FOR EACH ROW EXECUTE FUNCTION routines.note_limit();

CREATE FUNCTION routines.note_calendar() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    current routines.calendars := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    PERFORM routines.note_change(
        'calendar', TG_OP, current.collection_id, current.id, current.name,
        CASE WHEN TG_OP <> 'INSERT' THEN jsonb_strip_nulls(jsonb_build_object('timezone', OLD.timezone, 'days', OLD.days)) ELSE '{}' END,
        CASE WHEN TG_OP <> 'DELETE' THEN jsonb_strip_nulls(jsonb_build_object('timezone', NEW.timezone, 'days', NEW.days)) ELSE '{}' END);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_calendar IS 'Adds an entry to the audit when a calendar is created, changed or deleted.';
CREATE TRIGGER note_calendar AFTER INSERT OR UPDATE OR DELETE ON routines.calendars
    FOR EACH ROW EXECUTE FUNCTION routines.note_calendar();

CREATE FUNCTION routines.note_feed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    current routines.feeds := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    -- A feed that goes with its task or routine comes too late for their names.
    shown   jsonb := jsonb_strip_nulls(jsonb_build_object(
        'token', '********',
        'task', CASE WHEN current.task_id IS NOT NULL THEN coalesce(routines.name_of_task(current.task_id), '(deleted)') END,
        'routine', CASE WHEN current.routine_id IS NOT NULL THEN coalesce(
            (SELECT name FROM routines.routine_names WHERE routine_id = current.routine_id), '(deleted)') END));
BEGIN
    PERFORM routines.note_change(
        'feed', TG_OP, current.collection_id, current.id, current.id::text,
        CASE TG_OP WHEN 'INSERT' THEN '{}' WHEN 'DELETE' THEN shown ELSE '{"token": "********"}' END,
        CASE TG_OP WHEN 'INSERT' THEN shown WHEN 'DELETE' THEN '{}' ELSE '{"token": "changed"}' END);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_feed IS 'Adds an entry to the audit when a calendar feed is created or revoked, or when its token changes.';
CREATE TRIGGER note_feed AFTER INSERT OR DELETE OR UPDATE OF secret_hash, pepper_id ON routines.feeds
    FOR EACH ROW EXECUTE FUNCTION routines.note_feed();

-- A rule that goes with its task or routine comes too late for their names.
CREATE FUNCTION routines.spec_of_rule(rule routines.alert_rules) RETURNS jsonb LANGUAGE sql STABLE
RETURN jsonb_strip_nulls(jsonb_build_object(
    'on', (rule).events, 'after_seconds', (rule).after_seconds, 'streak', (rule).streak,
    'task', CASE WHEN (rule).task_id IS NOT NULL THEN coalesce(routines.name_of_task((rule).task_id), '(deleted)') END,
    'routine', CASE WHEN (rule).routine_id IS NOT NULL THEN coalesce(
        (SELECT name FROM routines.routine_names WHERE routine_id = (rule).routine_id), '(deleted)') END,
    'webhook_url', (rule).webhook_url,
    'webhook_secret', CASE WHEN (rule).webhook_secret_id IS NOT NULL THEN '********' END,
    'digest_at_utc', to_char((rule).digest_at_utc, 'HH24:MI')));
COMMENT ON FUNCTION routines.spec_of_rule IS 'What a person decides about an alert rule, in the words of the API and without fields that are not set. The secret is masked.';

CREATE FUNCTION routines.note_rule() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before  jsonb := CASE TG_OP WHEN 'INSERT' THEN '{}' ELSE routines.spec_of_rule(OLD) END;
    after   jsonb := CASE TG_OP WHEN 'DELETE' THEN '{}' ELSE routines.spec_of_rule(NEW) END;
    current routines.alert_rules := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.webhook_secret_id <> NEW.webhook_secret_id THEN
        after := after || '{"webhook_secret": "changed"}';
    END IF;
    PERFORM routines.note_change('rule', TG_OP, current.collection_id, current.id, current.name, before, after);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_rule IS 'Adds an entry to the audit when an alert rule is created, changed or deleted.';
CREATE TRIGGER note_rule AFTER INSERT OR DELETE OR UPDATE OF collection_id, name, events, task_id, routine_id, after_seconds, streak, webhook_url,
        webhook_secret_id, digest_at_utc ON routines.alert_rules
    FOR EACH ROW EXECUTE FUNCTION routines.note_rule();

CREATE FUNCTION routines.note_collection() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM routines.note_change(
        'limit', TG_OP, NEW.id, NULL, 'max_concurrent_runs',
        jsonb_build_object('value', OLD.max_concurrent_runs), jsonb_build_object('value', NEW.max_concurrent_runs));
    PERFORM routines.note_change(
        'environment', TG_OP, NEW.id, NULL, NULL,
        coalesce(routines.masked(OLD.environment_refs), '{}'),
        coalesce(routines.masked(NEW.environment_refs, OLD.environment_refs), '{}'));
    RETURN NULL;
END $$;
COMMENT ON FUNCTION routines.note_collection IS 'Adds an entry to the audit when the environment of a collection changes, or how many runs it may have at once.';
CREATE TRIGGER note_collection AFTER UPDATE OF environment_refs, max_concurrent_runs ON routines.collections
    FOR EACH ROW EXECUTE FUNCTION routines.note_collection();

-- Otherwise a login that has a table of its own could have its triggers call these, and write what it likes.
REVOKE EXECUTE ON FUNCTION routines.actor, routines.last_run_id, routines.note_change, routines.note_new_routines, routines.note_routine, routines.note_task,
    routines.note_key, routines.note_limit, routines.note_calendar, routines.note_feed, routines.note_rule, routines.note_collection FROM PUBLIC;

----------------------------------------------------------------------------------------------------------------- at psql
CREATE VIEW routines.changes WITH (security_invoker = true) AS
    SELECT audit.at, actor, action, kind,
           concat_ws('/', collections.name, CASE WHEN kind = 'routine' THEN routines.name_of_task(audit.task_id) END, audit.name) AS what,
           audit.revision, field, before -> field AS before, after -> field AS after, login, audit.id, audit.object_id, audit.collection_id
    FROM routines.audit
    LEFT JOIN routines.collections ON collections.id = audit.collection_id
    CROSS JOIN LATERAL jsonb_object_keys(before || after) AS field;
COMMENT ON VIEW routines.changes IS
    'Who changed what, a row for each field. SELECT * FROM routines.changes WHERE what = ''demo/hello/every-hour'' ORDER BY id DESC;';
COMMENT ON COLUMN routines.changes.at IS 'When it was changed.';
COMMENT ON COLUMN routines.changes.actor IS 'Who changed it: key 7, operator, scheduler, or login alice.';
COMMENT ON COLUMN routines.changes.action IS 'created, changed or deleted.';
COMMENT ON COLUMN routines.changes.kind IS 'routine, task, key, limit, calendar, feed, rule or environment.';
COMMENT ON COLUMN routines.changes.what IS
    'The collection and what was changed in it: collection/task/name for a routine, with the name that it had then; without a collection, a limit of all collections.';
COMMENT ON COLUMN routines.changes.revision IS 'Of a routine: the number of this change, from 1.';
COMMENT ON COLUMN routines.changes.field IS 'The field, in the words of the API.';
COMMENT ON COLUMN routines.changes.before IS 'Its value before; null if it had none.';
COMMENT ON COLUMN routines.changes.after IS 'Its value since; null if it has none. A secret reads as ********, and as changed where it was replaced.';
COMMENT ON COLUMN routines.changes.login IS 'The login of the database session that changed it.';
COMMENT ON COLUMN routines.changes.id IS 'The entry of the audit. Fields of one entry were changed together.';
COMMENT ON COLUMN routines.changes.object_id IS 'The id of the routine, task, key, calendar or feed.';
COMMENT ON COLUMN routines.changes.collection_id IS 'The tenant; null for a limit of all collections.';
