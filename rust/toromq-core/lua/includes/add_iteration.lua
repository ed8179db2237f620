-- @include "includes/add_delayed"
-- @include "includes/add_waiting"
-- @include "includes/integer_text"
-- @include "includes/mark_base"
-- @include "includes/mark_delay"
--[[
  add_iteration: store a job of a job scheduler, due at `due`, and queue it. Gives its delay and its options, as texts.

  `job` has scheduler, name, data, opts (JSON object without jobId, delay and prevMillis), priority, lifo, by_time
  (whether the time of the job is to be told to whoever makes the next) and deduplication_id, which may be empty. That
  id is stored but claims nothing.
]]
local function add_iteration(q, job, due, now, max_length)
  local id = 'repeat:' .. job.scheduler .. ':' .. integer_text(due)
  local delay = math.max(0, due - now)
  local delay_text = integer_text(delay)
  -- Not decoded: that would lose empty lists and digits.
  local opts = string.sub(job.opts, 1, -2) .. ',"jobId":' .. cjson.encode(id) .. ',"delay":' .. delay_text
    .. (job.by_time and ',"prevMillis":' .. integer_text(due) or '') .. '}'
  redis.call('INCR', q.base .. 'id')
  redis.call('HSET', q.base .. id, 'name', job.name, 'data', job.data, 'opts', opts, 'timestamp', integer_text(now),
    'delay', delay_text, 'priority', integer_text(job.priority), 'rjk', job.scheduler)
  if job.deduplication_id ~= '' then
    redis.call('HSET', q.base .. id, 'deid', job.deduplication_id)
  end
  redis.call('XADD', q.events, '*', 'event', 'added', 'jobId', id, 'name', job.name)
  if delay > 0 then
    add_delayed(q, id, due, max_length)
    mark_delay(q)
  else
    add_waiting(q, id, job.priority, job.lifo)
    mark_base(q)
    redis.call('XADD', q.events, 'MAXLEN', '~', max_length, '*', 'event', 'waiting', 'jobId', id)
  end
  return id, delay_text, opts
end
