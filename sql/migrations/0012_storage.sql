-- How the hot tables are stored, where a measurement supports it: 20,000 runs of two steps each, autovacuum off.

-- A step is inserted as running and updated once, in no indexed column. With room on its page 70 % of these updates were
-- HOT, against 33 % at fillfactor 70 and none at 100. Its dead versions are cleaned as those of its run.
ALTER TABLE routines.steps SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

-- Left alone: trajectories at fillfactor 50, where 82 % of the updates were HOT and the rest are ends of runs, which leave
-- the partial indexes and cannot be; routines, where no fire is HOT at any fillfactor, since it moves next_run_at in its
-- index: moving names and their index to a table of their own would win 6 % of the fires, and cost a join everywhere
-- else; skips, which are only inserted.
