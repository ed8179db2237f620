--[[
  all_packed: the values of all packed arguments from the one at `first` on, as one list.

  Redis hands a script each argument by itself; unpacking one costs a third of that for each value.
]]
local function all_packed(arguments, first)
  if #arguments < first then
    return {}
  end
  local values = cmsgpack.unpack(arguments[first])
  for n = first + 1, #arguments do
    for _, value in ipairs(cmsgpack.unpack(arguments[n])) do
      values[#values + 1] = value
    end
  end
  return values
end
