-- How many runs of a collection or a task workers may have claimed at once.

-- name: list_limits
-- Every limit, with the number of claimed runs that count towards it now.
SELECT collections.name AS collection, NULL::text AS task, collections.max_concurrent_runs,
       (SELECT count(*) FROM routines.limited_runs WHERE collection_id = collections.id) AS claimed
FROM routines.collections WHERE collections.max_concurrent_runs IS NOT NULL
UNION ALL
SELECT collections.name, tasks.name, tasks.max_concurrent_runs,
       (SELECT count(*) FROM routines.limited_runs WHERE task_id = tasks.id)
FROM routines.tasks JOIN routines.collections ON collections.id = tasks.collection_id
WHERE tasks.max_concurrent_runs IS NOT NULL
ORDER BY collection, task NULLS FIRST;

-- name: limit_collection
UPDATE routines.collections SET max_concurrent_runs = %(most)s::integer WHERE name = %(collection)s::text;

-- name: limit_task
UPDATE routines.tasks SET max_concurrent_runs = %(most)s::integer
FROM routines.collections
WHERE collections.id = tasks.collection_id AND collections.name = %(collection)s::text AND tasks.name = %(task)s::text;
