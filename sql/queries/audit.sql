-- The audit as the API shows it. Read only, since triggers write it.

-- name: list_changes
-- The changes in the key's collection, newest first, before the entry in the cursor. A null kind matches any. The parameters alone switch
-- each branch on or off, so that one plan serves a rare kind by its own index. The page ends once its fields take `page_bytes`, with
-- is_cut in its last row.
WITH collection AS MATERIALIZED (SELECT routines.collection_of_key(%(key_id)s::routines.caller) AS id),
page AS (
    SELECT * FROM (
        (SELECT * FROM routines.audit
         WHERE coalesce(%(kind)s::text = 'routine', true) AND (%(kind)s::text IS NULL OR kind = 'routine')
           AND collection_id = ANY (ARRAY[(SELECT id FROM collection)]) AND id < %(before)s::bigint
         ORDER BY collection_id DESC, id DESC LIMIT %(limit)s::integer)
        UNION ALL
        (SELECT * FROM routines.audit
         WHERE %(kind)s::text <> 'routine' AND kind <> 'routine' AND kind = %(kind)s::text
           AND collection_id = ANY (ARRAY[(SELECT id FROM collection)]) AND id < %(before)s::bigint
         ORDER BY collection_id DESC, id DESC LIMIT %(limit)s::integer)
    ) AS found
)
SELECT id, at, actor, kind, action, CASE WHEN kind = 'routine' THEN routines.name_of_task(task_id) END AS task_name, name,
       CASE WHEN kind = 'routine' THEN object_id END AS routine_id, revision, before, after,
       has_next AND total >= %(page_bytes)s::bigint AS is_cut
FROM (
    SELECT *, sum(size) OVER (ORDER BY id DESC) AS total, lead(id) OVER (ORDER BY id DESC) IS NOT NULL AS has_next
    FROM (SELECT *, octet_length(before::text) + octet_length(after::text) AS size FROM page) AS sized
) AS measured
WHERE total - size < %(page_bytes)s::bigint
ORDER BY id DESC;

-- name: list_revisions
-- The changes of a routine, newest first, before the revision in the cursor. Ends a page as list_changes does.
WITH page AS (
    SELECT * FROM routines.audit
    WHERE kind = 'routine' AND object_id = ANY (ARRAY[%(routine_id)s::bigint]) AND revision < %(before)s::bigint
      AND collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller))
    ORDER BY object_id DESC, last_run_id DESC, revision DESC LIMIT %(limit)s::integer
)
SELECT id, at, actor, kind, action, routines.name_of_task(task_id) AS task_name, name, object_id AS routine_id, revision, before, after,
       has_next AND total >= %(page_bytes)s::bigint AS is_cut
FROM (
    SELECT *, sum(size) OVER (ORDER BY revision DESC) AS total, lead(id) OVER (ORDER BY revision DESC) IS NOT NULL AS has_next
    FROM (SELECT *, octet_length(before::text) + octet_length(after::text) AS size FROM page) AS sized
) AS measured
WHERE total - size < %(page_bytes)s::bigint
ORDER BY revision DESC;

-- name: find_spec
-- What a routine was to do at a revision. No row if the audit does not have that revision.
SELECT routines.spec_at(object_id, revision) AS spec
FROM routines.audit
WHERE kind = 'routine' AND object_id = %(routine_id)s::bigint AND revision = %(revision)s::bigint
  AND collection_id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller));
