--[[
  told_of_jobs: what the newest events, those after `since` (an event's id, or empty), say of adds: by the id of a new
  job, its own id where it was added, or the id of the job that stands for it where it was deduplicated.

  What was said of an id first counts. A job that was kept back under its id is added later, and one that was added may
  be replaced later.
]]
local function told_of_jobs(events, since)
  local told = {}
  local entries = redis.call('XREVRANGE', events, '+', since ~= '' and since or '-', 'COUNT', 1000)
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    if entry[1] ~= since then
      if fields[2] == 'added' then
        told[fields[4]] = fields[4]
      elseif fields[2] == 'deduplicated' and fields[8] then
        told[fields[8]] = fields[4]
      end
    end
  end
  return told
end
