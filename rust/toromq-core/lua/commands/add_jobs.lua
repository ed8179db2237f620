--[[
  add_jobs: store new jobs and queue each of them, as if they had been added one by one.

  The caller reserves the id numbers beforehand, so that it knows each job's id even when the reply is lost, and may
  send the same jobs again: a job marked as sent before that is found stored is left alone.

  KEYS
    1 wait         LIST    ids of waiting standard jobs
    2 active       LIST    ids of active jobs
    3 prioritized  ZSET    ids of waiting jobs with a priority
    4 delayed      ZSET    ids of delayed jobs
    5 marker       ZSET    what waiting workers block on
    6 meta         HASH    settings of the queue
    7 events       STREAM  events of the queue
    8 id           STRING  id counter
    9 pc           STRING  count of prioritized jobs
  ARGV
    1 base           string   qualified queue name with trailing colon
    2 reserve        integer  how many id numbers to reserve for the next call
    3 max_events     integer  length of the events stream, empty to leave the queue's own
    4 version        string   what to store as the writer's version where none is stored
    5.. jobs         groups of ten: number (reserved id number), job_id (own id or empty), name, data, opts (JSON texts),
                     timestamp, delay, priority, lifo ("1" or empty), again ("1" when sent before, or empty)
  RETURNS
    {n, id, id, ...}  highest id number now reserved, then the jobs' ids in the order given
    IDS_VOID          the counter was set back below the numbers given; nothing was stored
  EVENTS
    added, waiting, delayed, duplicated
]]
local wait, active, prioritized, delayed, marker = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local meta, events, counter_key, pc = KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local base, reserve, wanted_length, version = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
-- @include "includes/add_delayed"
-- @include "includes/mark_base"
-- @include "includes/mark_delay"
-- @include "includes/priority_score"
-- @include "includes/max_events"

local q = { base = base, wait = wait, active = active, prioritized = prioritized, delayed = delayed, marker = marker,
  meta = meta, events = events, pc = pc }
local GROUP, FIRST = 10, 5

-- Numbers above the counter belong to nobody: the counter was deleted or set back, and whoever counts from there will
-- give the same numbers to other jobs.
local highest = 0
local own_keys = {}
for i = FIRST, #ARGV, GROUP do
  highest = math.max(highest, tonumber(ARGV[i]))
  if ARGV[i + 1] == '' then
    own_keys[#own_keys + 1] = base .. ARGV[i]
  end
end
if (tonumber(redis.call('GET', counter_key)) or 0) < highest then
  return CODE.IDS_VOID
end

local stored_settings = redis.call('HMGET', meta, 'opts.maxLenEvents', 'version')
if wanted_length ~= '' and stored_settings[1] ~= wanted_length then
  redis.call('HSET', meta, 'opts.maxLenEvents', wanted_length)
end
if not stored_settings[2] then
  redis.call('HSET', meta, 'version', version)
end
local max_length = max_events(q)

local some_taken = #own_keys > 0 and redis.call('EXISTS', unpack(own_keys)) > 0

-- The same job as in an earlier call whose reply was lost, or another one under its id?
local function stored_before(i, job_key)
  if ARGV[i + 9] == '' then
    return false
  end
  local found = redis.pcall('HMGET', job_key, 'name', 'data', 'timestamp')
  -- What is no job is not ours either.
  return not found.err and found[1] == ARGV[i + 2] and found[2] == ARGV[i + 3] and found[3] == ARGV[i + 5]
end

-- Whether a job that is sent again, and is not there, was added before and has gone since: run and removed. Only what the
-- newest events say is known.
local function added_and_gone(i, id)
  if ARGV[i + 9] == '' then
    return false
  end
  for _, entry in ipairs(redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1000)) do
    local fields = entry[2]
    if fields[2] == 'added' and fields[4] == id then
      return true
    end
  end
  return false
end

local ids = { 0 }
local waiting_batch = {}
local lifo_batch = {}
local prioritized_batch = {}
local any_waiting, any_delayed = false, false

for i = FIRST, #ARGV, GROUP do
  local own_id = ARGV[i + 1]
  local id = own_id ~= '' and own_id or ARGV[i]
  local job_key = base .. id
  local fresh = true
  if own_id ~= '' then
    if redis.call('EXISTS', job_key) == 1 then
      fresh = false
      if not stored_before(i, job_key) then
        redis.call('XADD', events, 'MAXLEN', '~', max_length, '*', 'event', 'duplicated', 'jobId', id)
      end
    end
  elseif some_taken and redis.call('EXISTS', job_key) == 1 then
    if stored_before(i, job_key) then
      fresh = false
    else
      -- The counter was reset and has passed our numbers since: somebody else's job stands there.
      repeat
        id = tostring(redis.call('INCR', counter_key))
        job_key = base .. id
      until redis.call('EXISTS', job_key) == 0
    end
  end
  ids[#ids + 1] = id

  if fresh and not added_and_gone(i, id) then
    local name, timestamp = ARGV[i + 2], ARGV[i + 5]
    local delay, priority = tonumber(ARGV[i + 6]), tonumber(ARGV[i + 7])
    redis.call('HSET', job_key, 'name', name, 'data', ARGV[i + 3], 'opts', ARGV[i + 4], 'timestamp', timestamp,
      'delay', ARGV[i + 6], 'priority', ARGV[i + 7])
    redis.call('XADD', events, '*', 'event', 'added', 'jobId', id, 'name', name)
    if delay > 0 then
      add_delayed(q, id, tonumber(timestamp) + delay, max_length)
      any_delayed = true
    else
      if priority > 0 then
        prioritized_batch[#prioritized_batch + 1] = priority
        prioritized_batch[#prioritized_batch + 1] = id
      elseif ARGV[i + 8] ~= '' then
        lifo_batch[#lifo_batch + 1] = id
      else
        waiting_batch[#waiting_batch + 1] = id
      end
      redis.call('XADD', events, 'MAXLEN', '~', max_length, '*', 'event', 'waiting', 'jobId', id)
      any_waiting = true
    end
  end
end

-- The two ends of the list don't see each other, so each end's order is that of the jobs given.
if #waiting_batch > 0 then
  redis.call('LPUSH', wait, unpack(waiting_batch))
end
if #lifo_batch > 0 then
  redis.call('RPUSH', wait, unpack(lifo_batch))
end
if #prioritized_batch > 0 then
  local count = #prioritized_batch / 2
  local place = redis.call('INCRBY', pc, count) - count
  for i = 1, #prioritized_batch, 2 do
    place = place + 1
    prioritized_batch[i] = priority_score(prioritized_batch[i], place)
  end
  redis.call('ZADD', prioritized, unpack(prioritized_batch))
end
if any_waiting then
  mark_base(q)
end
if any_delayed then
  mark_delay(q)
end
if reserve > 0 then
  ids[1] = redis.call('INCRBY', counter_key, reserve)
end
return ids
