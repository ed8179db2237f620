--[[
  restore_marker: put back the marker that a closing worker may have taken, so that another one wakes.

  KEYS
    1 wait         LIST  ids of waiting standard jobs
    2 active       LIST  ids of active jobs
    3 prioritized  ZSET  ids of waiting jobs with a priority
    4 delayed      ZSET  ids of delayed jobs
    5 marker       ZSET  what waiting workers block on
    6 meta         HASH  settings of the queue
  ARGV
    none
  RETURNS
    1  always
  EVENTS
    none
]]
local wait, active, prioritized = KEYS[1], KEYS[2], KEYS[3]
local delayed, marker, meta = KEYS[4], KEYS[5], KEYS[6]
-- @include "includes/mark_waiting"
-- @include "includes/mark_delay"

local q = { wait = wait, active = active, prioritized = prioritized, delayed = delayed, marker = marker, meta = meta }
mark_waiting(q)
mark_delay(q)
return 1
