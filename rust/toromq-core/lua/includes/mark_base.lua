-- @include "includes/is_blocked"
--[[
  mark_base: wake one waiting worker, unless nothing may start now.
]]
local function mark_base(q)
  if not is_blocked(q) then
    redis.call('ZADD', q.marker, 0, '0')
  end
end
