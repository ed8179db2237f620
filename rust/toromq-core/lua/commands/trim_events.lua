--[[
  trim_events: drop old events.

  KEYS
    1 events  STREAM  events of the queue
  ARGV
    1 max_length  integer  about how many to keep; whole blocks of entries are dropped
  RETURNS
    n  how many were dropped
  EVENTS
    none
]]
local events = KEYS[1]
local max_length = ARGV[1]

return redis.call('XTRIM', events, 'MAXLEN', '~', max_length)
