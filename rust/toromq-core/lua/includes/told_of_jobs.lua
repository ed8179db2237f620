--[[
  told_of_jobs: what the newest events, those after `since` (an event's id, or empty), say of adds: by the id of a new
  job, its own id where it was added, or { id } of the job that stands for it where it was a duplicate. `most` is how
  many events to look at.

  What was said of an id first counts. A job that was kept back under its id is added later, and one that was added may
  be replaced later.
]]
local function told_of_jobs(events, since, most)
  local told = {}
  local entries = redis.call('XREVRANGE', events, '+', since ~= '' and since or '-', 'COUNT', most)
  for _, entry in ipairs(entries) do
    local name, id = entry[2][2], entry[2][4]
    if entry[1] ~= since then
      if name == 'added' then
        told[id] = id
      elseif name == 'duplicated' then
        told[id] = { id }
      elseif name == 'deduplicated' and entry[2][8] then
        told[entry[2][8]] = { id }
      end
    end
  end
  return told
end
