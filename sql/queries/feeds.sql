-- Calendar feeds. The first three statements are for an API key; the others are all that a feed's token may do.

-- name: create_feed
-- A feed of the key's collection, of one of its tasks, or of one routine. No row if the task or the routine does not exist.
INSERT INTO routines.feeds (collection_id, task_id, routine_id, secret_hash, pepper_id)
SELECT collections.id, tasks.id, routine_names.routine_id, %(secret_hash)s::bytea, %(pepper_id)s::uuid
FROM routines.collections
LEFT JOIN routines.tasks ON tasks.collection_id = collections.id AND tasks.name = %(task)s::text
LEFT JOIN routines.routine_names ON routine_names.task_id = tasks.id AND routine_names.name = %(routine)s::text
WHERE collections.id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
  AND (%(task)s::text IS NULL OR tasks.id IS NOT NULL)
  AND (%(routine)s::text IS NULL OR routine_names.routine_id IS NOT NULL)
RETURNING id;

-- name: list_feeds
-- Oldest first, after the feed in the cursor.
SELECT feeds.id, tasks.name AS task, routine_names.name AS routine, feeds.created_at, feeds.last_used_at
FROM routines.feeds
LEFT JOIN routines.tasks ON tasks.id = feeds.task_id
LEFT JOIN routines.routine_names ON routine_names.routine_id = feeds.routine_id
WHERE feeds.collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
  AND feeds.id > coalesce(%(after)s::bigint, 0)
ORDER BY feeds.id
LIMIT %(limit)s::integer;

-- name: delete_feed
DELETE FROM routines.feeds
WHERE collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller)) AND id = %(feed_id)s::bigint;

-- name: find_feed
SELECT secret_hash, pepper_id, collection_id, title FROM routines.feed_to_check(%(feed_id)s::bigint);

-- name: take_feed_tokens
SELECT is_taken FROM routines.take_feed_tokens(
    %(feed_id)s::bigint, %(wanted)s::float8, %(rate)s::float8, %(burst)s::float8) AS is_taken;

-- name: feed_slots
-- The coming slots of so many days. `now` moves the clock in tests.
SELECT routine_id, routine, cadence, updated_at, seconds, slots, complete_until
FROM routines.feed_slots(
    %(feed_id)s::bigint, coalesce(%(now)s::timestamptz, now()),
    coalesce(%(now)s::timestamptz, now()) + make_interval(hours => 24 * %(days)s::integer),
    %(slot_limit)s::integer, %(routine_limit)s::integer);
