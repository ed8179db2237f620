--[[
  set_global_limits: set or remove the queue's own concurrency and rate limit, and wake workers for what may start now.

  The worker that the marker wakes wakes the next one by its first job, and so on, for as long as the new limits allow.
  Those that sleep until a rate window ends are woken all.

  KEYS
    1 wait         LIST    ids of waiting standard jobs
    2 active       LIST    ids of active jobs
    3 prioritized  ZSET    ids of waiting jobs with a priority
    4 marker       ZSET    what waiting workers block on
    5 meta         HASH    settings of the queue
    6 limiter      STRING  jobs started in the current rate window
    7 limiter_wake STREAM  what workers that wait for the end of a limit read
  ARGV
    1.. fields  groups of two: concurrency, max or duration (milliseconds), and its new value or empty to remove it
  RETURNS
    1  always
  EVENTS
    none
]]
local wait, active, prioritized, marker, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local limiter, limiter_wake = KEYS[6], KEYS[7]
-- @include "includes/mark_waiting"
-- @include "includes/wake_limited"

for i = 1, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', meta, ARGV[i])
  else
    redis.call('HSET', meta, ARGV[i], ARGV[i + 1])
  end
end
if redis.call('EXISTS', limiter) == 1 then
  wake_limited(limiter_wake)
end
mark_waiting({ wait = wait, active = active, prioritized = prioritized, marker = marker, meta = meta })
return 1
