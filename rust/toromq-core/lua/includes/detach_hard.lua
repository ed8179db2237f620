-- @include "includes/parent_of"
-- @include "includes/mark_base"
-- @include "includes/delete_job_keys"
-- @include "includes/drop_deduplication"
--[[
  detach_hard: a job of queue `q` is cleared away with many others, so its parent no longer waits for it.

  A parent of the same queue that is left without pending children goes as well, and so on up the tree; one of another
  queue is put where it runs next.
]]
local function detach_hard(q, job_key, parent_key, parent_json)
  while parent_key do
    local key, id, pq = parent_of(parent_key, parent_json)
    if not key or redis.call('EXISTS', key) == 0 or redis.call('SREM', key .. ':dependencies', job_key) == 0
      or redis.call('SCARD', key .. ':dependencies') > 0
      or redis.call('ZREM', pq.waiting_children, id) == 0 then
      return
    end
    if pq.base ~= q.base then
      redis.call('RPUSH', pq.wait, id)
      mark_base(pq)
      return
    end
    local stored = redis.call('HMGET', key, 'parentKey', 'parent', 'deid')
    if stored[3] then
      drop_deduplication(pq, id, stored[3])
    end
    delete_job_keys(key)
    job_key, parent_key, parent_json = key, stored[1], stored[2]
  end
end
