--[[
  looks_legacy: whether the id of a job scheduler has the shape of a key that clients before job schedulers gave to
  repeated jobs: name, own id, end, zone, and pattern or interval, with colons between.
]]
local function looks_legacy(id)
  local parts = {}
  for part in string.gmatch(id .. ':', '([^:]*):') do
    parts[#parts + 1] = part
  end
  if #parts < 5 then
    return false
  end
  local tail = parts[#parts]
  return string.match(parts[3], '^%d*$') ~= nil and (string.match(tail, '^%d+$') or string.find(tail, ' ')) ~= nil
end
