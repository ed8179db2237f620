--[[
  get_jobs: the jobs of one or more states, at one moment.

  Each state's range is taken on its own; ids without a hash are passed over and the page is filled up from behind them.

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
    1 base      string   qualified queue name with trailing colon
    2 start     integer  first place, from 0
    3 last      integer  last place, -1 for the end
    4 asc       "1" for the oldest first, or empty
    5.. states  groups of one: waiting, active, prioritized, delayed, waiting-children, completed or failed
  RETURNS
    {{id, flat hash}, ...}  in the order of the states asked, each job once
  EVENTS
    none
]]
local wait, paused, active, prioritized = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local delayed, waiting_children, completed, failed = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local base, start, last, asc = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] ~= ''

-- @include "includes/range_of_state"

local structures = { waiting = { 'list', wait }, paused = { 'list', paused }, active = { 'list', active },
  prioritized = { 'zset', prioritized }, delayed = { 'zset', delayed }, completed = { 'zset', completed },
  failed = { 'zset', failed }, ['waiting-children'] = { 'zset', waiting_children } }

local found, seen = {}, {}
local function collect(state)
  local from, to = start, last
  local missing = to < 0 and 0 or to - from + 1
  local rounds = 0
  repeat
    local page = range_of_state(structures[state][1], structures[state][2], from, to, asc)
    local kept = 0
    for _, id in ipairs(page) do
      local stored = redis.pcall('HGETALL', base .. id)
      if not stored.err and #stored > 0 then
        kept = kept + 1
        if not seen[id] then
          seen[id] = true
          found[#found + 1] = { id, stored }
        end
      end
    end
    rounds = rounds + 1
    missing = missing - kept
    from = to + 1
    to = to + missing
  until missing <= 0 or #page == 0 or rounds == 5 or last < 0
end

for i = 5, #ARGV do
  collect(ARGV[i])
  if ARGV[i] == 'waiting' then
    collect('paused')
  end
end
return found
