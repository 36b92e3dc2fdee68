-- Cron expressions: the fields of Debian's crontab(5), with L, LW, 15W, MON#1 and 5L, in any time zone.
--
-- An expression is parsed into a rule: the days that it matches, and the minutes of such a day. Slots are found in these two stages,
-- so a search reads days, not minutes. On a day without a clock change nearby, a minute of the day is a constant away from UTC. Only
-- near a change is each minute converted by itself.
--
-- Summer time, by Debian's rule: if neither the minute nor the hour field begins with *, a time in the gap becomes the first minute
-- after it, and a time in the overlap counts once, the first time. All other expressions go by real time: nothing in the gap, and both
-- times in the overlap.
--
-- These functions are declared IMMUTABLE although they change with the server's time zone data, as timezone(text, timestamptz) is.

CREATE TYPE routines.cron_rule AS (
    is_real_time boolean,
    minutes      integer[],
    months       integer[],
    is_either    boolean,
    days         integer[],
    near_days    integer[],
    weekdays     integer[],
    nth_weekdays integer[]
);
COMMENT ON TYPE routines.cron_rule IS 'A parsed cron expression.';
COMMENT ON COLUMN routines.cron_rule.is_real_time IS 'True if the minute or the hour field begins with *: then it goes by real time when clocks change.';
COMMENT ON COLUMN routines.cron_rule.minutes IS 'Minutes of the day, 0-1439, ascending.';
COMMENT ON COLUMN routines.cron_rule.months IS 'Months, 1-12.';
COMMENT ON COLUMN routines.cron_rule.is_either IS 'True if a day needs to match only one of its two fields, because neither begins with *.';
COMMENT ON COLUMN routines.cron_rule.days IS 'Days of the month, 1-31; 32 for the last.';
COMMENT ON COLUMN routines.cron_rule.near_days IS 'Days of the month whose nearest weekday matches, 1-31; 32 for the last.';
COMMENT ON COLUMN routines.cron_rule.weekdays IS 'Days of the week, 0-6, Sunday first.';
COMMENT ON COLUMN routines.cron_rule.nth_weekdays IS 'Ten times the day of the week, plus its number in the month, 1-5; or plus 6 for the last.';

------------------------------------------------------------------------------------------------------------------ parsing
CREATE FUNCTION routines.refuse_expression(rule text) RETURNS void LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RAISE EXCEPTION USING MESSAGE = 'expression: ' || rule, ERRCODE = 'check_violation', CONSTRAINT = 'routines_expression_is_valid';
END $$;
COMMENT ON FUNCTION routines.refuse_expression IS 'Raises the error of a cron expression that is not valid.';

CREATE FUNCTION routines.cron_names(field text) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE field
    WHEN 'month' THEN '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}'::text[]
    WHEN 'day of week' THEN '{sun,mon,tue,wed,thu,fri,sat}'::text[]
    ELSE '{}'::text[] END;
COMMENT ON FUNCTION routines.cron_names IS 'The names that a field of a cron expression takes, in the order of their numbers.';

-- Returns null for anything that is not a number or a name of the field; the caller refuses it.
CREATE FUNCTION routines.cron_number(field text, word text, low integer, high integer) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN CASE
    WHEN word ~ '^[0-9]{1,4}$' THEN CASE WHEN word::integer BETWEEN low AND high THEN word::integer END
    ELSE array_position(routines.cron_names(field), word) - 1 + CASE field WHEN 'month' THEN 1 ELSE 0 END END;
COMMENT ON FUNCTION routines.cron_number IS 'The number that a word of a cron expression stands for; null if it stands for none.';

