--[[
  get_limits: the queue's own limits, and how far they are used up, at one moment.

  KEYS
    1 active   LIST    ids of active jobs
    2 limiter  STRING  jobs started in the current rate window
    3 meta     HASH    settings of the queue
  ARGV
    none
  RETURNS
    {concurrency, max, duration, active, started, ttl}  the first three as stored or nil; how many jobs are active; how
                   many were started in the current rate window; ms until it ends, -2 without one, -1 if it never does
  EVENTS
    none
]]
local active, limiter, meta = KEYS[1], KEYS[2], KEYS[3]

local limits = redis.call('HMGET', meta, 'concurrency', 'max', 'duration')
limits[4] = redis.call('LLEN', active)
limits[5] = tonumber(redis.call('GET', limiter)) or 0
limits[6] = redis.call('PTTL', limiter)
return limits
