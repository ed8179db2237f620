-- @include "includes/settings_of"
--[[
  is_blocked: whether no job may start now, because the queue is paused or its global concurrency is used up.
]]
local function is_blocked(q)
  local settings = settings_of(q)
  if settings[1] then
    return true
  end
  local concurrency = tonumber(settings[2])
  return concurrency ~= nil and redis.call('LLEN', q.active) >= concurrency
end
