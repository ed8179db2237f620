--[[
  finish_and_fetch: write down what became of a worker's active jobs and give it the next ones.

  Both halves may be empty: without jobs it only fetches, with want 0 it only finishes. Each job is checked by itself; one
  that is refused leaves the others alone. A job that is sent again because the reply was lost is looked at first: where
  the outcome already stands in Redis that counts as success.

  KEYS
    1 wait         LIST    ids of waiting standard jobs
    2 active       LIST    ids of active jobs
    3 prioritized  ZSET    ids of waiting jobs with a priority
    4 delayed      ZSET    ids of delayed jobs
    5 completed    ZSET    ids of completed jobs
    6 failed       ZSET    ids of failed jobs
    7 stalled      SET     ids suspected of having stalled
    8 limiter      STRING  jobs started in the current rate window
    9 marker       ZSET    what waiting workers block on
    10 meta        HASH    settings of the queue
    11 events      STREAM  events of the queue
    12 pc          STRING  count of prioritized jobs
    13 metrics_completed  HASH  per-minute series of completed jobs
    14 metrics_failed     HASH  per-minute series of failed jobs
  ARGV
    1 base              string   qualified queue name with trailing colon
    2 now_ms            string   milliseconds; or "+" and how far the worker's clock is ahead of the server's, for a call
                        that only fetches and may run long after it was sent
    3 want              integer  how many jobs to fetch at most
    4 token             string   lock token for the fetched jobs
    5 lock_duration_ms  integer  milliseconds
    6 worker_name       string   stored on fetched jobs, or empty
    7 limiter_max       integer  the worker's own rate limit, or empty
    8 limiter_duration  integer  milliseconds, or empty
    9 metrics_points    integer  length of the per-minute series, or empty for none
    10.. jobs           packed (all_packed), groups of six: id, token, outcome (completed, failed, retry, delay or wait),
                        value (returnvalue as JSON, failedReason as text, or empty), fields (how many fields its hash has
                        since it began, where it was its first attempt and it had no parent, deduplication id or decided
                        failure; else false), more (false, or a map of what few jobs have: stacktrace (JSON), trace (what
                        is stored as `tm`), keep ("count:age:limit"), number (attempts for failed, milliseconds for delay;
                        for wait the milliseconds for which no job shall start), flag (retry: "1" for lifo; delay: "1" to
                        count the attempt), before (when sent again: attempts made before, or attempts started for wait and
                        a delay that does not count))
  RETURNS
    {codes, fetched, drained, limited}  codes: 0 or a code for each job, or none where all are 0; fetched: what fetch_jobs returns, or empty
                        without fetching; drained: 1 when the queue ran empty; limited: for outcome wait, ms until the
                        rate limit ends
    JOB_MISSING         the job's hash does not exist
    JOB_CORRUPT         the job's key holds something else
    PENDING_CHILDREN    completed, but children are pending
    FAILED_CHILDREN     completed, but a child failed that fails its parent
    LOCK_MISSING        the lock had run out
    LOCK_MISMATCH       another worker holds the lock
    JOB_NOT_IN_STATE    the job is not active
  EVENTS
    completed, failed, retries-exhausted, waiting, delayed, added, active, drained
]]
local wait, active, prioritized, delayed, completed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local failed, stalled, limiter, marker, meta = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local events, pc, metrics_completed, metrics_failed = KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local base, now_text, want, token, lock_duration = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local worker_name, limiter_max, limiter_duration, points = ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])
-- @include "includes/all_packed"
-- @include "includes/fetch_jobs"

local now = tonumber(now_text)
local standard = nil
if string.sub(now_text, 1, 1) == '+' then
  -- What an idle worker waited for is mostly a standard job, or nothing: two calls tell that.
  if redis.call('EXISTS', prioritized, pc, delayed, limiter) == 0 then
    standard = redis.call('LRANGE', wait, -want, -1)
    if #standard == 0 then
      return { {}, { {}, 0, 0, {}, 0 }, 0, 0 }
    end
  end
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(string.sub(now_text, 2))
end
local q = { base = base, wait = wait, active = active, prioritized = prioritized, delayed = delayed, failed = failed,
  limiter = limiter, marker = marker, meta = meta, events = events, pc = pc }
local given = all_packed(ARGV, 10)
local GROUP = 6
local count = #given / GROUP

local function fetch(is_look)
  return fetch_jobs(q, now, want, { token = token, lock_duration = lock_duration, worker_name = worker_name,
    limiter_max = tonumber(limiter_max), limiter_duration = tonumber(limiter_duration), is_look = is_look,
    standard = standard })
