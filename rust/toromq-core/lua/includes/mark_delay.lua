--[[
  mark_delay: tell waiting workers when the next delayed job is due.
]]
local function mark_delay(q)
  local first = redis.call('ZRANGE', q.delayed, 0, 0, 'WITHSCORES')
  if first[2] then
    redis.call('ZADD', q.marker, string.format('%.17g', tonumber(first[2]) / 4096), '1')
  end
end
