--[[
  count_finished: add `finished` jobs to the per-minute series in `metrics`.

  The finish that crosses a minute belongs to the next delta; minutes without a finish get a zero.
]]
local function count_finished(metrics, finished, max_points, now)
  local count = redis.call('HINCRBY', metrics, 'count', finished) - finished
  local previous = redis.call('HMGET', metrics, 'prevTS', 'prevCount')
  if not previous[1] then
    redis.call('HSET', metrics, 'prevTS', string.format('%.0f', now), 'prevCount', 0)
    return
  end
  local minutes = math.floor(now / 60000) - math.floor(tonumber(previous[1]) / 60000)
  minutes = math.min(minutes, max_points)
  if minutes <= 0 then
    return
  end
  local data = metrics .. ':data'
  local points = { count - (tonumber(previous[2]) or 0) }
  for _ = 2, minutes do
    points[#points + 1] = 0
  end
  for first = 1, #points, 5000 do
    redis.call('LPUSH', data, unpack(points, first, math.min(first + 4999, #points)))
  end
  redis.call('LTRIM', data, 0, max_points - 1)
  redis.call('HSET', metrics, 'prevTS', string.format('%.0f', now), 'prevCount', count)
end
