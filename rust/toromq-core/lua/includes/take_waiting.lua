--[[
  take_waiting: up to `count` ids from where jobs wait, in the order in which they shall run, become active. Where they are
  fewer, no more wait.

  Standard jobs come before every prioritized one, of which there are none where `is_plain`. Both keys are read before
  anything leaves, so that an error on one of them takes no job from the other; and so are those that what is taken must
  stand in, unless something else was done in this call, which has seen them. What frees memory comes first: a full server
  refuses the first write of a script where it takes memory, and none after one that does not.
]]
local function take_waiting(q, count, is_plain, claim)
  local tail = claim.standard
  claim.standard = nil
  if not tail or #tail > count then
    tail = redis.call('LRANGE', q.wait, -count, -1)
  end
  local standard = #tail
  local ids = {}
  for i = standard, 1, -1 do
    ids[#ids + 1] = tail[i]
  end
  if standard < count and not is_plain then
    for _, id in ipairs(redis.call('ZRANGE', q.prioritized, 0, count - standard - 1)) do
      ids[#ids + 1] = id
    end
  end
  if claim.is_look and #ids > 0 then
    redis.call('LLEN', q.active)
    redis.call('XLEN', q.events)
  end
  if #ids < count and not is_plain then
    -- Nothing is left behind the last one.
    redis.call('DEL', q.pc)
  end
  if #ids == 0 then
    return ids
  end
  if standard > 0 then
    redis.call('LTRIM', q.wait, 0, -(standard + 1))
  end
  if #ids > standard then
    redis.call('ZREMRANGEBYRANK', q.prioritized, 0, #ids - standard - 1)
  end
  redis.call('LPUSH', q.active, unpack(ids))
  return ids
end
