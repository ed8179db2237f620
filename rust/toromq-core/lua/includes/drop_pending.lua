-- @include "includes/detach_hard"
-- @include "includes/drop_deduplication"
-- @include "includes/delete_job_keys"
--[[
  drop_pending: delete a job that is delayed or waits to be run, from the structure `place` of the queue.
]]
local function drop_pending(q, id, place)
  local job_key = q.base .. id
  local stored = redis.call('HMGET', job_key, 'parentKey', 'parent', 'deid')
  if stored[1] then
    detach_hard(q, job_key, stored[1], stored[2])
  end
  if stored[3] then
    drop_deduplication(q, id, stored[3])
  end
  if place == 'delayed' or place == 'prioritized' then
    redis.call('ZREM', q[place], id)
  else
    redis.call('LREM', q[place], 1, id)
  end
  delete_job_keys(job_key)
end
