--[[
  limit_rate: let no job start for `duration` milliseconds, by a count that no maximum reaches.
]]
local function limit_rate(limiter, duration)
  redis.call('SET', limiter, '9007199254740991', 'PX', duration)
end
