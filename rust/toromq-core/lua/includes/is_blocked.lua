--[[
  is_blocked: whether no job may start now, because the queue is paused or its global concurrency is used up.

  The queue's settings are read once in a call: nobody can change them meanwhile.
]]
local function is_blocked(q)
  local settings = q.settings or redis.call('HMGET', q.meta, 'paused', 'concurrency')
  q.settings = settings
  if settings[1] then
    return true
  end
  local concurrency = tonumber(settings[2])
  return concurrency ~= nil and redis.call('LLEN', q.active) >= concurrency
end
