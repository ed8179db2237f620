--[[
  upsert_job_scheduler: make or replace a job scheduler, and the job that is its next.

  A job that waits for its time already gives way to the new one, in the same slot where neither interval nor pattern
  has changed; one that runs or has ended is left alone.

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
    1 base             string   qualified queue name with trailing colon
    2 now_ms           integer  milliseconds
    3 max_events       integer  length of the events stream, empty to leave the queue's own
    4 version          string   what to store as the writer's version where none is stored, empty for nothing
    5 scheduler        string   its id
    6 opts             string   of the job: JSON object without jobId, delay and prevMillis
    7 data             string   of the job: JSON text
    8 due              integer  milliseconds, where a pattern says it, else empty
    9 offset           integer  milliseconds, of an interval, or empty
    10 priority        integer  of the job
    11 lifo            string   "1" for a job that runs before the standard ones that wait, or empty
    12 fixed           string   "1" where `due` must not move to the slot of a job that gives way, or empty
    13 again           string   "1" when this was sent before, or empty
    14 hash_seed       string   what the choice of an H in the pattern depends on, or empty
    15.. fields        groups of two: name and value of a field of its record, as they are stored
  RETURNS
    {id, delay, opts}    the job that was made, with its delay and options as they are stored
    SCHEDULER_COLLISION  by pattern: a job has the time already, and does not wait any more
    SCHEDULER_BUSY       by interval: the next 32 slots are taken
    KEY_CORRUPT          its record is something else
  EVENTS
    added, waiting, delayed
]]
local wait, paused, active, prioritized, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local marker, meta, events, pc, schedulers = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local base, now, wanted_length, version, scheduler = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local opts, data, given_due, given_offset, priority = ARGV[6], ARGV[7], tonumber(ARGV[8]), ARGV[9], tonumber(ARGV[10])
local lifo, fixed, again, hash_seed = ARGV[11] ~= '', ARGV[12] ~= '', ARGV[13] ~= '', ARGV[14]
-- @include "includes/add_iteration"
-- @include "includes/drop_pending"
-- @include "includes/next_every"
-- @include "includes/pending_place"
-- @include "includes/settle_meta"

local TRIES = 32
local q = { base = base, wait = wait, paused = paused, active = active, prioritized = prioritized, delayed = delayed,
  marker = marker, meta = meta, events = events, pc = pc }
local record_key = base .. 'repeat:' .. scheduler
local fields = {}
for i = 15, #ARGV, 2 do
  fields[ARGV[i]] = ARGV[i + 1]
end

local function job_key(due)
  return record_key .. ':' .. integer_text(due)
end

-- What the choice of an H depended on when a job was made.
local function seed_of(key)
  local ok, job_opts = pcall(cjson.decode, redis.call('HGET', key, 'opts') or '')
  local series = ok and type(job_opts) == 'table' and job_opts['repeat']
  local seed = type(series) == 'table' and series.hashSeed
  return type(seed) == 'string' and seed or ''
end

local stored = redis.pcall('HMGET', record_key, 'ic', 'every', 'offset', 'pattern', 'tz', 'startDate')
if stored.err then
  return CODE.KEY_CORRUPT
end
if again and fixed and redis.call('EXISTS', job_key(given_due)) == 1 then
  local job = redis.call('HMGET', job_key(given_due), 'delay', 'opts')
  return { 'repeat:' .. scheduler .. ':' .. integer_text(given_due), job[1] or '0', job[2] or '{}' }
end

local every = tonumber(fields.every)
local previous = tonumber(redis.call('ZSCORE', schedulers, scheduler))
local same_every = every and tonumber(stored[2]) == every
local same_pattern = fields.pattern and stored[4] == fields.pattern and stored[5] == (fields.tz or false)
  and stored[6] == (fields.startDate or false)
local due, phase = given_due, 0
if every then
  due, phase = next_every(same_every and previous or nil, every, tonumber(given_offset) or 0, now,
    tonumber(fields.startDate))
end
local pending_in = previous and pending_place(q, 'repeat:' .. scheduler .. ':' .. integer_text(previous))
if pending_in then
  -- A pattern is not counted from now where it is the same: what was due while nobody could run it would be skipped, and
  -- a time before this job's, which had one before, would get another.
  local same = same_every or (same_pattern and not fixed and previous <= (tonumber(fields.endDate) or previous)
    and seed_of(job_key(previous)) == hash_seed)
  if same then
    due = previous
  end
  phase = given_offset ~= '' and given_offset or stored[3]
end
-- Looked at before anything goes: who is refused keeps what there was.
local tries = 0
while not (pending_in and due == previous) and redis.call('EXISTS', job_key(due)) == 1 do
  if not every then
    return CODE.SCHEDULER_COLLISION
  end
  if tries == TRIES then
    return CODE.SCHEDULER_BUSY
  end
  due = due + every
  tries = tries + 1
end

if pending_in then
  drop_pending(q, 'repeat:' .. scheduler .. ':' .. integer_text(previous), pending_in)
end
local max_length = settle_meta(q, wanted_length, version)
redis.call('ZADD', schedulers, integer_text(due), scheduler)
redis.call('DEL', record_key)
redis.call('HSET', record_key, 'ic', stored[1] or '1', unpack(ARGV, 15))
if phase then
  redis.call('HSET', record_key, 'offset', phase)
end
return { add_iteration(q, { scheduler = scheduler, name = fields.name, data = data, opts = opts, priority = priority,
  lifo = lifo, deduplication_id = '', by_time = not every }, due, now, max_length) }
