--[[
  get_metrics: a per-minute series, at one moment.

  KEYS
    1 metrics  HASH  count, prevTS and prevCount of the series
    2 points   LIST  how many jobs finished in each minute, newest first
  ARGV
    1 start  integer  the first point wanted, 0 for the newest; below 0 from the oldest
    2 last   integer  the last point wanted, in the same way
  RETURNS
    {count, prevTS, prevCount, length, points}  the first three as stored or nil; how many points there are; those wanted
  EVENTS
    none
]]
local metrics, points = KEYS[1], KEYS[2]
local start, last = ARGV[1], ARGV[2]

local series = redis.call('HMGET', metrics, 'count', 'prevTS', 'prevCount')
series[4] = redis.call('LLEN', points)
series[5] = redis.call('LRANGE', points, start, last)
return series
