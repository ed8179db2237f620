--[[
  in_list: whether a list holds an id.

  LPOS walks the list inside the server, but servers before 6.0.6 don't have it.
]]
local function in_list(list, id)
  local found = redis.pcall('LPOS', list, id)
  if type(found) ~= 'table' or not found.err then
    return found ~= false
  end
  for _, listed in ipairs(redis.call('LRANGE', list, 0, -1)) do
    if listed == id then
      return true
    end
  end
  return false
end
