-- @include "includes/parent_of"
-- @include "includes/detach_from"
--[[
  detach_child: a job goes away, so the parent that its `parentKey` and `parent` fields name no longer waits for it.
]]
local function detach_child(job_key, parent_key, parent_json)
  local key, id, pq = parent_of(parent_key, parent_json)
  if key then
    detach_from(job_key, key, id, pq)
  end
end
