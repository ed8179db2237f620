--[[
  read_events: the next events after a reader's place, and whether something between went unread.

  KEYS
    1 events  STREAM  events of the queue
  ARGV
    1 position  id of an entry, or empty for the newest one
    2 count     integer  how many entries at most
  RETURNS
    {joins, last_id, length, added, entries}  joins: 1 if an entry at or before the position is still there; last_id: the
                                              newest id ever given, 0-0 for none; added: how many entries there ever
                                              were, -1 from a server that does not count; entries: those after the position
  EVENTS
    none
]]
local events = KEYS[1]
local position, count = ARGV[1], tonumber(ARGV[2])
-- @include "includes/stream_end"

local found = stream_end(events)
if position == '' then
  position = found.last_id
end
-- Entries are trimmed oldest first: while one is there, all that came after it are.
local joins = #redis.call('XREVRANGE', events, position, '-', 'COUNT', 1)
local entries = {}
if count > 0 then
  local streams = redis.call('XREAD', 'COUNT', count, 'STREAMS', events, position)
  entries = streams and streams[1][2] or entries
end
return { joins, found.last_id, found.length, found.added, entries }
