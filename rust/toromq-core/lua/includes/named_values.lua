--[[
  named_values: pairs of a name and a value, the first of them at `first` and the last before `past`, as a table.
]]
local function named_values(values, first, past)
  local named = {}
  for at = first, past - 1, 2 do
    named[values[at]] = values[at + 1]
  end
  return named
end
