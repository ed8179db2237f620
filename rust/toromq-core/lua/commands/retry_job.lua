--[[
  retry_job: queue one finished job again, by its priority.

  KEYS
    1 state_key            ZSET    ids of jobs in the state it is in
    2 wait                 LIST    ids of waiting standard jobs
    3 active               LIST    ids of active jobs
    4 prioritized          ZSET    ids of waiting jobs with a priority
    5 marker               ZSET    what waiting workers block on
    6 meta                 HASH    settings of the queue
    7 events               STREAM  events of the queue
    8 pc                   STRING  count of prioritized jobs
  ARGV
    1 base                 string  qualified queue name with trailing colon
    2 id                   string
    3 state                string  failed or completed
    4 lifo                 "1" to run before the standard jobs that wait, or empty
    5 reset_attempts_made     "1" or empty
    6 reset_attempts_started  "1" or empty
  RETURNS
    1                      done
    JOB_MISSING            the job's hash does not exist
    JOB_NOT_IN_STATE       the job is not in that state
  EVENTS
    waiting
]]
local state_key, wait, active, prioritized = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local marker, meta, events, pc = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local base, id, state, lifo, reset_made, reset_started = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
-- @include "includes/add_waiting"
-- @include "includes/child_back"
-- @include "includes/mark_base"
-- @include "includes/max_events"

local q = { base = base, wait = wait, active = active, prioritized = prioritized, marker = marker, meta = meta,
  events = events, pc = pc }
local job_key = base .. id
if redis.call('EXISTS', job_key) == 0 then
  return CODE.JOB_MISSING
end
local job = redis.call('HMGET', job_key, 'priority', 'parentKey', 'parent')
redis.call('LLEN', wait)
if redis.call('ZREM', state_key, id) == 0 then
  return CODE.JOB_NOT_IN_STATE
end
add_waiting(q, id, tonumber(job[1]) or 0, lifo ~= '')
redis.call('HDEL', job_key, 'finishedOn', 'processedOn', state == 'failed' and 'failedReason' or 'returnvalue')
if reset_made ~= '' then
  redis.call('HDEL', job_key, 'atm', 'attemptsMade')
end
if reset_started ~= '' then
  redis.call('HDEL', job_key, 'ats')
end
if job[2] then
  child_back(job_key, job[2], job[3], state)
end
mark_base(q)
redis.call('XADD', events, 'MAXLEN', '~', max_events(q), '*', 'event', 'waiting', 'jobId', id, 'prev', state)
return 1
