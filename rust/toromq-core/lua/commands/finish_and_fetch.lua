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
    10.. jobs           groups of nine: id, token, outcome (completed, failed, retry, delay or wait), value (returnvalue
                        as JSON, failedReason as text, or empty), stacktrace (JSON or empty, and on a line of its own below
                        it what is stored as `tm`), keep ("count:age:limit" or empty), number (attempts for failed, milliseconds for delay; for wait the milliseconds for which
                        no job shall start, or empty), flag (retry: "1" for lifo; delay: "1" to count the attempt),
                        before (when sent again: attempts made before, or attempts started for wait and a delay that
                        does not count; else empty)
  RETURNS
    {codes, fetched, drained, limited}  codes: 0 or a code for each job; fetched: what fetch_jobs returns, or empty
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
-- @include "includes/max_events"
-- @include "includes/in_list"
-- @include "includes/is_blocked"
-- @include "includes/mark_base"
-- @include "includes/mark_waiting"
-- @include "includes/mark_delay"
-- @include "includes/add_waiting"
-- @include "includes/add_delayed"
-- @include "includes/priority_score"
-- @include "includes/limit_rate"
-- @include "includes/delete_job_keys"
-- @include "includes/child_completed"
-- @include "includes/child_failed"
-- @include "includes/detach_child"
-- @include "includes/keep_finished"
-- @include "includes/finish_deduplication"
-- @include "includes/count_finished"
-- @include "includes/promote_due"
-- @include "includes/fetch_jobs"

local now = tonumber(now_text)
if string.sub(now_text, 1, 1) == '+' then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(string.sub(now_text, 2))
end
local q = { base = base, wait = wait, active = active, prioritized = prioritized, delayed = delayed, failed = failed,
  limiter = limiter, marker = marker, meta = meta, events = events, pc = pc }
