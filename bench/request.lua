-- Builds the requests that wrk sends and prints the results as one line of JSON. {n} becomes a number unique to the
-- request, {i} a number from 0 to 49.
local n = 0
local method, path, body = os.getenv("BENCH_METHOD"), os.getenv("BENCH_PATH"), os.getenv("BENCH_BODY")
local run = os.getenv("BENCH_RUN")
local headers = { ["Authorization"] = "Bearer " .. os.getenv("BENCH_KEY"), ["Content-Type"] = "application/json" }

local function filled(text)
  return (text:gsub("{n}", run .. n):gsub("{i}", n % 50))
end

function request()
  n = n + 1
  return wrk.format(method, filled(path), headers, body and filled(body))
end

function done(summary, latency)
  local failed = summary.errors.status + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format('{"per_second": %f, "p50_ms": %f, "p99_ms": %f, "failed": %d}\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000, failed))
end
