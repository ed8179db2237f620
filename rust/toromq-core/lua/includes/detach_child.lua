-- @include "includes/parent_of"
-- @include "includes/mark_base"
--[[
  detach_child: a job goes away, so its parent no longer waits for it.

  A parent left without pending children is put where it runs next, whatever its priority or delay.
]]
local function detach_child(job_key, parent_key, parent_json)
  local key, id, pq = parent_of(parent_key, parent_json)
  if not key then
    return
  end
  if redis.call('SREM', key .. ':dependencies', job_key) == 1
    and redis.call('SCARD', key .. ':dependencies') == 0
    and redis.call('ZREM', pq.waiting_children, id) == 1 then
    redis.call('RPUSH', pq.wait, id)
    mark_base(pq)
    redis.call('XADD', pq.events, '*', 'event', 'waiting', 'jobId', id, 'prev', 'waiting-children')
  end
end
