-- @include "includes/parent_of"
-- @include "includes/release_if_done"
-- @include "includes/integer_text"
--[[
  child_failed: what a child's final failure means for its parent. The policy stands in the child's `parent` field.

  Without a policy the child stays pending, and the parent waits until the child is retried or removed.
]]
local function child_failed(job_key, parent_key, parent_json, reason, now)
  local key, id, pq, parent = parent_of(parent_key, parent_json)
  if not key or not parent then
    return
  end
  if not (parent.fpof or parent.cpof or parent.idof or parent.rdof) then
    return
  end
  if redis.call('SREM', key .. ':dependencies', job_key) == 0 then
    return
  end
  if parent.fpof then
    redis.call('ZADD', key .. ':unsuccessful', integer_text(now), job_key)
    if redis.call('EXISTS', key) == 0 then
      return
    end
    local waits = redis.call('ZREM', pq.waiting_children, id) == 1
    if not waits and redis.call('ZREM', pq.delayed, id) == 1 then
      redis.call('HSET', key, 'delay', 0)
      waits = true
    end
    if waits then
      redis.call('HSET', key, 'defa', 'child ' .. job_key .. ' failed')
      release_parent(pq, id, now)
    elseif not redis.call('ZSCORE', pq.failed, id) then
      redis.call('HSET', key, 'defa', 'child ' .. job_key .. ' failed')
    end
  elseif parent.cpof then
    redis.call('HSET', key .. ':failed', job_key, reason)
    release_if_waiting(pq, id, now)
  elseif parent.idof then
    redis.call('HSET', key .. ':failed', job_key, reason)
    release_if_done(pq, id, now)
  else
    release_if_done(pq, id, now)
  end
end