end

if count == 0 then
  return { {}, fetch(true), 0, 0 }
end

-- @include "includes/delete_job_keys"
-- @include "includes/max_events"
local NOTHING = {}
-- What is read of a job that has nothing but its fields.
local PLAIN = { true }

-- Whether the outcome of a job that is sent again already stands in Redis: more attempts made than before, and for a
-- finished one our own value and time. An end that is no attempt left `active`, or was begun again since.
local function stands_already(at, code, job, job_key)
  local more = given[at + 5] or NOTHING
  local before = tonumber(more.before)
  if not before or code == CODE.JOB_CORRUPT then
    return false
  end
  local outcome = given[at + 2]
  if not job then
    -- Removed, by its keep policy or by somebody: there is nothing left that could be written.
    return outcome == 'completed' or outcome == 'failed'
  end
  if outcome == 'completed' or outcome == 'failed' then
    local field = outcome == 'completed' and 'returnvalue' or 'failedReason'
    local stored = redis.call('HMGET', job_key, field, 'finishedOn')
    return stored[1] == given[at + 3] and stored[2] == now_text
  end
  if outcome == 'wait' or (outcome == 'delay' and not more.flag) then
    -- @include "includes/in_list"
    return (tonumber(redis.call('HGET', job_key, 'ats')) or 0) > before or not in_list(active, given[at])
  end
  return (tonumber(job[5]) or 0) > before
end

