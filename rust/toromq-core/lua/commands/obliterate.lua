--[[
  obliterate: delete what is left of a paused queue whose jobs are gone, so that nothing of it remains.

  With `check` it only says whether the queue may be obliterated.

  KEYS
    1 wait                    LIST    ids of waiting standard jobs
    2 paused                  LIST    ids of jobs that an old client put aside while it paused the queue
    3 active                  LIST    ids of active jobs
    4 prioritized             ZSET    ids of waiting jobs with a priority
    5 delayed                 ZSET    ids of delayed jobs
    6 waiting_children        ZSET    ids of jobs that wait for their children
    7 completed               ZSET    ids of completed jobs
    8 failed                  ZSET    ids of failed jobs
    9 repeat                  ZSET    ids of job schedulers
    10 meta                   HASH    settings of the queue
    11 metrics_completed      HASH    per-minute series of completed jobs
    12 metrics_failed         HASH    per-minute series of failed jobs
  ARGV
    1 base                    string   qualified queue name with trailing colon
    2 check                   "1" to delete nothing, or empty
    3 force                   "1" to obliterate while jobs are active, or empty
    4.. keys                  groups of one: more keys of the queue to delete
  RETURNS
    0                         done, or with `check`: it may be done
    1                         jobs have come meanwhile; nothing was deleted but job schedulers
    QUEUE_NOT_PAUSED          the queue is not paused
    ACTIVE_JOBS               jobs are active, and it was not forced
  EVENTS
    none
]]
local wait, paused, active, prioritized, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local waiting_children, completed, failed, schedulers, meta = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local metrics_completed, metrics_failed = KEYS[11], KEYS[12]
local base, check, force = ARGV[1], ARGV[2], ARGV[3]

if redis.call('HEXISTS', meta, 'paused') == 0 then
  return CODE.QUEUE_NOT_PAUSED
end
if force == '' and redis.call('LLEN', active) > 0 then
  return CODE.ACTIVE_JOBS
end
if check ~= '' then
  return 0
end
for _, id in ipairs(redis.call('ZRANGE', schedulers, 0, -1)) do
  redis.call('DEL', base .. 'repeat:' .. id)
end
redis.call('DEL', schedulers)
if redis.call('EXISTS', wait, paused, active, prioritized, delayed, waiting_children, completed, failed) > 0 then
  return 1
end
for i = 4, #ARGV do
  redis.call('DEL', ARGV[i])
end
for _, name in ipairs({ 'events', 'delay', 'priority', 'stalled-check', 'stalled', 'id', 'pc', 'marker', 'limiter' }) do
  redis.call('DEL', base .. name)
end
redis.call('DEL', meta, metrics_completed, metrics_completed .. ':data', metrics_failed, metrics_failed .. ':data')
return 0
