--[[
  clear_logs: keep the newest lines of a job's log, or none.

  KEYS
    1 logs  LIST     log lines of the job
  ARGV
    1 keep  integer  how many lines to keep
  RETURNS
    0       done
  EVENTS
    none
]]
local logs = KEYS[1]
local keep = tonumber(ARGV[1])
if keep > 0 then
  redis.call('LTRIM', logs, -keep, -1)
else
  redis.call('DEL', logs)
end
return 0
