-- @include "includes/parent_of"
-- @include "includes/release_if_done"
--[[
  child_completed: hand a child's result to its parent and release the parent if that was the last child.
]]
local function child_completed(job_key, parent_key, parent_json, value, now)
  local key, id, pq = parent_of(parent_key, parent_json)
  if key and redis.call('SREM', key .. ':dependencies', job_key) == 1 then
    redis.call('HSET', key .. ':processed', job_key, value)
    release_if_done(pq, id, now)
  end
end
