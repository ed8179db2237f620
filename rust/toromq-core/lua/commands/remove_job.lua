--[[
  remove_job: delete a job, wherever it is, and with `children` all jobs below it.

  KEYS
    1 job           HASH    the job
  ARGV
    1 base          string  qualified queue name with trailing colon
    2 id            string
    3 children      "1" to remove its children as well, or empty
  RETURNS
    0               it, or a pending child, is locked by a worker; nothing was removed
    1               removed, or there was no such job
    JOB_SCHEDULED   it is the next iteration of a job scheduler, which goes only with it
  EVENTS
    removed, waiting
]]
local job_key = KEYS[1]
local base, id, children = ARGV[1], ARGV[2], ARGV[3] ~= ''
-- @include "includes/queue_keys"
-- @include "includes/is_scheduled"
-- @include "includes/is_locked_tree"
-- @include "includes/remove_tree"

local q = queue_keys(base)
if is_scheduled(q, id, redis.call('HGET', job_key, 'rjk')) then
  return CODE.JOB_SCHEDULED
end
if is_locked_tree(job_key, children) then
  return 0
end
remove_tree(q, id, children and 'all', nil)
return 1
