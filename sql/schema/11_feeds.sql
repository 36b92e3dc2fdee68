-- Calendar feeds: secret addresses at which a calendar program reads the coming slots without an API key. Statements: queries/feeds.sql.

-- Triggers:
--   AFTER INSERT, UPDATE or DELETE  note_feed  adds to the audit (chapter 15_audit); a reading is no change
--
-- A feed is deleted with its task or routine.
CREATE TABLE routines.feeds (
    id            bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT feeds_pkey PRIMARY KEY,
    collection_id bigint NOT NULL CONSTRAINT feeds_collection_id_fkey REFERENCES routines.collections (id),
    task_id       bigint,
    routine_id    bigint CONSTRAINT feeds_routine_id_fkey REFERENCES routines.routine_names (routine_id) ON UPDATE CASCADE ON DELETE CASCADE,
    secret_hash   bytea NOT NULL CONSTRAINT feeds_secret_hash_is_sha256 CHECK (octet_length(secret_hash) = 32),
    pepper_id     uuid NOT NULL CONSTRAINT feeds_pepper_id_fkey REFERENCES routines.peppers (id),
    created_at    timestamptz NOT NULL DEFAULT now(),
    last_used_at  timestamptz,
    tokens        float8,
    filled_at     timestamptz,
    CONSTRAINT feeds_task_fkey FOREIGN KEY (task_id, collection_id) REFERENCES routines.tasks (id, collection_id) ON DELETE CASCADE,
    CONSTRAINT feeds_routine_has_task CHECK (routine_id IS NULL OR task_id IS NOT NULL)
) WITH (fillfactor = 50);
CREATE INDEX feeds_collection_id_idx ON routines.feeds (collection_id, id);
CREATE INDEX feeds_task_id_idx ON routines.feeds (task_id);
CREATE INDEX feeds_routine_id_idx ON routines.feeds (routine_id);
COMMENT ON TABLE  routines.feeds IS
    'Calendar feeds, rtf_<id>_<secret><checksum>. The secret is shown once, at creation; only its hash is stored.';
COMMENT ON COLUMN routines.feeds.id IS 'The <id> of its token, and `id` in the API.';
COMMENT ON COLUMN routines.feeds.collection_id IS 'The tenant.';
COMMENT ON COLUMN routines.feeds.task_id IS 'The task whose routines it shows; null for all tasks.';
COMMENT ON COLUMN routines.feeds.routine_id IS 'The routine that it shows; null for all routines.';
COMMENT ON COLUMN routines.feeds.secret_hash IS 'HMAC-SHA256 of the secret part, keyed with the pepper, as in api_keys.';
COMMENT ON COLUMN routines.feeds.pepper_id IS 'The pepper that keys its hash.';
COMMENT ON COLUMN routines.feeds.created_at IS 'When it was created.';
COMMENT ON COLUMN routines.feeds.last_used_at IS 'When it was last read, to the minute; null if never.';
COMMENT ON COLUMN routines.feeds.tokens IS 'How often it could be read at once at filled_at; null if it was never read.';
COMMENT ON COLUMN routines.feeds.filled_at IS 'When tokens was computed.';
SELECT routines.protect('routines.feeds');