-- Returns null for anything that is neither a star, a number nor a range; the caller refuses it.
CREATE FUNCTION routines.cron_numbers(field text, item text, low integer, high integer) RETURNS integer[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    part   text[] := regexp_match(item, '^(?:(\*)|([a-z0-9]+)(?:-([a-z0-9]+))?)(?:/([0-9]{1,4}))?$');
    first  integer := CASE WHEN part[1] IS NOT NULL THEN low ELSE routines.cron_number(field, part[2], low, high) END;
    last   integer := CASE WHEN part[1] IS NOT NULL THEN CASE field WHEN 'day of week' THEN 6 ELSE high END
                           WHEN part[3] IS NULL THEN first
                           ELSE routines.cron_number(field, part[3], low, high) END;
    step   integer := coalesce(part[4]::integer, 1);
BEGIN
    -- fri-sun ends on the Sunday after Friday.
    IF part[3] = 'sun' AND last < first THEN
        last := 7;
    END IF;
    IF part IS NULL OR first IS NULL OR last IS NULL OR first > last OR step = 0
       OR part[4] IS NOT NULL AND part[1] IS NULL AND part[3] IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN ARRAY(SELECT CASE WHEN field = 'day of week' THEN number % 7 ELSE number END
                 FROM generate_series(first, last, step) AS number);
END $$;
COMMENT ON FUNCTION routines.cron_numbers IS 'The numbers that an item of a list in a cron expression stands for; null if it is not valid.';

CREATE FUNCTION routines.cron_rule(expression text) RETURNS routines.cron_rule LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    labels  text[] := '{minute,hour,day of month,month,day of week}';
    lows    integer[] := '{0,0,1,1,0}';
    highs   integer[] := '{59,23,31,12,7}';
    allowed text[] := ARRAY[
        '0-59, *, a range such as 1-5, a step such as */15 or 10-40/5, or a list of these',
        '0-23, *, a range such as 9-17, a step such as */2 or 8-18/2, or a list of these',
        '1-31, *, a range such as 1-7, a step such as */2, L (the last), LW (the last weekday), 15W (the weekday nearest to the 15th), or a list of these',
        '1-12, jan to dec, *, a range such as 1-3, a step such as */3, or a list of these',
        '0-7 (0 and 7 are Sunday), sun to sat, *, a range such as mon-fri, a step such as */2, mon#1 (the first Monday), 5L (the last Friday), or a list of these'];
    text    text := lower(regexp_replace(expression, '^\s+|\s+$', '', 'g'));
    fields  text[];
    item    text;
    part    text[];
    found   integer[];
    sets    integer[][] := '{}';
    rule    routines.cron_rule;
    hours   integer[];
    minutes integer[];
BEGIN
    text := coalesce(CASE text WHEN '@yearly' THEN '0 0 1 1 *' WHEN '@annually' THEN '0 0 1 1 *' WHEN '@monthly' THEN '0 0 1 * *'
        WHEN '@weekly' THEN '0 0 * * 0' WHEN '@daily' THEN '0 0 * * *' WHEN '@midnight' THEN '0 0 * * *'
        WHEN '@hourly' THEN '0 * * * *' END, text);
    fields := regexp_split_to_array(text, '\s+');
    IF length(expression) > 1000 THEN
        PERFORM routines.refuse_expression('must be at most 1000 characters long');
    ELSIF text LIKE '@%' THEN
        PERFORM routines.refuse_expression(format(
            'must be @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly or five fields, not %s', to_json(left(expression, 40))));
    ELSIF text = '' OR cardinality(fields) <> 5 THEN
        PERFORM routines.refuse_expression(format(
            'must have five fields, minute hour day-of-month month day-of-week, such as "30 9 * * mon-fri"; %s has %s',
            to_json(left(expression, 40)), CASE text WHEN '' THEN 0 ELSE cardinality(fields) END));
    END IF;
    rule.near_days := '{}';
    rule.nth_weekdays := '{}';
    FOR field IN 1 .. 5 LOOP
        found := '{}';
        FOREACH item IN ARRAY string_to_array(fields[field], ',') LOOP
            IF field = 3 AND item ~ '^(l|lw|0*([1-9]|[12][0-9]|3[01])w)$' AND length(item) <= 5 THEN
                part := regexp_match(item, '^([0-9]*)(l?)(w?)$');
                IF part[3] = 'w' THEN
                    rule.near_days := rule.near_days || CASE part[2] WHEN 'l' THEN 32 ELSE part[1]::integer END;
                ELSE
                    found := found || 32;
                END IF;
            ELSIF field = 5 AND item ~ '^([0-7]|sun|mon|tue|wed|thu|fri|sat)(l|#[1-5])$' THEN
                part := regexp_match(item, '^(.*?)(?:l|#([1-5]))$');
                rule.nth_weekdays := rule.nth_weekdays
                    || routines.cron_number('day of week', part[1], 0, 7) % 7 * 10 + coalesce(part[2]::integer, 6);
            ELSIF routines.cron_numbers(labels[field], item, lows[field], highs[field]) IS NULL THEN
                PERFORM routines.refuse_expression(format('%s must be %s, not %s%s', labels[field], allowed[field],
                    to_json(left(fields[field], 40)),
                    CASE WHEN item ~ '^[a-z0-9]+/[0-9]+$' THEN format(
                        ': write %s-%s/%s for a step', split_part(item, '/', 1), highs[field], split_part(item, '/', 2)) ELSE '' END));
            ELSE
                found := found || routines.cron_numbers(labels[field], item, lows[field], highs[field]);
            END IF;
        END LOOP;
        found := ARRAY(SELECT DISTINCT number FROM unnest(found) AS number ORDER BY number);
        CASE field WHEN 1 THEN minutes := found;
                   WHEN 2 THEN hours := found;
                   WHEN 3 THEN rule.days := found;
                   WHEN 4 THEN rule.months := found;
                   ELSE rule.weekdays := found; END CASE;
    END LOOP;
    rule.minutes := ARRAY(SELECT hour * 60 + minute FROM unnest(hours) AS hour, unnest(minutes) AS minute ORDER BY hour, minute);
    rule.is_real_time := fields[1] LIKE '*%' OR fields[2] LIKE '*%';
    rule.is_either := fields[3] NOT LIKE '*%' AND fields[5] NOT LIKE '*%';
    RETURN rule;
END $$;
COMMENT ON FUNCTION routines.cron_rule IS
    'Parses a cron expression; raises an error that names the field and what it takes. Try: SELECT (routines.cron_rule(''*/15 9-17 * * mon-fri'')).*;';

CREATE FUNCTION routines.cron_rules(expression jsonb) RETURNS routines.cron_rule[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ARRAY(SELECT routines.cron_rule(each) FROM unnest(routines.cron_expressions(expression)) AS each);
COMMENT ON FUNCTION routines.cron_rules IS 'The parsed expressions of a cadence; raises an error for one that cannot be parsed.';

--------------------------------------------------------------------------------------------------------------------- days
CREATE FUNCTION routines.nearest_weekdays(days integer[], month_begin date) RETURNS integer[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN ARRAY(
    SELECT day + CASE extract(dow FROM month_begin + (day - 1))
        WHEN 6 THEN CASE day WHEN 1 THEN 2 ELSE -1 END
        WHEN 0 THEN CASE day WHEN length THEN -2 ELSE 1 END
        ELSE 0 END
    FROM (SELECT extract(day FROM month_begin + interval '1 month' - interval '1 day')::integer AS length) AS month,
         LATERAL (SELECT CASE given WHEN 32 THEN length ELSE given END AS day FROM unnest(days) AS given) AS wished
    WHERE day <= length);
COMMENT ON FUNCTION routines.nearest_weekdays IS
    'The weekdays nearest to these days of a month, within the month; 32 stands for its last day.';

CREATE FUNCTION routines.cron_matches(rule routines.cron_rule, day date) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    number     integer := extract(day FROM day);
    weekday    integer := extract(dow FROM day);
    length     integer := extract(day FROM date_trunc('month', day::timestamp) + interval '1 month' - interval '1 day');
    is_day     boolean;
    is_weekday boolean;
BEGIN
    is_day := number = ANY (rule.days) OR number = length AND 32 = ANY (rule.days)
        OR rule.near_days <> '{}' AND number = ANY (routines.nearest_weekdays(rule.near_days, day - (number - 1)));
    is_weekday := weekday = ANY (rule.weekdays) OR weekday * 10 + (number + 6) / 7 = ANY (rule.nth_weekdays)
        OR number + 7 > length AND weekday * 10 + 6 = ANY (rule.nth_weekdays);
    RETURN CASE WHEN rule.is_either THEN is_day OR is_weekday ELSE is_day AND is_weekday END;
END $$;
COMMENT ON FUNCTION routines.cron_matches IS 'Returns true if a parsed cron expression matches a day of one of its months.';

-- 28 years in a row without a change of century have every kind of year there is: each of seven weekdays on which a year may begin,
-- with and without a leap day. The first year is tried first, because nearly every expression has a day in it.
CREATE FUNCTION routines.is_cron(expression jsonb) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    given text;
    rule  routines.cron_rule;
BEGIN
    IF jsonb_typeof(expression) NOT IN ('string', 'array')
       OR jsonb_typeof(expression) = 'array' AND (
           jsonb_array_length(expression) NOT BETWEEN 1 AND 10
           OR EXISTS (SELECT FROM jsonb_array_elements(expression) AS each WHERE jsonb_typeof(each) <> 'string')) THEN
        PERFORM routines.refuse_expression('must be a string, or an array of 1 to 10 strings');
    END IF;
    FOREACH given IN ARRAY routines.cron_expressions(expression) LOOP
        rule := routines.cron_rule(given);
        IF NOT EXISTS (SELECT FROM generate_series(0, 365) AS day 
                       WHERE extract(month FROM date '2001-01-01' + day) = ANY (rule.months)
                         AND routines.cron_matches(rule, date '2001-01-01' + day))
           AND NOT EXISTS (SELECT FROM generate_series(366, 10226) AS day 
                       WHERE extract(month FROM date '2001-01-01' + day) = ANY (rule.months)
                         AND routines.cron_matches(rule, date '2001-01-01' + day)) THEN
            PERFORM routines.refuse_expression(format('never comes: no year has a day that matches %s', to_json(left(given, 40))));
        END IF;
    END LOOP;
    RETURN true;
END $$;
COMMENT ON FUNCTION routines.is_cron IS
    'Returns true for a cron expression or an array of up to 10; raises an error that says what is wrong with any other value.';

-------------------------------------------------------------------------------------------------------------------- slots
-- A day is even if clocks do not change from the day before to the day after. Its slots then fall on no other day.
CREATE FUNCTION routines.cron_days(rules routines.cron_rule[], zone text, first_day date, last_day date)
RETURNS TABLE (day date, is_even boolean, rule_number bigint) LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 100 AS $$
    SELECT day, timezone(zone, (day + 2)::timestamp) - timezone(zone, (day - 1)::timestamp) = interval '72 hours', rule_number
    FROM (SELECT first_day + number AS day FROM generate_series(0, last_day - first_day) AS number) AS days
    CROSS JOIN unnest(rules) WITH ORDINALITY AS rule (
        is_real_time, minutes, months, is_either, days, near_days, weekdays, nth_weekdays, rule_number)
    WHERE extract(month FROM day) = ANY (months) AND routines.cron_matches(rules[rule_number], day);
$$;
COMMENT ON FUNCTION routines.cron_days IS 'The days that parsed expressions match, once for each that does.';

-- On an even day, a minute is found by its offset from the day's beginning. Minutes outside the range are left out before they become
-- times. Near a change, a time may fall on the day before or after.
CREATE FUNCTION routines.cron_slots(rules routines.cron_rule[], zone text, after timestamptz, until timestamptz)
RETURNS SETOF timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 100 AS $$
    WITH span AS MATERIALIZED (SELECT timezone(zone, after) AS first, timezone(zone, until) AS last),
    matched AS MATERIALIZED (
        SELECT day, is_even, (rules[rule_number]).is_real_time, (rules[rule_number]).minutes,
               timezone('UTC', timezone(zone, day::timestamp)) AS begin,
               floor(extract(epoch FROM first - day::timestamp) / 60) AS first, ceil(extract(epoch FROM last - day::timestamp) / 60) AS last
        FROM span, routines.cron_days(rules, zone, first::date - 1, last::date + 1)
    )
    SELECT DISTINCT timezone('UTC', moment) FROM (
        SELECT begin + minute * interval '1 minute' AS moment
        FROM matched CROSS JOIN unnest(minutes) AS minute WHERE is_even AND minute BETWEEN first AND last
        UNION ALL
        SELECT unnest(routines.moments_of(zone, day + minute * interval '1 minute', is_real_time))
        FROM matched CROSS JOIN unnest(minutes) AS minute WHERE NOT is_even
    ) AS found
    WHERE moment > timezone('UTC', after) AND moment <= timezone('UTC', until);
$$;
COMMENT ON FUNCTION routines.cron_slots IS 'The slots of parsed expressions later than `after`, up to `until`, in no order.';

-- The spans grow, since most expressions have a slot soon. The longest wait is 40 years: 29 February on a certain weekday, across the
-- end of a century that is no leap year.
CREATE FUNCTION routines.search_days(rules routines.cron_rule[]) RETURNS float8[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN cardinality((rules[1]).minutes) > 50 THEN '{0.1,2,14,70,400,3000,15000}'::float8[] ELSE '{2,14,70,400,3000,15000}' END;
COMMENT ON FUNCTION routines.search_days IS 'How many days to search for a slot, one span after the other.';

CREATE FUNCTION routines.later_cron_slots(
    rules routines.cron_rule[], zone text, after timestamptz, ends_at timestamptz, slot_limit integer
) RETURNS SETOF timestamptz LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    since   timestamptz := greatest(after, '1969-12-31 23:59:59.999999Z');
    upto    timestamptz;
    missing integer := slot_limit;
    found   integer;
    days    float8;
BEGIN
    FOREACH days IN ARRAY routines.search_days(rules) || 90000::float8 LOOP
        upto := least(since + make_interval(secs => days * 86400), ends_at, '2199-12-31 23:59:59.999999Z');
        EXIT WHEN missing <= 0 OR since >= upto OR after IS NULL;
        RETURN QUERY SELECT slot FROM routines.cron_slots(rules, zone, since, upto) AS slot ORDER BY slot LIMIT missing;
        GET DIAGNOSTICS found = ROW_COUNT;
        missing := missing - found;
        since := upto;
    END LOOP;
END $$;
COMMENT ON FUNCTION routines.later_cron_slots IS 'The first slot_limit slots later than `after`, and not later than ends_at, in order.';

CREATE FUNCTION routines.later_cron_slot(rules routines.cron_rule[], zone text, after timestamptz) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    since timestamptz := after;
    upto  timestamptz;
    found timestamptz;
    days  float8;
BEGIN
    FOREACH days IN ARRAY routines.search_days(rules) LOOP
        upto := since + make_interval(secs => days * 86400);
        found := (SELECT min(slot) FROM routines.cron_slots(rules, zone, since, upto) AS slot);
        EXIT WHEN found IS NOT NULL;
        since := upto;
    END LOOP;
    RETURN found;
END $$;
COMMENT ON FUNCTION routines.later_cron_slot IS 'The first slot later than `after`; null if there is none within 40 years.';

CREATE FUNCTION routines.earlier_cron_slot(rules routines.cron_rule[], zone text, until timestamptz) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    since timestamptz;
    upto  timestamptz := until;
    found timestamptz;
    days  float8;
BEGIN
    FOREACH days IN ARRAY routines.search_days(rules) LOOP
        since := upto - make_interval(secs => days * 86400);
        found := (SELECT max(slot) FROM routines.cron_slots(rules, zone, since, upto) AS slot);
        EXIT WHEN found IS NOT NULL;
        upto := since;
    END LOOP;
    RETURN found;
END $$;
COMMENT ON FUNCTION routines.earlier_cron_slot IS 'The last slot at or before `until`; null if there is none within 40 years.';

-- Counts even days by kind, and lists slots of the other days only: years of an expression that comes every minute take milliseconds.
CREATE FUNCTION routines.count_cron_slots(rules routines.cron_rule[], zone text, first_slot timestamptz, last_slot timestamptz)
RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    WITH span AS MATERIALIZED (SELECT timezone(zone, first_slot)::date AS first, timezone(zone, last_slot)::date AS last),
    matched AS MATERIALIZED (
        SELECT day, rule_number, is_even AND day > first AND day < last AS is_whole
        FROM span, routines.cron_days(rules, zone, first - 1, last + 1)
    ),
    kinds AS (
        SELECT numbers, count(*) AS days
        FROM (SELECT array_agg(rule_number ORDER BY rule_number) AS numbers FROM matched WHERE is_whole GROUP BY day) AS whole
        GROUP BY numbers
    )
    SELECT coalesce((SELECT sum(days * (SELECT count(DISTINCT minute)
                                        FROM unnest(numbers) AS number, unnest((rules[number]).minutes) AS minute)) FROM kinds), 0)::bigint
        + (SELECT count(DISTINCT moment)
           FROM matched
           CROSS JOIN unnest((rules[rule_number]).minutes) AS minute
           CROSS JOIN unnest(routines.moments_of(
               zone, day + minute * interval '1 minute', (rules[rule_number]).is_real_time)) AS moment
           WHERE NOT is_whole AND moment > timezone('UTC', first_slot) AND moment <= timezone('UTC', last_slot));
$$;
COMMENT ON FUNCTION routines.count_cron_slots IS 'The number of slots later than first_slot, up to last_slot.';

------------------------------------------------------------------------------------------------------- what is not a constraint
-- Called by the trigger that sets next_run_at. A constraint would be checked by every fire, which takes a hundredth of the time that
-- parsing takes.
CREATE FUNCTION routines.check_cadence(cadence routines.cadence) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF (cadence).type = 'cron' AND (cadence).expression IS NOT NULL THEN
        PERFORM routines.check_time_zone((cadence).timezone);
        PERFORM routines.is_cron((cadence).expression);
        IF routines.next_fire(routines.without_bounds(cadence), now()) IS NULL THEN
            PERFORM routines.refuse_expression('never comes: the clocks of ' || (cadence).timezone || ' skip that time on every such day');
        END IF;
    END IF;
END $$;
COMMENT ON FUNCTION routines.check_cadence IS 'Raises an error if the time zone or the expression of a cadence is not valid, or if it never comes.';

-- Most expressions are answered by their minutes alone. Only where the closest two come from different expressions, or lie on both
-- sides of midnight, it matters which days match: those of a year, if that has the two, and otherwise of 28 years, which have every
-- date on every weekday.
CREATE FUNCTION routines.closest_minutes(rules routines.cron_rule[]) RETURNS integer LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    of_one integer := (
        SELECT min(minute - earlier) FROM unnest(rules) AS rule, LATERAL (
            SELECT minute, lag(minute) OVER (ORDER BY minute) AS earlier FROM unnest(rule.minutes) AS minute) AS stepped);
    of_all integer := (
        SELECT least(min(minute - earlier), min(minute) + 1440 - max(minute)) FROM (
            SELECT minute, lag(minute) OVER (ORDER BY minute) AS earlier
            FROM (SELECT DISTINCT unnest(rule.minutes) AS minute FROM unnest(rules) AS rule) AS merged) AS stepped);
    last_day date;
    closest  integer;
BEGIN
    IF of_one <= of_all OR of_all > 60 THEN
        RETURN of_all;
    END IF;
    FOREACH last_day IN ARRAY '{2000-12-31,2027-12-31}'::date[] LOOP
        WITH days AS MATERIALIZED (
            SELECT day, array_agg(rule_number ORDER BY rule_number) AS numbers
            FROM routines.cron_days(rules, 'UTC', '2000-01-01', last_day) GROUP BY day
        ),
        kinds AS MATERIALIZED (
            SELECT numbers, min(minute) AS first, max(minute) AS last, min(minute - earlier) AS step
            FROM (SELECT DISTINCT numbers FROM days) AS kind CROSS JOIN LATERAL (
                SELECT minute, lag(minute) OVER (ORDER BY minute) AS earlier
                FROM (SELECT DISTINCT unnest((rules[number]).minutes) AS minute
                      FROM unnest(numbers) AS number) AS merged) AS stepped
            GROUP BY numbers
        )
        SELECT least(min(step), min(CASE WHEN day = day_before + 1 THEN first + 1440 - last_before END)) INTO closest
        FROM (SELECT day, first, step, lag(day) OVER by_day AS day_before, lag(last) OVER by_day AS last_before
              FROM days JOIN kinds USING (numbers) WINDOW by_day AS (ORDER BY day)) AS stepped;
        EXIT WHEN closest = of_all;
    END LOOP;
    RETURN closest;
END $$;
COMMENT ON FUNCTION routines.closest_minutes IS
    'The fewest minutes between two slots of parsed expressions, on clocks that nobody changes; null for a single slot.';

CREATE FUNCTION routines.closest_seconds(cadence routines.cadence) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE (cadence).type
    WHEN 'hourly' THEN 3600
    WHEN 'interval' THEN 60 * (cadence).every_minutes
    WHEN 'cron' THEN 60 * routines.closest_minutes(routines.cron_rules((cadence).expression)) END;
COMMENT ON FUNCTION routines.closest_seconds IS
    'The shortest time between two slots of a cadence, on clocks that nobody changes; null for types whose slots are days apart, or that have one or none.';

CREATE FUNCTION routines.check_spread(cadence routines.cadence, spread_seconds integer) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF spread_seconds NOT BETWEEN 0 AND 3600 THEN
        RAISE EXCEPTION 'spread_seconds: must be 0 to 3600, not %', spread_seconds
            USING ERRCODE = 'check_violation', CONSTRAINT = 'routines_spread_seconds_in_range';
    ELSIF spread_seconds > 0 AND spread_seconds >= routines.closest_seconds(cadence) THEN
        RAISE EXCEPTION 'spread_seconds: must be below %, the seconds between two of its slots, not %',
            routines.closest_seconds(cadence), spread_seconds
            USING ERRCODE = 'check_violation', CONSTRAINT = 'routines_spread_seconds_below_interval';
    END IF;
END $$;
COMMENT ON FUNCTION routines.check_spread IS 'Raises an error if a spread is out of range, or reaches from one slot of its cadence to the next.';

CREATE FUNCTION routines.with_defaults(cadence routines.cadence, created_at timestamptz) RETURNS routines.cadence
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF cadence.type = 'cron' THEN
        cadence.timezone := coalesce(cadence.timezone, 'UTC');
    ELSIF cadence.type = 'interval' THEN
        cadence.anchor := coalesce(cadence.anchor, to_timestamp(floor(extract(epoch FROM created_at) / 60) * 60));
    END IF;
    RETURN cadence;
END $$;
COMMENT ON FUNCTION routines.with_defaults IS 'The cadence with the time zone and the anchor that it has if none is given.';

CREATE FUNCTION routines.preview_slots(
    cadence routines.cadence, after timestamptz, slot_limit integer, spread_seconds integer DEFAULT NULL
) RETURNS SETOF timestamptz LANGUAGE plpgsql STABLE AS $$
DECLARE
    whole routines.cadence := routines.with_defaults(cadence, now());
BEGIN
    PERFORM routines.check_cadence(whole);
    PERFORM routines.check_spread(whole, spread_seconds);
    RETURN QUERY SELECT * FROM routines.next_slots(whole, after, slot_limit);
END $$;
COMMENT ON FUNCTION routines.preview_slots IS 'The coming slots of a cadence as it is given for a routine, without the defaults of its fields. Checks the cadence and the spread.';
