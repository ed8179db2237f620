--[[
  range_of_state: ids of one structure from place `from` to place `to`, newest first or, with `asc`, oldest first.

  `kind` is list or zset.
]]
local function range_of_state(kind, key, from, to, asc)
  if kind == 'zset' then
    return redis.call(asc and 'ZRANGE' or 'ZREVRANGE', key, from, to)
  end
  if not asc then
    return redis.call('LRANGE', key, from, to)
  end
  -- The oldest stand at the tail of a list, so count from there and turn the page around.
  local page = redis.call('LRANGE', key, -(to + 1), -(from + 1))
  local turned = {}
  for i = #page, 1, -1 do
    turned[#turned + 1] = page[i]
  end
  return turned
end
