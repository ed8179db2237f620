-- @include "includes/queue_keys"
--[[
  split_job_key: the keys of the queue that a full job key belongs to, and the job's id.

  Ids may contain colons, so the last colon is right only where the part before it is a queue; every client writes a
  queue's `meta`. Where no part is one, the last colon decides, as it does for the other clients.
]]
local function split_job_key(job_key)
  local last = nil
  for at = #job_key - 1, 2, -1 do
    if string.sub(job_key, at, at) == ':' then
      last = last or at
      if redis.call('EXISTS', string.sub(job_key, 1, at) .. 'meta') == 1 then
        return queue_keys(string.sub(job_key, 1, at)), string.sub(job_key, at + 1)
      end
    end
  end
  if not last then
    return nil
  end
  return queue_keys(string.sub(job_key, 1, last)), string.sub(job_key, last + 1)
end
