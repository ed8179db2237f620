--[[
  get_counts: how many jobs each of the given states holds, at one moment.

  KEYS
    1 wait              LIST  ids of waiting standard jobs
    2 paused            LIST  ids of jobs that an old client put aside while it paused the queue
    3 active            LIST  ids of active jobs
    4 prioritized       ZSET  ids of waiting jobs with a priority
    5 delayed           ZSET  ids of delayed jobs
    6 waiting_children  ZSET  ids of jobs that wait for their children
    7 completed         ZSET  ids of completed jobs
    8 failed            ZSET  ids of failed jobs
  ARGV
    1.. states  groups of one: waiting, active, prioritized, delayed, waiting-children, completed or failed
  RETURNS
    {n, ...}  in the order asked
  EVENTS
    none
]]
local wait, paused, active, prioritized = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local delayed, waiting_children, completed, failed = KEYS[5], KEYS[6], KEYS[7], KEYS[8]

local sets = { prioritized = prioritized, delayed = delayed, completed = completed, failed = failed,
  ['waiting-children'] = waiting_children }
local counts = {}
for n, state in ipairs(ARGV) do
  if state == 'waiting' then
    counts[n] = redis.call('LLEN', wait) + redis.call('LLEN', paused)
  elseif state == 'active' then
    counts[n] = redis.call('LLEN', active)
  else
    counts[n] = redis.call('ZCARD', sets[state])
  end
end
return counts
