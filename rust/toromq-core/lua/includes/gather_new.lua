-- @include "includes/add_delayed"
--[[
  gather_new: take a new job into `q.batch`, by its delay, its priority and whether it runs before what waits (`lifo` is
  not empty), and say where it will be.
]]
local function gather_new(q, id, timestamp, delay, priority, lifo, max_length)
  local batch = q.batch
  if delay > 0 then
    add_delayed(q, id, timestamp + delay, max_length)
    batch.any_delayed = true
    return
  end
  if priority > 0 then
    batch.prioritized[#batch.prioritized + 1] = priority
    batch.prioritized[#batch.prioritized + 1] = id
  elseif lifo ~= '' then
    batch.lifo[#batch.lifo + 1] = id
  else
    batch.waiting[#batch.waiting + 1] = id
  end
  redis.call('XADD', q.events, 'MAXLEN', '~', max_length, '*', 'event', 'waiting', 'jobId', id)
  batch.any_waiting = true
end
