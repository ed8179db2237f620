--[[
  queue_keys: the key names of a queue, from its qualified name with the trailing colon ("bull:mail:").

  Used where a script reaches a queue that its caller could not declare: the queue of a job's parent.
]]
local function queue_keys(base)
  return {
    base = base,
    wait = base .. 'wait',
    paused = base .. 'paused',
    active = base .. 'active',
    prioritized = base .. 'prioritized',
    delayed = base .. 'delayed',
    waiting_children = base .. 'waiting-children',
    completed = base .. 'completed',
    failed = base .. 'failed',
    marker = base .. 'marker',
    meta = base .. 'meta',
    events = base .. 'events',
    id = base .. 'id',
    pc = base .. 'pc',
  }
end
