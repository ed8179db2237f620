--[[
  set_rate_limit: let no job start for a time, or end such a time and with it the current rate window.

  It holds for workers that know of a maximum, their own or the queue's.

  KEYS
    1 wait         LIST    ids of waiting standard jobs
    2 active       LIST    ids of active jobs
    3 prioritized  ZSET    ids of waiting jobs with a priority
    4 limiter      STRING  jobs started in the current rate window
    5 marker       ZSET    what waiting workers block on
    6 meta         HASH    settings of the queue
    7 limiter_wake STREAM  what workers that wait for the end of a limit read
  ARGV
    1 duration_ms  integer  milliseconds, or empty to end it
  RETURNS
    1  it was set, or there was one to end
    0  there was none to end
  EVENTS
    none
]]
local wait, active, prioritized = KEYS[1], KEYS[2], KEYS[3]
local limiter, marker, meta, limiter_wake = KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local duration = ARGV[1]
-- @include "includes/mark_waiting"
-- @include "includes/limit_rate"
-- @include "includes/wake_limited"

if duration ~= '' then
  limit_rate(limiter, duration)
  return 1
end
local ended = redis.call('DEL', limiter)
if ended == 1 then
  wake_limited(limiter_wake)
end
mark_waiting({ wait = wait, active = active, prioritized = prioritized, marker = marker, meta = meta })
return ended
