-- @include "includes/mark_base"
-- @include "includes/mark_delay"
-- @include "includes/add_waiting"
-- @include "includes/integer_text"
--[[
  release_parent: a parent that waited for its children goes on to be run, at the front, or after its own delay.

  `pq` are the keys of the parent's queue.
]]
local function release_parent(pq, parent_id, now)
  local stored = redis.call('HMGET', pq.base .. parent_id, 'priority', 'delay')
  local priority = tonumber(stored[1]) or 0
  local delay = tonumber(stored[2]) or 0
  if delay > 0 then
    local due = now + delay
    redis.call('ZADD', pq.delayed, integer_text(due * 4096), parent_id)
    redis.call('XADD', pq.events, '*', 'event', 'delayed', 'jobId', parent_id, 'delay', string.format('%.15g', due))
    mark_delay(pq)
    return
  end
  add_waiting(pq, parent_id, priority, true)
  mark_base(pq)
  redis.call('XADD', pq.events, '*', 'event', 'waiting', 'jobId', parent_id, 'prev', 'waiting-children')
end
