--[[
  move_stalled_jobs_to_wait: queue again the active jobs whose worker let their lock run out.

  A job counts as stalled when it was active, without a lock, in two passes in a row. A call does at most `limit` jobs;
  while some are left it says so and does not close the pass.

  KEYS
    1 wait           LIST    ids of waiting standard jobs
    2 active         LIST    ids of active jobs
    3 stalled        SET     ids suspected of having stalled
    4 stalled_check  STRING  when the last pass was made; lives as long as no other is due
    5 marker         ZSET    what waiting workers block on
    6 meta           HASH    settings of the queue
    7 events         STREAM  events of the queue
    8 repeat         ZSET    ids of job schedulers
  ARGV
    1 base                 string   qualified queue name with trailing colon
    2 now_ms               integer  milliseconds
    3 stalled_interval_ms  integer  milliseconds between two passes, over all workers
    4 max_stalled_count    integer  how often a job may stall before it is failed
    5 limit                integer  how many suspects to look at in this call
  RETURNS
    {more, {id, ...}, {id, ...}}  more: 1 when suspects are left for another call; the ids queued again; ids of keys that
                                  hold no job and were taken out
  EVENTS
    waiting, stalled
]]
local wait, active, stalled, stalled_check = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local marker, meta, events, schedulers = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local base, now_ms, interval, max_stalled, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
-- @include "includes/max_events"
-- @include "includes/mark_base"

local q = { base = base, active = active, marker = marker, meta = meta, events = events }

if not redis.call('SET', stalled_check, now_ms, 'PX', interval, 'NX') then
  return { 0, {}, {} }
end
redis.call('XTRIM', events, 'MAXLEN', '~', max_events(q))
-- Most passes find a queue at rest.
if redis.call('EXISTS', stalled, active) == 0 then
  return { 0, {}, {} }
end

local suspects = redis.call('SPOP', stalled, limit)
local recovered, quarantined = {}, {}
local gone = {}
if #suspects > 0 then
  local lock_keys = {}
  for _, id in ipairs(suspects) do
    lock_keys[#lock_keys + 1] = base .. id .. ':lock'
  end
  local unlocked, any = {}, false
  for n, lock in ipairs(redis.call('MGET', unpack(lock_keys))) do
    if not lock then
      unlocked[suspects[n]] = true
      any = true
    end
  end
  -- One walk over the list instead of one for each job, which would be quadratic when a whole fleet died.
  if any then
    local rest = {}
    for _, id in ipairs(redis.call('LRANGE', active, 0, -1)) do
      if unlocked[id] then
        gone[#gone + 1] = id
        unlocked[id] = nil
      else
        rest[#rest + 1] = id
      end
    end
    if #gone > 8 then
      redis.call('DEL', active)
      for first = 1, #rest, 5000 do
        redis.call('RPUSH', active, unpack(rest, first, math.min(first + 4999, #rest)))
      end
    else
      for _, id in ipairs(gone) do
        redis.call('LREM', active, 1, id)
      end
    end
  end
end

for _, id in ipairs(gone) do
  local job_key = base .. id
  local job = redis.pcall('HMGET', job_key, 'rjk', 'name')
  if job.err then
    quarantined[#quarantined + 1] = id
  else
    -- An id without a hash is queued as it is: counting would make half a hash of it.
    if job[2] or redis.call('EXISTS', job_key) == 1 then
      local count = redis.call('HINCRBY', job_key, 'stc', 1)
      local scheduled = job[1]
        and (redis.call('ZSCORE', schedulers, job[1]) or redis.call('EXISTS', base .. 'repeat:' .. job[1]) == 1)
      if count > max_stalled and not scheduled then
        redis.call('HSET', job_key, 'defa', 'job stalled more than allowable limit')
      end
    end
    redis.call('RPUSH', wait, id)
    redis.call('XADD', events, '*', 'event', 'waiting', 'jobId', id, 'prev', 'active')
    redis.call('XADD', events, '*', 'event', 'stalled', 'jobId', id)
    recovered[#recovered + 1] = id
  end
end
if #recovered > 0 then
  mark_base(q)
end

if redis.call('SCARD', stalled) > 0 then
  redis.call('DEL', stalled_check)
  return { 1, recovered, quarantined }
end
local ids = redis.call('LRANGE', active, 0, -1)
for first = 1, #ids, 5000 do
  redis.call('SADD', stalled, unpack(ids, first, math.min(first + 4999, #ids)))
end
return { 0, recovered, quarantined }
