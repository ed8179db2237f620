--[[
  remove_unprocessed_children: delete the pending children of a job, and those pending below them, but for the ones that
  run and those that have failed.

  KEYS
    1 job   HASH    the job
  ARGV
    1 base  string  qualified queue name with trailing colon
    2 id    string
  RETURNS
    n       how many children were removed
  EVENTS
    removed, waiting
]]
local job_key = KEYS[1]
local base, id = ARGV[1], ARGV[2]
-- @include "includes/queue_keys"
-- @include "includes/split_job_key"
-- @include "includes/is_kept_pending"
-- @include "includes/remove_tree"

local parent = { job_key, id, queue_keys(base) }
local removed = 0
for _, child_key in ipairs(redis.call('SMEMBERS', job_key .. ':dependencies')) do
  local cq, child_id = split_job_key(child_key)
  if cq and not is_kept_pending(cq, child_id, child_key) then
    remove_tree(cq, child_id, 'pending', parent)
    removed = removed + 1
  end
end
return removed
