--[[
  take_waiting: up to `count` ids from where jobs wait, in the order in which they shall run, become active. Where they are
  fewer, no more wait.

  Standard jobs come before every prioritized one. Both keys are read before anything leaves, so that an error on one of
  them takes no job from the other; that `active` is a list, the caller has seen. What frees memory comes first: a full
  server refuses the first write of a script where it takes memory, and none after one that does not.
]]
local function take_waiting(q, count)
  local tail = redis.call('LRANGE', q.wait, -count, -1)
  local standard = #tail
  local ids = {}
  for i = standard, 1, -1 do
    ids[#ids + 1] = tail[i]
  end
  if standard < count then
    for _, id in ipairs(redis.call('ZRANGE', q.prioritized, 0, count - standard - 1)) do
      ids[#ids + 1] = id
    end
    if #ids < count then
      -- Nothing is left behind the last one.
      redis.call('DEL', q.pc)
    end
  end
  if standard > 0 then
    redis.call('LTRIM', q.wait, 0, -(standard + 1))
  end
  if #ids > standard then
    redis.call('ZREMRANGEBYRANK', q.prioritized, 0, #ids - standard - 1)
  end
  if #ids > 0 then
    redis.call('LPUSH', q.active, unpack(ids))
  end
  return ids
end
