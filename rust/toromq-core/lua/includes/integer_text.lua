--[[
  integer_text: a number as decimal text without exponent.

  Lua's own conversion keeps 14 digits, and scores need 16.
]]
local function integer_text(number)
  return string.format('%.0f', number)
end
