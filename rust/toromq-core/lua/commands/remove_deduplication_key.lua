--[[
  remove_deduplication_key: end a deduplication window now, so that the next job with its id is added.

  KEYS
    1 owner   STRING  id of the job that owns the deduplication id
  ARGV
    1 job_id  string  only while this job owns it; empty for any
  RETURNS
    1         there was such a window
    0         there was none, or another job owns it
  EVENTS
    none
]]
local owner, job_id = KEYS[1], ARGV[1]
if job_id ~= '' and redis.call('GET', owner) ~= job_id then
  return 0
end
return redis.call('DEL', owner)
