--[[
  get_dependencies_count: how many children a job has, by what became of them.

  KEYS
    1 processed     HASH  children that completed, and their results
    2 dependencies  SET   children that are pending
    3 ignored       HASH  children whose failure was ignored, and their reasons
    4 unsuccessful  ZSET  children that failed and fail their parent
  ARGV
    none
  RETURNS
    {processed, unprocessed, ignored, failed}
  EVENTS
    none
]]
local processed, dependencies, ignored, unsuccessful = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
return { redis.call('HLEN', processed), redis.call('SCARD', dependencies), redis.call('HLEN', ignored),
  redis.call('ZCARD', unsuccessful) }
