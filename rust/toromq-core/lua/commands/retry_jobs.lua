--[[
  retry_jobs: queue many jobs of one state again, whatever their priority: failed or completed ones, or delayed ones
  before their time.

  KEYS
    1 state_key  ZSET    ids of jobs in this state
    2 wait       LIST    ids of waiting standard jobs
    3 active     LIST    ids of active jobs
    4 marker     ZSET    what waiting workers block on
    5 meta       HASH    settings of the queue
    6 events     STREAM  events of the queue
  ARGV
    1 base       string   qualified queue name with trailing colon
    2 state      string   failed, completed or delayed
    3 limit      integer  how many jobs to move in this call
    4 cutoff     integer  only jobs that finished by then (ms), or empty for all
  RETURNS
    n            how many jobs were moved; more are left when that is `limit`
  EVENTS
    waiting
]]
local state_key, wait, active, marker, meta, events = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local base, state, limit, cutoff = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
-- @include "includes/child_back"
-- @include "includes/mark_base"
-- @include "includes/max_events"

local q = { base = base, active = active, marker = marker, meta = meta, events = events }
local ids = redis.call('ZRANGEBYSCORE', state_key, '-inf', cutoff == '' and '+inf' or cutoff, 'LIMIT', 0, limit)
if #ids == 0 then
  return 0
end
-- Fails before anything is moved where one of them is something else.
redis.call('LLEN', wait)
redis.call('XLEN', events)
local max_length = max_events(q)
for _, id in ipairs(ids) do
  local job_key = base .. id
  local job = redis.pcall('HMGET', job_key, 'parentKey', 'parent')
  if not job.err and state ~= 'delayed' then
    redis.call('HDEL', job_key, 'finishedOn', 'processedOn', state == 'failed' and 'failedReason' or 'returnvalue')
    if job[1] then
      child_back(job_key, job[1], job[2], state)
    end
  end
  redis.call('XADD', events, 'MAXLEN', '~', max_length, '*', 'event', 'waiting', 'jobId', id, 'prev', state)
end
redis.call('ZREM', state_key, unpack(ids))
redis.call('LPUSH', wait, unpack(ids))
mark_base(q)
return #ids
