--[[
  misplaced_key: which structure of a queue can't be written to, because its key holds something else; nil for none.
]]
local function misplaced_key(q)
  local kinds = { wait = 'list', active = 'list', prioritized = 'zset', delayed = 'zset', waiting_children = 'zset',
    completed = 'zset', marker = 'zset', meta = 'hash', events = 'stream' }
  for structure, kind in pairs(kinds) do
    local found = redis.call('TYPE', q[structure]).ok
    if found ~= kind and found ~= 'none' then
      return q[structure]
    end
  end
  for _, counter in ipairs({ q.id, q.pc }) do
    local count = redis.pcall('GET', counter)
    -- More digits than these leave no room to count on.
    if count and (type(count) ~= 'string' or #count > 18 or not string.match(count, '^-?%d+$')) then
      return counter
    end
  end
  return nil
end
