--[[
  get_jobs_by_id: several jobs, at one moment.

  KEYS
    1 meta    HASH    settings of the queue
  ARGV
    1 base    string  qualified queue name with trailing colon
    2.. ids   groups of one: id
  RETURNS
    {flat hash, ...}  in the order asked; empty where there is no such job
  EVENTS
    none
]]
local meta = KEYS[1]
local base = ARGV[1]
redis.call('EXISTS', meta)
local found = {}
for i = 2, #ARGV do
  local stored = redis.pcall('HGETALL', base .. ARGV[i])
  found[#found + 1] = stored.err and {} or stored
end
return found
