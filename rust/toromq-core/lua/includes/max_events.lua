-- @include "includes/settings_of"
--[[
  max_events: the length the events stream is trimmed to; the default is written down where none is set.
]]
local function max_events(q)
  local settings = settings_of(q)
  if not settings[3] then
    settings[3] = '10000'
    redis.call('HSET', q.meta, 'opts.maxLenEvents', settings[3])
  end
  return settings[3]
end
