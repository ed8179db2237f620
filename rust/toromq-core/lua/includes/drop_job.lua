-- @include "includes/detach_child"
-- @include "includes/delete_job_keys"
--[[
  drop_job: forget a finished job that a keep policy no longer keeps. Its place in a state is the caller's business.
]]
local function drop_job(job_key)
  local stored = redis.call('HMGET', job_key, 'parentKey', 'parent')
  if stored[1] and redis.call('EXISTS', stored[1]) == 1 then
    detach_child(job_key, stored[1], stored[2])
  end
  delete_job_keys(job_key)
end
