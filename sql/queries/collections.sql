-- Collections as the API sees them: a key knows its own.

-- name: find_collection
SELECT name, description, created_at FROM routines.collections
WHERE id = (SELECT routines.collection_of_key(%(key_id)s::routines.caller));
