--[[
  add_jobs: store new jobs and queue each of them, as if they had been added one by one.

  The caller reserves the id numbers beforehand, so that it knows each job's id even when the reply is lost, and may
  send the same jobs again: a job marked as sent before that is found stored, or of which the events say what became
  of it, is left alone.

  KEYS
    1 wait         LIST    ids of waiting standard jobs
    2 active       LIST    ids of active jobs
    3 prioritized  ZSET    ids of waiting jobs with a priority
    4 delayed      ZSET    ids of delayed jobs
    5 completed    ZSET    ids of completed jobs
    6 marker       ZSET    what waiting workers block on
    7 meta         HASH    settings of the queue
    8 events       STREAM  events of the queue
    9 id           STRING  id counter
    10 pc          STRING  count of prioritized jobs
  ARGV
    1 base           string   qualified queue name with trailing colon
    2 reserve        integer  how many id numbers to reserve for the next call
    3 max_events     integer  length of the events stream, empty to leave the queue's own
    4 version        string   what to store as the writer's version where none is stored, empty for nothing
    5 since          string   id of an event from before jobs sent again were first sent, or empty
    6 highest        integer  the highest id number of these jobs
    7.. jobs         packed (all_packed), groups of six: number (reserved id number), name, data, opts (JSON texts),
                     timestamp, more (false, or a map of what few jobs have: job_id (an own id), delay, priority, lifo,
                     again ("1" when sent before), parent_key and parent (JSON), deduplication_id, ttl (ms), extend,
                     replace, reschedule and keep_last ("1"))
  RETURNS
    {n, event, jobs} highest id number now reserved; the id of an event that was the last, or empty; packed, for each job
                     its id, or {id} of the job that stands for it, or a code
    IDS_VOID         the counter was set back below the numbers given; nothing was stored or reserved
    PARENT_MISSING   of a job: its parent does not exist
    OTHER_PARENT     of a job: its id is taken by the child of another parent
    KEY_CORRUPT      of a job: its parent's or deduplication's key, or the job under its id, is something else
  EVENTS
    added, waiting, delayed, duplicated, deduplicated, removed
]]
local wait, active, prioritized, delayed, completed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local marker, meta, events, counter_key, pc = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local base, reserve, wanted_length, version, since, highest = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
-- @include "includes/all_packed"
-- @include "includes/gather_new"
-- @include "includes/new_batch"
-- @include "includes/push_new"
-- @include "includes/settle_meta"
-- @include "includes/store_new"

local q = { base = base, wait = wait, active = active, prioritized = prioritized, delayed = delayed,
  completed = completed, marker = marker, meta = meta, events = events, pc = pc, batch = new_batch() }
local given = all_packed(ARGV, 7)
local GROUP = 6

-- Numbers above the counter belong to nobody: the counter was deleted or set back, and whoever counts from there will
-- give the same numbers to other jobs. What it was follows from what it is once numbers are reserved, without a call.
local reserved, counted = 0, nil
if reserve ~= '0' then
  reserved = redis.call('INCRBY', counter_key, reserve)
  counted = reserved - reserve
else
  counted = tonumber(redis.call('GET', counter_key)) or 0
end
if #given > 0 and counted < tonumber(highest) then
  -- Nobody has heard of what was reserved: the next number is the one that follows the counter.
  if reserved > 0 then
    if counted > 0 then
      redis.call('DECRBY', counter_key, reserve)
    else
      redis.call('DEL', counter_key)
    end
  end
  return CODE.IDS_VOID
end

local max_length = settle_meta(q, wanted_length, version)

