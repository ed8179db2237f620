--[[
  check_events: how far the events have come, and whether the entry at a reader's position is still there.

  KEYS
    1 events  STREAM  events of the queue
  ARGV
    1 position  id of an entry, or empty for the newest one
  RETURNS
    {present, last_id, length, added}  present: 1 if that entry is there; last_id: the newest id ever given, 0-0 for
                                       none; added: how many entries there ever were, -1 from a server that does not
                                       count them
  EVENTS
    none
]]
local events = KEYS[1]
local position = ARGV[1]
-- @include "includes/stream_end"

local found = stream_end(events)
if position == '' then
  position = found.last_id
end
-- Entries are trimmed oldest first: while one is there, all that came after it are.
local present = #redis.call('XRANGE', events, position, position)
return { present, found.last_id, found.length, found.added }
