-- @include "includes/call_with_all"
-- @include "includes/mark_base"
-- @include "includes/new_batch"
--[[
  push_new: put the jobs of `q.batch` where they wait. The two ends of the list don't see each other, so each end's
  order is that of the jobs given.
]]
local function push_new(q)
  local batch = q.batch
  q.batch = new_batch()
  call_with_all('LPUSH', q.wait, batch.waiting)
  call_with_all('RPUSH', q.wait, batch.lifo)
  local scored = batch.prioritized
  if #scored > 0 then
    -- @include "includes/priority_score"
    local count = #scored / 2
    local place = redis.call('INCRBY', q.pc, count) - count
    for n = 1, #scored, 2 do
      place = place + 1
      scored[n] = priority_score(scored[n], place)
    end
    call_with_all('ZADD', q.prioritized, scored)
  end
  if batch.any_waiting then
    mark_base(q)
  end
  if batch.any_delayed then
    -- @include "includes/mark_delay"
    mark_delay(q)
  end
end
