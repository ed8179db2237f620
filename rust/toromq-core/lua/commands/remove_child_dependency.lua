--[[
  remove_child_dependency: let a job's parent no longer wait for it. The job itself stays.

  KEYS
    1 job             HASH    the job
  ARGV
    none
  RETURNS
    0                 done
    1                 the parent did not wait for it
    JOB_MISSING       the job's hash does not exist
    PARENT_MISSING    it has no parent, or the parent's hash does not exist
  EVENTS
    waiting
]]
local job_key = KEYS[1]
-- @include "includes/detach_child"

if redis.call('EXISTS', job_key) == 0 then
  return CODE.JOB_MISSING
end
local job = redis.call('HMGET', job_key, 'parentKey', 'parent')
if not job[1] or redis.call('EXISTS', job[1]) == 0 then
  return CODE.PARENT_MISSING
end
if redis.call('SISMEMBER', job[1] .. ':dependencies', job_key) == 0 then
  return 1
end
detach_child(job_key, job[1], job[2])
redis.call('HDEL', job_key, 'parentKey', 'parent')
return 0
