--[[
  publish_event: append an event of a program's own.

  KEYS
    1 meta    HASH    settings of the queue
    2 events  STREAM  events of the queue
  ARGV
    1 length      integer  about how many events to keep, empty for the queue's own maximum
    2 event_name  string
    3.. fields    groups of two: a field and its value
  RETURNS
    id  of the entry
  EVENTS
    none
]]
local meta, events = KEYS[1], KEYS[2]
local length, event_name = ARGV[1], ARGV[2]
-- @include "includes/max_events"

local entry = { 'event', event_name }
for i = 3, #ARGV, 2 do
  entry[#entry + 1] = ARGV[i]
  entry[#entry + 1] = ARGV[i + 1]
end
if length == '' then
  length = max_events({ meta = meta })
end
return redis.call('XADD', events, 'MAXLEN', '~', length, '*', unpack(entry))
