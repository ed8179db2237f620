--[[
  call_with_all: a command on a key with any number of values, in as few calls as Lua's stack allows.
]]
local function call_with_all(command, key, values)
  for first = 1, #values, 5000 do
    redis.call(command, key, unpack(values, first, math.min(first + 4999, #values)))
  end
end
