--[[
  next_every: when a job scheduler with an interval fires next, and the phase to store.

  `previous` is when it fired last, or nil; then it begins at once, at `start_date` or at its next `offset`. Slots that
  were missed are skipped. `offset` 0 means none; then what is left of the next slot becomes the phase.
]]
local function next_every(previous, every, offset, now, start_date)
  local grid = math.floor(now / every) * every + offset
  local due
  if not previous then
    if start_date then
      due = math.max(start_date, now)
    elseif offset > 0 then
      due = grid > now and grid or grid + every
    else
      due = now
    end
  else
    due = previous + every
    if due < now then
      due = grid > now and grid or grid + every
    end
  end
  due = math.floor(due)
  return due, offset ~= 0 and offset or math.floor(due % every)
end
