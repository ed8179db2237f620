-- @include "includes/release_if_waiting"
--[[
  release_if_done: release the parent if it waits and no child is pending any more.
]]
local function release_if_done(pq, parent_id, now)
  if redis.call('SCARD', pq.base .. parent_id .. ':dependencies') == 0 then
    release_if_waiting(pq, parent_id, now)
  end
end
