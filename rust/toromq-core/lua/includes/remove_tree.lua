-- @include "includes/split_job_key"
-- @include "includes/parent_of"
-- @include "includes/detach_from"
-- @include "includes/leave_state"
-- @include "includes/drop_deduplication"
-- @include "includes/max_events"
-- @include "includes/is_kept_pending"
--[[
  remove_tree: remove a job, and with `children` what is below it.

  `children` is "all", or "pending" for those that have still to run: then jobs that are finished stay, and those that a
  worker runs; or nil.

  A job that is reached through its parent is detached from that one, whatever it believes itself; `parent` is
  { key, id, queue keys } or nil. A stack, since trees may be deeper than Lua likes to recurse. Jobs that were given new
  parents may stand below each other, so each is entered once.
]]
local function remove_tree(q, id, children, parent)
  -- A job on its way out: whose children come first.
  local function enter(queue, job_id, above)
    local job_key = queue.base .. job_id
    local stored = redis.call('HMGET', job_key, 'parentKey', 'parent', 'deid')
    if not above and stored[1] and redis.call('EXISTS', stored[1]) == 1 then
      above = { parent_of(stored[1], stored[2]) }
    end
    if above and above[1] then
      detach_from(job_key, above[1], above[2], above[3])
    end
    local below = {}
    if children == 'all' then
      for _, name in ipairs({ ':processed', ':failed' }) do
        for _, child in ipairs(redis.call('HKEYS', job_key .. name)) do
          below[#below + 1] = child
        end
      end
      for _, child in ipairs(redis.call('ZRANGE', job_key .. ':unsuccessful', 0, -1)) do
        below[#below + 1] = child
      end
    end
    if children then
      for _, child in ipairs(redis.call('SMEMBERS', job_key .. ':dependencies')) do
        below[#below + 1] = child
      end
    end
    return { queue = queue, id = job_id, key = job_key, below = below, at = 1, deduplication_id = stored[3] }
  end
  local function leave(job)
    local from = leave_state(job.queue, job.id)
    if job.deduplication_id then
      drop_deduplication(job.queue, job.id, job.deduplication_id)
    end
    local deleted = redis.call('DEL', job.key, job.key .. ':logs', job.key .. ':dependencies', job.key .. ':processed',
      job.key .. ':failed', job.key .. ':unsuccessful')
    if deleted > 0 then
      redis.call('XADD', job.queue.events, 'MAXLEN', '~', max_events(job.queue), '*', 'event', 'removed',
        'jobId', job.id, 'prev', from)
    end
  end

  local stack = { enter(q, id, parent) }
  local entered = { [q.base .. id] = true }
  while #stack > 0 do
    local top = stack[#stack]
    local child_key = top.below[top.at]
    if not child_key then
      stack[#stack] = nil
      leave(top)
    else
      top.at = top.at + 1
      local cq, child_id = split_job_key(child_key)
      local stays = children == 'pending' and cq and is_kept_pending(cq, child_id, child_key)
      if cq and not stays and not entered[child_key] then
        entered[child_key] = true
        stack[#stack + 1] = enter(cq, child_id, { top.key, top.id, top.queue })
      end
    end
  end
end
