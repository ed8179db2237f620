--[[
  resume: let jobs of the queue start again, and bring back those that an old client put aside when it paused.

  Old clients move the waiting jobs to a list of their own while a queue is paused. They come back at most `limit` in a
  call, behind those that have been added since, so that the oldest still run first.

  KEYS
    1 wait         LIST    ids of waiting standard jobs
    2 paused       LIST    ids of jobs that an old client put aside while it paused the queue
    3 prioritized  ZSET    ids of waiting jobs with a priority
    4 delayed      ZSET    ids of delayed jobs
    5 marker       ZSET    what waiting workers block on
    6 meta         HASH    settings of the queue
    7 events       STREAM  events of the queue
  ARGV
    1 limit        integer  how many jobs to bring back in this call
    2 again        "1" for every call but the first, or empty
  RETURNS
    n              how many jobs are still to be brought back
  EVENTS
    resumed
]]
local wait, paused, prioritized, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local marker, meta, events = KEYS[5], KEYS[6], KEYS[7]
local limit, again = tonumber(ARGV[1]), ARGV[2]
-- @include "includes/mark_delay"

redis.call('HDEL', meta, 'paused')
local left = redis.call('LLEN', paused)
if left > 0 then
  if redis.call('EXISTS', wait) == 0 then
    redis.call('RENAME', paused, wait)
    left = 0
  else
    local ids = redis.call('LRANGE', paused, 0, limit - 1)
    redis.call('LTRIM', paused, #ids, -1)
    redis.call('RPUSH', wait, unpack(ids))
    left = left - #ids
  end
end
if redis.call('EXISTS', wait, prioritized) > 0 then
  redis.call('ZADD', marker, 0, '0')
else
  mark_delay({ delayed = delayed, marker = marker })
end
if again == '' then
  redis.call('XADD', events, '*', 'event', 'resumed')
end
return left