local max_length = max_events(q)
-- One call answers for the whole batch what is nearly always true: no job has children left.
local keys, locks_of, children_of = {}, {}, {}
local of = { completed = 0, failed = 0 }
for n = 1, count do
  local at = (n - 1) * GROUP + 1
  local job_key, outcome = base .. given[at], given[at + 2]
  keys[n] = job_key
  locks_of[n] = job_key .. ':lock'
  if outcome == 'completed' then
    children_of[#children_of + 1] = job_key .. ':dependencies'
    children_of[#children_of + 1] = job_key .. ':unsuccessful'
  end
  if of[outcome] then
    of[outcome] = of[outcome] + 1
  end
end
-- Fails before anything is written where one of them is something else; after that a job would be in no state.
redis.call('XLEN', events)
if of.completed > 0 then
  redis.call('ZCARD', completed)
end
if of.failed > 0 then
  redis.call('ZCARD', failed)
end
local locks = redis.call('MGET', unpack(locks_of))
local some_children = of.completed > 0 and redis.call('EXISTS', unpack(children_of)) > 0

-- Who may leave `active`: read each job, then look at its children, then at its lock.
local codes = {}
local jobs, leaving, unlocked, unlocked_ids = {}, {}, {}, {}
for n = 1, count do
  local at = (n - 1) * GROUP + 1
  local id, outcome, job_key = given[at], given[at + 2], keys[n]
  local code = 0
  local job = PLAIN
  -- Where a job has as many fields as when it began, none was added: no parent either. That costs half of reading them,
  -- which is 1 us of the 30 of a finish and fetch.
  if not given[at + 4] or redis.pcall('HLEN', job_key) ~= given[at + 4] then
    job = redis.pcall('HMGET', job_key, 'name', 'parentKey', 'parent', 'deid', 'atm', 'priority')
    if job.err then
      code = CODE.JOB_CORRUPT
      job = nil
    elseif not job[1] and redis.call('EXISTS', job_key) == 0 then
      code = CODE.JOB_MISSING
      job = nil
    end
  end
  if code == 0 and some_children and outcome == 'completed' then
    if redis.call('SCARD', job_key .. ':dependencies') > 0 then
      code = CODE.PENDING_CHILDREN
    elseif redis.call('ZCARD', job_key .. ':unsuccessful') > 0 then
      code = CODE.FAILED_CHILDREN
    end
  end
  if code == 0 and given[at + 1] ~= '0' then
    -- Named before in this batch, it has no lock any more.
    if not locks[n] or leaving[id] then
      code = CODE.LOCK_MISSING
    elseif locks[n] ~= given[at + 1] then
      code = CODE.LOCK_MISMATCH
    else
      unlocked[#unlocked + 1] = locks_of[n]
      unlocked_ids[#unlocked_ids + 1] = id
    end
  end
  if code == 0 then
    leaving[id] = n
  elseif stands_already(at, code, job, job_key) then
    code = 0
    job = nil
  end
  jobs[n] = code == 0 and job or nil
  codes[n] = code
end
if #unlocked > 0 then
  redis.call('DEL', unpack(unlocked))
  redis.call('SREM', stalled, unpack(unlocked_ids))
end

if count > 1 then
  -- Jobs that were fetched first stand at the tail, and mostly finish first: cut them off in one call.
  local tail = redis.call('LRANGE', active, -count, -1)
  local cut = 0
  while cut < #tail and leaving[tail[#tail - cut]] do
    leaving[tail[#tail - cut]] = nil
    cut = cut + 1
  end
  if cut > 0 then
    redis.call('LTRIM', active, 0, -(cut + 1))
  end
end
for id, n in pairs(leaving) do
  if redis.call('LREM', active, -1, id) == 0 then
    codes[n] = CODE.JOB_NOT_IN_STATE
    jobs[n] = nil
  end
end

-- Children of one parent hand in their results together, as far as nothing that happens between them could tell: before
-- the event of the last of them, and before whatever looks at their parent. 64 of them are then 5 calls instead of 192.
local last_of, families = {}, {}
local function family_of(job)
  return job[2] .. '\n' .. (job[3] or '')
end
for n = 1, count do
  local job = jobs[n]
  if job and job[2] and given[(n - 1) * GROUP + 3] == 'completed' then
    last_of[family_of(job)] = n
  end
end
local function hand_in(family)
  -- @include "includes/children_completed"
  local group = families[family]
  families[family] = nil
  children_completed(group.parent_key, group.parent_json, group.results, now)
end
local function hand_in_all()
  for n = 1, count do
    local family = jobs[n] and jobs[n][2] and family_of(jobs[n])
    if family and families[family] then
      hand_in(family)
    end
  end
end

local finished_lists = { completed = completed, failed = failed }
local entering = { completed = {}, failed = {} }
local finished = { completed = 0, failed = 0 }
local keep_of = { completed = nil, failed = nil }
local marks = { any_delayed = false, any_waiting = false, limited = false }

-- Keep policies look at the finished jobs as they stand, so those must have entered before.
local function enter(target)
  local batch = entering[target]
  if #batch > 0 then
    redis.call('ZADD', finished_lists[target], unpack(batch))
    entering[target] = {}
  end
  if keep_of[target] then
    -- @include "includes/keep_finished"
    hand_in_all()
    local kept, age, limit = string.match(keep_of[target], '^(%-?%d*):([%d%.]*):(%d*)$')
    keep_finished(q, finished_lists[target], { count = tonumber(kept), age = tonumber(age), limit = tonumber(limit) },
      now)
    keep_of[target] = nil
  end
end

-- What is done with jobs that are not finished, and so is made only where there are such.
local function putter()
  -- @include "includes/add_delayed"
  -- @include "includes/add_waiting"
  -- @include "includes/is_blocked"
  -- @include "includes/limit_rate"
  -- @include "includes/priority_score"
  -- @include "includes/promote_due"
  local any_retried = false
  return function(id, job_key, job, outcome, value, more)
    local fields = {}
    local function put(name, field)
      fields[#fields + 1] = name
      fields[#fields + 1] = field
    end
    if value ~= '' then
      put('failedReason', value)
    end
    if more.trace then
      put('tm', more.trace)
    end
    if more.stacktrace then
      put('stacktrace', more.stacktrace)
    end
    if outcome == 'retry' or more.flag then
      put('atm', (tonumber(job[5]) or 0) + 1)
    end
    if outcome == 'delay' then
      put('delay', more.number)
    end
    if #fields > 0 then
      redis.call('HSET', job_key, unpack(fields))
    end
    if outcome == 'delay' then
      add_delayed(q, id, now + tonumber(more.number), nil)
      marks.any_delayed = true
      return
    end
    local priority = tonumber(job[6]) or 0
    if outcome == 'retry' then
      if not any_retried then
        -- Jobs that are due go ahead of the one that failed.
        promote_due(q, now, is_blocked(q))
        any_retried = true
      end
      add_waiting(q, id, priority, more.flag)
      marks.any_waiting = true
    else
      -- Back to where it was taken from: it is the next of its kind to run.
      if priority > 0 then
        redis.call('ZADD', prioritized, priority_score(priority, 0), id)
      else
        redis.call('RPUSH', wait, id)
        marks.any_waiting = true
      end
      if more.number then
        limit_rate(limiter, more.number)
      end
      marks.limited = true
    end
    redis.call('XADD', events, '*', 'event', 'waiting', 'jobId', id, 'prev', 'active')
  end
end

local put_back = nil
local any_written = false
for n = 1, count do
  local job = jobs[n]
  if job then
    any_written = true
    local at = (n - 1) * GROUP + 1
    local id, outcome, value, more, job_key = given[at], given[at + 2], given[at + 3], given[at + 5] or NOTHING, keys[n]
    if outcome == 'completed' or outcome == 'failed' then
      local made = (tonumber(job[5]) or 0) + 1
      if job[4] then
        -- @include "includes/finish_deduplication"
        finish_deduplication(q, id, job[4], now, max_length)
      end
      if job[2] then
        local family = family_of(job)
        if outcome == 'completed' then
          local group = families[family] or { parent_key = job[2], parent_json = job[3], results = {} }
          families[family] = group
          group.results[#group.results + 1] = job_key
          group.results[#group.results + 1] = value
          if last_of[family] == n then
            hand_in(family)
          end
        else
          -- @include "includes/child_failed"
          hand_in_all()
          -- Its parent may be one of those that failed before it in this call, which is past all help.
          enter('failed')
          child_failed(job_key, job[2], job[3], value, now)
        end
      end
      local keep = more.keep
      if keep and string.sub(keep, 1, 2) == '0:' then
        delete_job_keys(job_key)
        -- A completed child is none of its parent's pending ones any more, or will be none at once.
        if job[2] and outcome == 'failed' then
          -- @include "includes/detach_child"
          detach_child(job_key, job[2], job[3])
        end
      else
        if keep ~= keep_of[outcome] then
          enter(outcome)
          keep_of[outcome] = keep
        end
        local batch = entering[outcome]
        batch[#batch + 1] = now_text
        batch[#batch + 1] = id
        if outcome == 'completed' then
          redis.call('HSET', job_key, 'atm', made, 'returnvalue', value, 'finishedOn', now_text)
        else
          local fields = { 'atm', made, 'failedReason', value, 'finishedOn', now_text }
          if more.trace then
            fields[#fields + 1] = 'tm'
            fields[#fields + 1] = more.trace
          end
          if more.stacktrace then
            fields[#fields + 1] = 'stacktrace'
            fields[#fields + 1] = more.stacktrace
          end
          redis.call('HSET', job_key, unpack(fields))
          if job ~= PLAIN then
            redis.call('HDEL', job_key, 'defa')
          end
        end
      end
      finished[outcome] = finished[outcome] + 1
      if outcome == 'completed' then
        redis.call('XADD', events, '*', 'event', 'completed', 'jobId', id, 'returnvalue', value, 'prev', 'active')
      else
        redis.call('XADD', events, '*', 'event', 'failed', 'jobId', id, 'failedReason', value, 'prev', 'active')
        if made >= tonumber(more.number) then
          redis.call('XADD', events, '*', 'event', 'retries-exhausted', 'jobId', id, 'attemptsMade', made)
        end
      end
    else
      put_back = put_back or putter()
      put_back(id, job_key, job, outcome, value, more)
    end
  end
end

enter('completed')
enter('failed')
if any_written then
  redis.call('XTRIM', events, 'MAXLEN', '~', max_length)
end
if points and finished.completed + finished.failed > 0 then
  -- @include "includes/count_finished"
  if finished.completed > 0 then
    count_finished(metrics_completed, finished.completed, points, now)
  end
  if finished.failed > 0 then
    count_finished(metrics_failed, finished.failed, points, now)
  end
end
if marks.any_waiting then
  -- @include "includes/mark_base"
  mark_base(q)
end
if marks.any_delayed then
  -- @include "includes/mark_delay"
  mark_delay(q)
end
local limited_ms = marks.limited and math.max(0, redis.call('PTTL', limiter)) or 0

local fetched = {}
if want > 0 then
  fetched = fetch(false)
elseif q.settings[2] then
  -- Nobody marked what waits while as many were active as may be, and no fetch does it now.
  -- @include "includes/mark_waiting"
  mark_waiting(q)
end
local drained = 0
local nothing_next = want == 0 or (#fetched[1] == 0 and fetched[2] == 0 and fetched[3] == 0 and fetched[5] == 0)
if nothing_next and finished.completed + finished.failed > 0 and redis.call('EXISTS', wait, active, prioritized) == 0 then
  redis.call('XADD', events, '*', 'event', 'drained')
  drained = 1
end
local any_refused = false
for n = 1, count do
  any_refused = any_refused or codes[n] ~= 0
end
return { any_refused and codes or {}, fetched, drained, limited_ms }
