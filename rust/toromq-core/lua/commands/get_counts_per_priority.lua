--[[
  get_counts_per_priority: how many waiting jobs there are of each priority asked for, at one moment.

  KEYS
    1 wait           LIST  ids of waiting standard jobs
    2 paused         LIST  ids of jobs that an old client put aside while it paused the queue
    3 prioritized    ZSET  ids of waiting jobs with a priority
  ARGV
    1.. priorities   groups of one: priority, 0 for standard jobs
  RETURNS
    {n, ...}         in the order asked
  EVENTS
    none
]]
local wait, paused, prioritized = KEYS[1], KEYS[2], KEYS[3]
-- @include "includes/integer_text"

local counts = {}
for i = 1, #ARGV do
  local priority = tonumber(ARGV[i])
  if priority == 0 then
    counts[i] = redis.call('LLEN', wait) + redis.call('LLEN', paused)
  else
    counts[i] = redis.call('ZCOUNT', prioritized, integer_text(priority * 4294967296),
      integer_text((priority + 1) * 4294967296 - 1))
  end
end
return counts
