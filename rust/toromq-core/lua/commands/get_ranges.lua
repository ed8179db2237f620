--[[
  get_ranges: the ids of the jobs in one or more states, at one moment; each state's range is taken on its own.

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
    1 start             integer  first place, from 0
    2 last              integer  last place, -1 for the end
    3 asc               "1" for the oldest first, or empty
    4.. states          groups of one: waiting, active, prioritized, delayed, waiting-children, completed or failed
  RETURNS
    {id, ...}           in the order of the states asked, each once
  EVENTS
    none
]]
local wait, paused, active, prioritized = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local delayed, waiting_children, completed, failed = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local start, last, asc = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] ~= ''
-- @include "includes/range_of_state"

local structures = { waiting = { 'list', wait }, paused = { 'list', paused }, active = { 'list', active },
  prioritized = { 'zset', prioritized }, delayed = { 'zset', delayed }, completed = { 'zset', completed },
  failed = { 'zset', failed }, ['waiting-children'] = { 'zset', waiting_children } }
local ids, seen = {}, {}
local function collect(state)
  for _, id in ipairs(range_of_state(structures[state][1], structures[state][2], start, last, asc)) do
    if not seen[id] then
      seen[id] = true
      ids[#ids + 1] = id
    end
  end
end
for i = 4, #ARGV do
  collect(ARGV[i])
  if ARGV[i] == 'waiting' then
    collect('paused')
  end
end
return ids
