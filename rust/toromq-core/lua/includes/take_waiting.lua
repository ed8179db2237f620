--[[
  take_waiting: up to `count` ids from where jobs wait, in the order in which they shall run.

  Standard jobs come before every prioritized one.
]]
local function take_waiting(q, count)
  local ids = {}
  local tail = redis.call('LRANGE', q.wait, -count, -1)
  if #tail > 0 then
    redis.call('LTRIM', q.wait, 0, -(#tail + 1))
    for i = #tail, 1, -1 do
      ids[#ids + 1] = tail[i]
    end
  end
  if #ids < count then
    local popped = redis.call('ZPOPMIN', q.prioritized, count - #ids)
    if #popped == 0 then
      redis.call('DEL', q.pc)
    end
    for i = 1, #popped, 2 do
      ids[#ids + 1] = popped[i]
    end
  end
  return ids
end
