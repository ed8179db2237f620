--[[
  settings_of: the settings of a queue: paused, concurrency, opts.maxLenEvents, max and duration, false for those not set.

  They are read once in a call: nobody can change them meanwhile.
]]
local function settings_of(q)
  q.settings = q.settings
    or redis.call('HMGET', q.meta, 'paused', 'concurrency', 'opts.maxLenEvents', 'max', 'duration')
  return q.settings
end
