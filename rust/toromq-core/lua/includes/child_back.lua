-- @include "includes/parent_of"
--[[
  child_back: a finished job is to run again, so its parent counts it among its pending children once more.

  `from` is completed or failed. The parent itself is not moved.
]]
local function child_back(job_key, parent_key, parent_json, from)
  local key = parent_of(parent_key, parent_json)
  if not key or redis.call('EXISTS', key) == 0 then
    return
  end
  local was_done
  if from == 'completed' then
    was_done = redis.call('HDEL', key .. ':processed', job_key)
  else
    was_done = redis.call('ZREM', key .. ':unsuccessful', job_key) + redis.call('HDEL', key .. ':failed', job_key)
  end
  if was_done > 0 then
    redis.call('SADD', key .. ':dependencies', job_key)
  end
end
