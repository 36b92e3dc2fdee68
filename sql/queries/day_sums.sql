-- Sums of days, made by workers: see chapter 14_day_sums of the schema. Each statement is a transaction and returns how many rows it
-- handled, a full batch if there are more. `now` moves the clock in tests.

-- name: sum_up_next
SELECT routines.sum_up_next(%(batch_size)s::integer, coalesce(%(now)s::timestamptz, now())) AS handled;

-- name: sum_up_changed
SELECT routines.sum_up_changed(%(batch_size)s::integer) AS handled;

-- name: forget
SELECT routines.forget_day_sums(%(batch_size)s::integer) AS handled;
