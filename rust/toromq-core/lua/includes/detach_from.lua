-- @include "includes/mark_base"
--[[
  detach_from: a job goes away, so the parent with this key no longer waits for it. `pq` are the keys of its queue.

  A parent left without pending children is put where it runs next, whatever its priority or delay.
]]
local function detach_from(job_key, key, id, pq)
  if redis.call('SREM', key .. ':dependencies', job_key) == 1
    and redis.call('SCARD', key .. ':dependencies') == 0
    and redis.call('ZREM', pq.waiting_children, id) == 1 then
    redis.call('RPUSH', pq.wait, id)
    mark_base(pq)
    redis.call('XADD', pq.events, '*', 'event', 'waiting', 'jobId', id, 'prev', 'waiting-children')
  end
end
