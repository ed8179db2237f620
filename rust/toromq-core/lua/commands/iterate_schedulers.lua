--[[
  iterate_schedulers: make the next jobs of job schedulers whose current ones a worker is about to run.

  Only the newest job of a scheduler brings forth the next one, so a call that is made again, or by another worker,
  makes nothing.

  Where a time has its job already, that one goes on with the series if it has still to run. Else the time is passed
  over: a series that waited for a job that has ended would stand still for ever.

  KEYS
    1 wait         LIST    ids of waiting standard jobs
    2 paused       LIST    ids of jobs that an old client put aside while it paused the queue
    3 active       LIST    ids of active jobs
    4 prioritized  ZSET    ids of waiting jobs with a priority
    5 delayed      ZSET    ids of delayed jobs
    6 marker       ZSET    what waiting workers block on
    7 meta         HASH    settings of the queue
    8 events       STREAM  events of the queue
    9 pc           STRING  count of prioritized jobs
    10 repeat      ZSET    ids of job schedulers, by the time of their newest job
  ARGV
    1 base         string   qualified queue name with trailing colon
    2 now_ms       integer  milliseconds
    3.. jobs       groups of nine: scheduler, job_id (the current one), opts (of the next one: JSON object without jobId,
                   delay and prevMillis), due (ms, where a pattern says it, else empty), every (ms) and offset (ms)
                   where the record has none, priority, lifo ("1" or empty), deduplication_id (or empty)
  RETURNS
    {id, ...}            for each the id of the next job, empty where none was to be made, or a code
    SCHEDULER_LEGACY     of one: it is no job scheduler but what was before them
    SCHEDULER_COLLISION  of one, by pattern: a job has the time already, and has been run; it is to be passed over
    SCHEDULER_BUSY       of one, by interval: the next thousand times have jobs that have been run
    KEY_CORRUPT          of one: its record is something else
  EVENTS
    added, waiting, delayed, duplicated
]]
local wait, paused, active, prioritized, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local marker, meta, events, pc, schedulers = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local base, now = ARGV[1], tonumber(ARGV[2])
-- @include "includes/add_iteration"
-- @include "includes/is_scheduled"
-- @include "includes/looks_legacy"
-- @include "includes/max_events"
-- @include "includes/next_every"
-- @include "includes/pending_place"

local q = { base = base, wait = wait, paused = paused, active = active, prioritized = prioritized, delayed = delayed,
  marker = marker, meta = meta, events = events, pc = pc }
local GROUP, FIRST, TRIES = 9, 3, 1000
local max_length = max_events(q)

local function iterate(i)
  local scheduler, job_id = ARGV[i], ARGV[i + 1]
  local record_key = base .. 'repeat:' .. scheduler
  local record = redis.pcall('HMGET', record_key, 'ic', 'name', 'data', 'every', 'offset')
  if record.err then
    return CODE.KEY_CORRUPT
  end
  if not is_scheduled(q, job_id, scheduler) then
    return ''
  end
  if not record[1] and looks_legacy(scheduler) then
    return CODE.SCHEDULER_LEGACY
  end
  local every = tonumber(record[4]) or tonumber(ARGV[i + 4])
  local due = tonumber(ARGV[i + 3])
  if every and every > 0 then
    local offset = tonumber(record[5]) or tonumber(ARGV[i + 5]) or 0
    due = next_every(tonumber(redis.call('ZSCORE', schedulers, scheduler)), every, offset, now)
  end
  if not due or redis.call('EXISTS', record_key) == 0 then
    return ''
  end
  local next_id = 'repeat:' .. scheduler .. ':' .. integer_text(due)
  local tries = 0
  while redis.call('EXISTS', base .. next_id) == 1 do
    if tries == 0 then
      redis.call('XADD', events, 'MAXLEN', '~', max_length, '*', 'event', 'duplicated', 'jobId', next_id)
    end
    if pending_place(q, next_id) and redis.call('HGET', base .. next_id, 'rjk') == scheduler then
      redis.call('ZADD', schedulers, integer_text(due), scheduler)
      return ''
    end
    if not every then
      return CODE.SCHEDULER_COLLISION
    end
    if tries == TRIES then
      return CODE.SCHEDULER_BUSY
    end
    tries = tries + 1
    due = due + every
    next_id = 'repeat:' .. scheduler .. ':' .. integer_text(due)
  end
  redis.call('ZADD', schedulers, integer_text(due), scheduler)
  redis.call('HINCRBY', record_key, 'ic', 1)
  return (add_iteration(q, { scheduler = scheduler, name = record[2] or scheduler, data = record[3] or '{}',
    opts = ARGV[i + 2], priority = tonumber(ARGV[i + 6]), lifo = ARGV[i + 7] ~= '', deduplication_id = ARGV[i + 8],
    by_time = not every }, due, now, max_length))
end

local made = {}
for i = FIRST, #ARGV, GROUP do
  made[#made + 1] = iterate(i)
end
return made
