-- @include "includes/mark_base"
--[[
  mark_waiting: wake one waiting worker where a job waits and may start now.
]]
local function mark_waiting(q)
  if redis.call('EXISTS', q.wait, q.prioritized) > 0 then
    mark_base(q)
  end
end
