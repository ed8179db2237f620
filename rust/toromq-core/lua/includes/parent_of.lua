-- @include "includes/queue_keys"
--[[
  parent_of: where a job's parent lives, from the job's `parentKey` and `parent` fields.

  Returns nil without a parent, else its full key, its id, the keys of its queue and the decoded `parent` (or nil). An
  id may contain colons, so the `parent` field is asked first; the key is taken apart only where that field is missing.
]]
local function parent_of(parent_key, parent_json)
  if not parent_key or parent_key == '' then
    return nil
  end
  local parent = nil
  if parent_json and parent_json ~= '' then
    local ok, decoded = pcall(cjson.decode, parent_json)
    if ok and type(decoded) == 'table' then
      parent = decoded
    end
  end
  if parent and parent.id and parent.queueKey then
    return parent_key, tostring(parent.id), queue_keys(parent.queueKey .. ':'), parent
  end
  local base, id = string.match(parent_key, '^(.*:)([^:]*)$')
  if not base then
    return nil
  end
  return parent_key, id, queue_keys(base), parent
end
