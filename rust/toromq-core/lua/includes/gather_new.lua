--[[
  gather_new: take a new job into `q.batch`, by what `more` says of its delay, its priority and whether it runs before
  what waits, and say where it will be. With `max_length` the events are trimmed, which is enough once in a call.
]]
local function gather_new(q, id, timestamp, more, max_length)
  local batch = q.batch
  if more then
    local delay = tonumber(more.delay) or 0
    if delay > 0 then
      -- @include "includes/add_delayed"
      add_delayed(q, id, timestamp + delay, max_length)
      batch.any_delayed = true
      return
    end
    local priority = tonumber(more.priority) or 0
    if priority > 0 then
      batch.prioritized[#batch.prioritized + 1] = priority
      batch.prioritized[#batch.prioritized + 1] = id
    elseif more.lifo then
      batch.lifo[#batch.lifo + 1] = id
    else
      batch.waiting[#batch.waiting + 1] = id
    end
  else
    batch.waiting[#batch.waiting + 1] = id
  end
  if max_length then
    redis.call('XADD', q.events, 'MAXLEN', '~', max_length, '*', 'event', 'waiting', 'jobId', id)
  else
    redis.call('XADD', q.events, '*', 'event', 'waiting', 'jobId', id)
  end
  batch.any_waiting = true
end
