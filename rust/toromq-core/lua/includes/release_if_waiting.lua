-- @include "includes/release_parent"
--[[
  release_if_waiting: release the parent if it is waiting for its children.
]]
local function release_if_waiting(pq, parent_id, now)
  if redis.call('EXISTS', pq.base .. parent_id) == 1 and redis.call('ZREM', pq.waiting_children, parent_id) == 1 then
    release_parent(pq, parent_id, now)
  end
end
