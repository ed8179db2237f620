--[[
  pause: let no more jobs of the queue start. Jobs stay where they are; those that run go on.

  KEYS
    1 marker  ZSET    what waiting workers block on
    2 meta    HASH    settings of the queue
    3 events  STREAM  events of the queue
  ARGV
    none
  RETURNS
    0         done, or it was paused before
  EVENTS
    paused
]]
local marker, meta, events = KEYS[1], KEYS[2], KEYS[3]
redis.call('HSET', meta, 'paused', 1)
redis.call('DEL', marker)
redis.call('XADD', events, '*', 'event', 'paused')
return 0
