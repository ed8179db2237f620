--[[
  update_data: replace a job's data.

  KEYS
    1 job  HASH  the job
  ARGV
    1 data  JSON text
  RETURNS
    0            replaced
    JOB_MISSING  there is no such job
  EVENTS
    none
]]
local job = KEYS[1]
local data = ARGV[1]

if redis.call('EXISTS', job) == 0 then
  return CODE.JOB_MISSING
end
redis.call('HSET', job, 'data', data)
return 0
