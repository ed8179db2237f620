--[[
  max_events: the length the events stream is trimmed to; the default is written down where none is set.
]]
local function max_events(q)
  local length = redis.call('HGET', q.meta, 'opts.maxLenEvents')
  if not length then
    length = '10000'
    redis.call('HSET', q.meta, 'opts.maxLenEvents', length)
  end
  return length
end