-- The next three functions are all that a feed's token may do. They run as the owner, and no collection is named once they have
-- returned, so the rest of the transaction sees nothing.
CREATE FUNCTION routines.feed_to_check(of_feed bigint)
RETURNS TABLE (secret_hash bytea, pepper_id uuid, collection_id bigint, title text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 1 AS $$
BEGIN
    PERFORM set_config('routines.collection_id', '', true);
    RETURN QUERY
    SELECT feeds.secret_hash, feeds.pepper_id, feeds.collection_id, concat_ws('/', collections.name, tasks.name, routine_names.name)
    FROM routines.feeds
    JOIN routines.collections ON collections.id = feeds.collection_id
    LEFT JOIN routines.tasks ON tasks.id = feeds.task_id
    LEFT JOIN routines.routine_names ON routine_names.routine_id = feeds.routine_id AND routine_names.collection_id = feeds.collection_id
    WHERE feeds.id = of_feed;
END $$;
COMMENT ON FUNCTION routines.feed_to_check IS
    'The hash of one feed, to compare a token with, its tenant, and what it shows: collection/task/routine. No collection is named afterwards.';

CREATE FUNCTION routines.take_feed_tokens(of_feed bigint, wanted float8, rate float8, burst float8) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    clock timestamptz := clock_timestamp();
BEGIN
    PERFORM set_config('routines.collection_id', '', true);
    UPDATE routines.feeds
    SET tokens = least(burst, coalesce(tokens + rate * greatest(0, extract(epoch FROM clock - filled_at)::float8), burst)) - wanted,
        filled_at = greatest(filled_at, clock), last_used_at = date_trunc('minute', clock)
    WHERE id = of_feed
      AND least(burst, coalesce(tokens + rate * greatest(0, extract(epoch FROM clock - filled_at)::float8), burst)) >= wanted;
    RETURN FOUND;
END $$;
COMMENT ON FUNCTION routines.take_feed_tokens IS
    'Takes `wanted` tokens out of a feed''s bucket, which holds at most `burst` and gains `rate` per second, and records that it was read. Returns false if it holds too few.';

-- Most cron routines need no computing: the slots in `upcoming` reach that far. slots_between is in the chapter on planning.
CREATE FUNCTION routines.slots_of_routines(ids bigint[], firsts timestamptz[], from_time timestamptz, until_time timestamptz)
RETURNS TABLE (routine_id bigint, slot timestamptz) LANGUAGE plpgsql STABLE ROWS 1000 AS $$
BEGIN
    RETURN QUERY
    SELECT due.id, due.first_slot
    FROM unnest(ids, firsts) AS due (id, first_slot)
    JOIN routines.routines AS routine ON routine.id = due.id
    WHERE due.first_slot >= from_time AND due.first_slot < until_time
      AND CASE WHEN routines.has_exclusions(routine) THEN NOT routines.is_excluded(routine, first_slot) ELSE true END
    UNION ALL
    SELECT routine.id, coming.slot
    FROM unnest(ids, firsts) AS due (id, first_slot)
    JOIN routines.routines AS routine ON routine.id = due.id
    CROSS JOIN LATERAL unnest(CASE
        WHEN upcoming[1] <= first_slot AND upcoming[cardinality(upcoming)] >= until_time THEN upcoming
        ELSE ARRAY(SELECT routines.slots_between(routines.cadence_of(routine), greatest(from_time, first_slot), until_time))
        END) AS coming (slot)
    WHERE first_slot < until_time AND coming.slot > first_slot AND coming.slot >= from_time AND coming.slot < until_time
      AND CASE WHEN routines.has_exclusions(routine) THEN NOT routines.is_excluded(routine, coming.slot) ELSE true END;
END $$;
COMMENT ON FUNCTION routines.slots_of_routines IS
    'The slots of these routines at or after from_time and before until_time, given the first coming slot of each, without those that calendars or active hours exclude.';

-- Finds first where the answer ends: at until_time, at the first slot of a routine beyond routine_limit, or at the slot beyond slot_limit.
-- It has all slots before that; if there is none, because too many routines begin together, some of them. The spans that are searched grow, so that few slots are computed in vain.
CREATE FUNCTION routines.feed_slots(
    of_feed bigint, from_time timestamptz, until_time timestamptz, slot_limit integer, routine_limit integer
) RETURNS TABLE (routine_id bigint, routine text, cadence text, updated_at timestamptz, seconds float8, slots timestamptz[],
                 complete_until timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 10 AS $$
#variable_conflict use_column
DECLARE
    feed     routines.feeds;
    ids      bigint[];
    firsts   timestamptz[];
    complete timestamptz;
    end_time timestamptz;
    upto     timestamptz;
    beyond   timestamptz;
    hours    integer;
BEGIN
    PERFORM set_config('routines.collection_id', '', true);
    SELECT * INTO feed FROM routines.feeds WHERE id = of_feed;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'feed % is unknown or was revoked', of_feed USING ERRCODE = 'RT404';
    END IF;
    PERFORM set_config('routines.collection_id', feed.collection_id::text, true);
    SELECT array_agg(id ORDER BY first_slot, id), array_agg(first_slot ORDER BY first_slot, id) INTO ids, firsts
    FROM (SELECT routines.id, first_slot
          FROM routines.routine_names
          JOIN routines.routines ON routines.id = routine_names.routine_id
          CROSS JOIN LATERAL (SELECT coalesce(routines.without_spread(routines, next_run_at),
                                              routines.slot_after_pause(routines)) AS kept) AS planned
          -- One that has not fired yet is not shown. It would count as the earliest slot of all.
          CROSS JOIN LATERAL (SELECT CASE WHEN kept < from_time
                                          THEN routines.next_fire(routines.cadence_of(routines), from_time - interval '1 microsecond')
                                          ELSE kept END AS first_slot) AS coming
          WHERE routine_names.collection_id = feed.collection_id
            AND (feed.task_id IS NULL OR routine_names.task_id = feed.task_id OR routine_names.routine_id = feed.routine_id)
            AND (feed.routine_id IS NULL OR routine_names.routine_id = feed.routine_id)
            AND first_slot < until_time
          ORDER BY first_slot, routines.id LIMIT routine_limit + 1) AS chosen;
    complete := firsts[routine_limit + 1];
    -- If more than routine_limit routines begin together, it shows so many of them, since a calendar without events would mislead.
    end_time := CASE WHEN complete IS NULL THEN until_time ELSE greatest(complete, firsts[1] + interval '1 microsecond') END;
    ids := ids[:routine_limit];
    firsts := firsts[:routine_limit];
    FOREACH hours IN ARRAY '{1,6,36,216,NULL}'::integer[] LOOP
        upto := least(from_time + make_interval(hours => hours), end_time);
        beyond := (SELECT slot FROM routines.slots_of_routines(ids, firsts, from_time, upto) ORDER BY slot OFFSET slot_limit LIMIT 1);
        end_time := coalesce(beyond, end_time);
        complete := least(complete, beyond);
        EXIT WHEN beyond IS NOT NULL OR upto = end_time;
    END LOOP;
    RETURN QUERY
    WITH coming AS MATERIALIZED (
        SELECT routine_id, array_agg(slot ORDER BY slot) AS slots FROM routines.slots_of_routines(ids, firsts, from_time, end_time) GROUP BY 1
    ),
    shown AS MATERIALIZED (
        SELECT routines.id, routines.task_id, routines.name, routines.cadence_of(routines) AS cadence, routines.updated_at, coming.slots
        FROM coming JOIN routines.routines ON routines.id = coming.routine_id
    ),
    lasting AS MATERIALIZED (
        SELECT task_id, routines.usual_seconds(task_id) AS seconds FROM (SELECT DISTINCT task_id FROM shown) AS of_shown
    )
    SELECT shown.id, concat_ws('/', tasks.name, shown.name), routines.cadence_in_words(shown.cadence) || CASE WHEN (shown.cadence).timezone IS NULL THEN ' (UTC)' ELSE '' END, shown.updated_at, lasting.seconds,
           shown.slots, complete
    FROM shown JOIN routines.tasks ON tasks.id = shown.task_id JOIN lasting ON lasting.task_id = shown.task_id
    ORDER BY 2;
    PERFORM set_config('routines.collection_id', '', true);
END $$;
COMMENT ON FUNCTION routines.feed_slots IS
    'What a feed shows: its routines with their slots at or after from_time, all those before until_time, or before complete_until if there are more than slot_limit slots or routine_limit routines; if so many begin together, some of the slots at complete_until. Raises RT404 for a feed that does not exist. No collection is named afterwards.';
REVOKE EXECUTE ON FUNCTION routines.feed_to_check, routines.take_feed_tokens, routines.feed_slots FROM PUBLIC;