local GROUP, FIRST = 9, 10
local count = (#ARGV - FIRST + 1) / GROUP
local codes = {}
local max_length = nil

-- Whether the outcome of a job that is sent again already stands in Redis: more attempts made than before, and for a
-- finished one our own value and time. An end that is no attempt left `active`, or was begun again since.
local function stands_already(i, code, job, job_key)
  local before = tonumber(ARGV[i + 8])
  if not before or code == CODE.JOB_CORRUPT then
    return false
  end
  local outcome = ARGV[i + 2]
  if not job then
    -- Removed, by its keep policy or by somebody: there is nothing left that could be written.
    return outcome == 'completed' or outcome == 'failed'
  end
  if outcome == 'completed' or outcome == 'failed' then
    local field = outcome == 'completed' and 'returnvalue' or 'failedReason'
    local stored = redis.call('HMGET', job_key, field, 'finishedOn')
    return stored[1] == ARGV[i + 3] and stored[2] == now_text
  end
  if outcome == 'wait' or (outcome == 'delay' and ARGV[i + 7] == '') then
    return (tonumber(redis.call('HGET', job_key, 'ats')) or 0) > before or not in_list(active, ARGV[i])
  end
  return (tonumber(job[5]) or 0) > before
end

-- The stack of a failed attempt, and what the job keeps of the trace it failed in.
local function write_stack(job_key, stacktrace)
  local stack_end = string.find(stacktrace, '\n', 1, true)
  if stack_end then
    redis.call('HSET', job_key, 'tm', string.sub(stacktrace, stack_end + 1))
    stacktrace = string.sub(stacktrace, 1, stack_end - 1)
  end
  if stacktrace ~= '' then
    redis.call('HSET', job_key, 'stacktrace', stacktrace)
  end
end

if count > 0 then
  max_length = max_events(q)
  -- Fails before anything is written where one of them is something else; after that a job would be in no state.
  redis.call('XLEN', events)
  redis.call('ZCARD', completed)
  redis.call('ZCARD', failed)

  -- One call answers for the whole batch what is nearly always true: no job has children left.
  local locks_of, children_of, completing = {}, {}, 0
  for i = FIRST, #ARGV, GROUP do
    locks_of[#locks_of + 1] = base .. ARGV[i] .. ':lock'
    if ARGV[i + 2] == 'completed' then
      completing = completing + 1
      children_of[#children_of + 1] = base .. ARGV[i] .. ':dependencies'
      children_of[#children_of + 1] = base .. ARGV[i] .. ':unsuccessful'
    end
  end
  local locks = redis.call('MGET', unpack(locks_of))
  local some_children = completing > 0 and redis.call('EXISTS', unpack(children_of)) > 0

  -- Who may leave `active`: read each job, then look at its children, then at its lock.
  local jobs, leaving, unlocked, unlocked_ids = {}, {}, {}, {}
  for n = 1, count do
    local i = FIRST + (n - 1) * GROUP
    local id = ARGV[i]
    local job_key = base .. id
    local job = redis.pcall('HMGET', job_key, 'name', 'parentKey', 'parent', 'deid', 'atm')
    local code = 0
    if job.err then
      code = CODE.JOB_CORRUPT
      job = nil
    elseif not job[1] and redis.call('EXISTS', job_key) == 0 then
      code = CODE.JOB_MISSING
      job = nil
    end
    if code == 0 and some_children and ARGV[i + 2] == 'completed' then
      if redis.call('SCARD', job_key .. ':dependencies') > 0 then
        code = CODE.PENDING_CHILDREN
      elseif redis.call('ZCARD', job_key .. ':unsuccessful') > 0 then
        code = CODE.FAILED_CHILDREN
      end
    end
    if code == 0 and ARGV[i + 1] ~= '0' then
      -- Named before in this batch, it has no lock any more.
      if not locks[n] or leaving[id] then
        code = CODE.LOCK_MISSING
      elseif locks[n] ~= ARGV[i + 1] then
        code = CODE.LOCK_MISMATCH
      else
        unlocked[#unlocked + 1] = locks_of[n]
        unlocked_ids[#unlocked_ids + 1] = id
      end
    end
    if code == 0 then
      leaving[id] = n
    elseif stands_already(i, code, job, job_key) then
      code = 0
      job = nil
    end
    jobs[n] = job
    codes[n] = code
    if code ~= 0 then
      jobs[n] = nil
    end
  end
  if #unlocked > 0 then
    redis.call('DEL', unpack(unlocked))
    redis.call('SREM', stalled, unpack(unlocked_ids))
  end

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
  for id, n in pairs(leaving) do
    if redis.call('LREM', active, -1, id) == 0 then
      codes[n] = CODE.JOB_NOT_IN_STATE
      jobs[n] = nil
    end
  end

  local finished_lists = { completed = completed, failed = failed }
  local entering = { completed = {}, failed = {} }
  local finished = { completed = 0, failed = 0 }
  local keep_of = { completed = '', failed = '' }
  local any_delayed, any_retried, limited_ms = false, false, 0

  -- Keep policies look at the finished jobs as they stand, so those must have entered before.
  local function enter(target)
    local batch = entering[target]
    if #batch > 0 then
      redis.call('ZADD', finished_lists[target], unpack(batch))
      entering[target] = {}
    end
    if keep_of[target] ~= '' then
      local kept, age, limit = string.match(keep_of[target], '^(%-?%d*):([%d%.]*):(%d*)$')
      keep_finished(q, finished_lists[target], { count = tonumber(kept), age = tonumber(age), limit = tonumber(limit) },
        now)
      keep_of[target] = ''
    end
  end

  for n = 1, count do
    local job = jobs[n]
    if job then
      local i = FIRST + (n - 1) * GROUP
      local id, outcome, value, stacktrace, keep = ARGV[i], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
      local job_key = base .. id
      local made = (tonumber(job[5]) or 0) + 1

      if outcome == 'completed' or outcome == 'failed' then
        if job[4] then
          finish_deduplication(q, id, job[4], now, max_length)
        end
        if job[2] then
          if outcome == 'completed' then
            child_completed(job_key, job[2], job[3], value, now)
          else
            -- Its parent may be one of those that failed before it in this call, which is past all help.
            enter('failed')
            child_failed(job_key, job[2], job[3], value, now)
          end
        end
        if string.sub(keep, 1, 2) == '0:' then
          delete_job_keys(job_key)
          if job[2] then
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
            redis.call('HSET', job_key, 'atm', made, 'failedReason', value, 'finishedOn', now_text)
            write_stack(job_key, stacktrace)
            redis.call('HDEL', job_key, 'defa')
          end
        end
        finished[outcome] = finished[outcome] + 1
        if outcome == 'completed' then
          redis.call('XADD', events, '*', 'event', 'completed', 'jobId', id, 'returnvalue', value, 'prev', 'active')
        else
          redis.call('XADD', events, '*', 'event', 'failed', 'jobId', id, 'failedReason', value, 'prev', 'active')
          if made >= tonumber(ARGV[i + 6]) then
            redis.call('XADD', events, '*', 'event', 'retries-exhausted', 'jobId', id, 'attemptsMade', made)
          end
        end
      else
        if value ~= '' then
          redis.call('HSET', job_key, 'failedReason', value)
        end
        write_stack(job_key, stacktrace)
        if outcome == 'delay' then
          local delay = tonumber(ARGV[i + 6])
          if ARGV[i + 7] ~= '' then
            redis.call('HSET', job_key, 'atm', made, 'delay', ARGV[i + 6])
          else
            redis.call('HSET', job_key, 'delay', ARGV[i + 6])
          end
          add_delayed(q, id, now + delay, max_length)
          any_delayed = true
        else
          local priority = tonumber(redis.call('HGET', job_key, 'priority')) or 0
          if outcome == 'retry' then
            if not any_retried then
              -- Jobs that are due go ahead of the one that failed.
              promote_due(q, now, is_blocked(q))
              any_retried = true
            end
            redis.call('HSET', job_key, 'atm', made)
            add_waiting(q, id, priority, ARGV[i + 7] ~= '')
            mark_base(q)
          else
            -- Back to where it was taken from: it is the next of its kind to run.
            if priority > 0 then
              redis.call('ZADD', prioritized, priority_score(priority, 0), id)
            else
              redis.call('RPUSH', wait, id)
              mark_base(q)
            end
            if ARGV[i + 6] ~= '' then
              limit_rate(limiter, ARGV[i + 6])
            end
            limited_ms = math.max(0, redis.call('PTTL', limiter))
          end
          redis.call('XADD', events, 'MAXLEN', '~', max_length, '*', 'event', 'waiting', 'jobId', id, 'prev', 'active')
        end
      end
    end
  end

  enter('completed')
  enter('failed')
  if finished.completed + finished.failed > 0 then
    redis.call('XTRIM', events, 'MAXLEN', '~', max_length)
  end
  if points and finished.completed > 0 then
    count_finished(metrics_completed, finished.completed, points, now)
  end
  if points and finished.failed > 0 then
    count_finished(metrics_failed, finished.failed, points, now)
  end
  if any_delayed then
    mark_delay(q)
  end

  local fetched = {}
  if want > 0 then
    fetched = fetch_jobs(q, now, want, { token = token, lock_duration = lock_duration, worker_name = worker_name,
      limiter_max = tonumber(limiter_max), limiter_duration = tonumber(limiter_duration) })
  elseif redis.call('HEXISTS', meta, 'concurrency') == 1 then
    -- Nobody marked what waits while as many were active as may be, and no fetch does it now.
    mark_waiting(q)
  end
  local drained = 0
  local nothing_next = want == 0 or (#fetched[1] == 0 and fetched[2] == 0 and fetched[3] == 0 and fetched[5] == 0)
  if nothing_next and finished.completed + finished.failed > 0 and redis.call('EXISTS', wait, active, prioritized) == 0 then
    redis.call('XADD', events, '*', 'event', 'drained')
    drained = 1
  end
  return { codes, fetched, drained, limited_ms }
end

local fetched = fetch_jobs(q, now, want, { token = token, lock_duration = lock_duration, worker_name = worker_name,
  limiter_max = tonumber(limiter_max), limiter_duration = tonumber(limiter_duration) })
return { codes, fetched, 0, 0 }