local own_keys = {}
for at = 1, #given, GROUP do
  local more = given[at + 5]
  if not (more and more.job_id) then
    own_keys[#own_keys + 1] = base .. given[at]
  end
end
local some_taken = #own_keys > 0 and redis.call('EXISTS', unpack(own_keys)) > 0
local reply = { reserved, '' }

-- What is asked only of jobs that are not plain, or whose number may be taken. It needs half of all functions, and making
-- those would be a tenth of the cost of adding one job.
local function examiner()
  -- @include "includes/attach_existing"
  -- @include "includes/deduplicate"
  -- @include "includes/mark_delay"
  -- @include "includes/parent_of"
  -- @include "includes/release_if_done"
  -- @include "includes/told_of_jobs"
  local told = nil

  -- What the events say became of a job that is sent again, as it would have been replied.
  local function told_of(id)
    told = told or told_of_jobs(events, since, 1000)
    return told[id]
  end

  -- The same job as in an earlier call whose reply was lost, or another one under its id?
  local function stored_before(at, job_key)
    -- Its data may have been replaced since. What is no job is not ours either.
    local found = redis.pcall('HMGET', job_key, 'name', 'timestamp')
    return not found.err and found[1] == given[at + 1] and found[2] == given[at + 4]
  end

  -- What comes with few jobs: a parent, a deduplication id. Returns what to reply instead of storing the job, or nil.
  local function refused(at, id, exists, more)
    if exists then
      if not more.parent_key then
        return nil
      end
      -- A parent that this releases queues behind the jobs before this one.
      push_new(q)
      local code, completed = attach_existing(q, id, more.parent_key, more.parent)
      if completed then
        local _, parent_id, pq = parent_of(more.parent_key, more.parent)
        release_if_done(pq, parent_id, tonumber(given[at + 4]))
      end
      return code
    end
    if more.deduplication_id then
      if more.replace and q.batch.any_delayed then
        -- The marker must not forget when a job that is about to be replaced was due.
        mark_delay(q)
      end
      local owner, event, rescheduled = deduplicate(q, more, { id = id, name = given[at + 1], data = given[at + 2],
        opts = given[at + 3], timestamp = tonumber(given[at + 4]), delay = more.delay or '0' }, max_length)
      q.batch.any_delayed = q.batch.any_delayed or rescheduled
      reply[2] = event or reply[2]
      if owner then
        return owner
      end
    end
    if more.parent_key then
      -- Before anything is stored, because it may fail.
      local added = redis.pcall('SADD', more.parent_key .. ':dependencies', base .. id)
      return type(added) == 'table' and CODE.KEY_CORRUPT or nil
    end
    return nil
  end

  -- The id to store a job under, and what to reply instead, or nil.
  return function(at, more)
    local own_id = more and more.job_id
    local id = own_id or given[at]
    local job_key = base .. id
    local again = more and more.again
    local exists = (own_id or some_taken) and redis.call('EXISTS', job_key) == 1
    if exists and again and stored_before(at, job_key) then
      return id, id
    end
    local before = again and told_of(id)
    if before and (not exists or (type(before) == 'table' and before[1] ~= id)) then
      -- What it made has run and gone since, or another job stood for it.
      return id, before
    elseif more and more.parent_key and redis.call('EXISTS', more.parent_key) == 0 then
      return id, CODE.PARENT_MISSING
    elseif exists and not own_id then
      -- The counter was reset and has passed our numbers since: somebody else's job stands there.
      repeat
        id = tostring(redis.call('INCR', counter_key))
      until redis.call('EXISTS', base .. id) == 0
      exists = false
    end
    local answer = more and refused(at, id, exists, more)
    if not answer and exists then
      reply[2] = redis.call('XADD', events, 'MAXLEN', '~', max_length, '*', 'event', 'duplicated', 'jobId', id)
      answer = { id }
    end
    return id, answer
  end
end

local examined = nil
local answers = {}
for at = 1, #given, GROUP do
  local more = given[at + 5]
  local id, answer = given[at], nil
  if more or some_taken then
    examined = examined or examiner()
    id, answer = examined(at, more)
  end
  answers[#answers + 1] = answer or id
  local is_last = at + GROUP > #given
  if not answer then
    reply[2] = store_new(q, id, given, at + 1, more)
    gather_new(q, id, given[at + 4], more, is_last and max_length)
  elseif is_last then
    redis.call('XTRIM', events, 'MAXLEN', '~', max_length)
  end
end

push_new(q)
if #given == 0 then
  local last = redis.call('XREVRANGE', events, '+', '-', 'COUNT', 1)
  reply[2] = last[1] and last[1][1] or ''
else
  -- Redis gives out each part of a reply by itself, which costs it ten times what packing it does.
  reply[3] = cmsgpack.pack(answers)
end
return reply
