--[[
  add_log: append a line to a job's log.

  KEYS
    1 job   HASH  the job
    2 logs  LIST  its log, oldest line first
  ARGV
    1 line       string
    2 keep_logs  integer  how many of the newest lines to keep, 0 for all
  RETURNS
    n            how many lines are kept now
    JOB_MISSING  there is no such job
  EVENTS
    none
]]
local job, logs = KEYS[1], KEYS[2]
local line, keep = ARGV[1], tonumber(ARGV[2])

if redis.call('EXISTS', job) == 0 then
  return CODE.JOB_MISSING
end
local length = redis.call('RPUSH', logs, line)
if keep > 0 then
  redis.call('LTRIM', logs, -keep, -1)
  return math.min(keep, length)
end
return length
