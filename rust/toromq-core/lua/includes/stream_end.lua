--[[
  stream_end: how far a stream has come, also one that does not exist.

  Returns last_id, the newest id it ever gave (0-0 for none); length; and added, how many entries it ever had, which
  servers before 7.0 don't count (-1).
]]
local function stream_end(stream)
  local found = { last_id = '0-0', length = 0, added = -1 }
  if redis.call('EXISTS', stream) == 0 then
    found.added = 0
    return found
  end
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      found.last_id = info[i + 1]
    elseif info[i] == 'length' then
      found.length = info[i + 1]
    elseif info[i] == 'entries-added' then
      found.added = info[i + 1]
    end
  end
  return found
end
