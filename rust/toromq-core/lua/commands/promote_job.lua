--[[
  promote_job: queue a delayed job before its time.

  KEYS
    1 delayed         ZSET    ids of delayed jobs
    2 wait            LIST    ids of waiting standard jobs
    3 active          LIST    ids of active jobs
    4 prioritized     ZSET    ids of waiting jobs with a priority
    5 marker          ZSET    what waiting workers block on
    6 meta            HASH    settings of the queue
    7 events          STREAM  events of the queue
    8 pc              STRING  count of prioritized jobs
  ARGV
    1 base            string  qualified queue name with trailing colon
    2 id              string
  RETURNS
    0                 done
    JOB_MISSING       the job's hash does not exist
    JOB_NOT_IN_STATE  the job is not delayed
  EVENTS
    waiting
]]
local delayed, wait, active, prioritized = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local marker, meta, events, pc = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local base, id = ARGV[1], ARGV[2]
-- @include "includes/add_waiting"
-- @include "includes/mark_base"

local q = { base = base, wait = wait, active = active, prioritized = prioritized, marker = marker, meta = meta,
  events = events, pc = pc }
local job_key = base .. id
if redis.call('EXISTS', job_key) == 0 then
  return CODE.JOB_MISSING
end
local priority = tonumber(redis.call('HGET', job_key, 'priority')) or 0
redis.call('LLEN', wait)
if redis.call('ZREM', delayed, id) == 0 then
  return CODE.JOB_NOT_IN_STATE
end
add_waiting(q, id, priority, false)
mark_base(q)
redis.call('XADD', events, '*', 'event', 'waiting', 'jobId', id, 'prev', 'delayed')
redis.call('HSET', job_key, 'delay', 0)
return 0
