--[[
  add_flow: store trees of jobs, of any queues, so that each job waits for those below it.

  All of them are stored or none: what would keep one out is looked for before anything is written. Parents come before
  their children. An id that is there already joins the tree as it is.

  A flow whose reply was lost may be sent again: where it was stored before, or events say so, it is left alone.

  KEYS
    1 meta         HASH     settings of the first job's queue
  ARGV
    1 now_ms       integer  the caller's clock
    2 again        "1" when the same was sent before, or empty
    3 since        string   id of an event from before it was first sent
    4.. nodes      packed (all_packed), groups of nine: base (qualified queue name with trailing colon), job_id, made (true
                   when the id was made for this call), parent (true when it has children), name, data, opts (JSON
                   texts), timestamp, more (false, or a map of what few jobs have, with the names of add_jobs)
  RETURNS
    {event, jobs}    the id of the last event; packed, for each job its id, or {id} of the job that stands for it
    PARENT_MISSING   as {code, n, key} for the n-th job: the parent under this key does not exist
    OTHER_PARENT     likewise: its id is taken by the child of the parent under this key
    OWN_ANCESTOR     likewise: the parent under this key is below it
    KEY_CORRUPT      likewise: this key, which the job needs, holds something else
  EVENTS
    added, waiting, delayed, waiting-children, duplicated, deduplicated, removed
]]
local meta = KEYS[1]
local now_ms, again, since = tonumber(ARGV[1]), ARGV[2] ~= '', ARGV[3]
-- @include "includes/all_packed"
-- @include "includes/attach_existing"
-- @include "includes/call_with_all"
-- @include "includes/deduplicate"
-- @include "includes/gather_new"
-- @include "includes/mark_delay"
-- @include "includes/max_events"
-- @include "includes/misplaced_key"
-- @include "includes/new_batch"
-- @include "includes/parent_of"
-- @include "includes/push_new"
-- @include "includes/queue_keys"
-- @include "includes/release_if_done"
-- @include "includes/store_new"
-- @include "includes/told_of_jobs"

local given = all_packed(ARGV, 4)
local GROUP = 9
local NOTHING = {}
-- The queues, in the order in which jobs name them, and by their qualified names.
local queues, queue_of = {}, {}
local nodes = {}
for at = 1, #given, GROUP do
  local base, id = given[at], given[at + 1]
  local q = queue_of[base]
  if not q then
    q = queue_keys(base)
    q.batch, q.count, q.parents = new_batch(), 0, {}
    queues[#queues + 1], queue_of[base] = q, q
  end
  q.count = q.count + 1
  nodes[#nodes + 1] = { at = at, q = q, id = id, key = base .. id, more = given[at + 8] or NOTHING }
end

-- Which of the jobs are there. Few are, so many are asked for at once.
local there = {}
for first = 1, #nodes, 1000 do
  local keys = {}
  for n = first, math.min(first + 999, #nodes) do
    keys[#keys + 1] = nodes[n].key
  end
  if redis.call('EXISTS', unpack(keys)) > 0 then
    for _, key in ipairs(keys) do
      there[key] = redis.call('EXISTS', key) == 1 or nil
    end
  end
end

-- What an earlier call replied that stored the same jobs, or nil. It stored all of them or none. An id that was made for
-- these jobs alone is proof of it; others may have been there, or have come and gone, by somebody else's doing.
local function replied_before()
  local told, before = {}, {}
  local some_made, some_proof, all_stand = false, false, true
  for _, node in ipairs(nodes) do
    local base, made = node.q.base, given[node.at + 2]
    told[base] = told[base] or told_of_jobs(node.q.events, since, 1000 + 3 * #nodes)
    local said = told[base][node.id]
    local stands = said ~= nil
    if not stands and there[node.key] then
      local found = redis.pcall('HMGET', node.key, 'name', 'timestamp')
      stands = not found.err and found[1] == given[node.at + 4] and found[2] == given[node.at + 7]
    end
    some_made = some_made or made
    some_proof = some_proof or (made and stands)
    all_stand = all_stand and stands
    before[#before + 1] = type(said) == 'table' and said or node.id
  end
  if some_proof or (all_stand and not some_made) then
    return before
  end
  return nil
end

if again then
  local before = replied_before()
  if before then
    return { '', cmsgpack.pack(before) }
  end
end

local function holds_other(key, kind)
  local found = redis.call('TYPE', key).ok
  return found ~= kind and found ~= 'none'
end

-- Whether the parent is below the job, given the parents that jobs are about to have.
local function is_below(parent_key, key, parents)
  local steps = 0
  while type(parent_key) == 'string' and steps < 1000 do
    if parent_key == key then
      return true
    end
    parent_key = parents[parent_key] or redis.pcall('HGET', parent_key, 'parentKey')
    steps = steps + 1
  end
  return false
end

-- The first job that can't be stored: {code, n, key}, or nil.
local function refused()
  local looked_at, added, parents = {}, {}, {}
  for n, node in ipairs(nodes) do
    local more, key = node.more, node.key
    local parent_key = more.parent_key
    if not looked_at[node.q.base] then
      looked_at[node.q.base] = true
      local misplaced = misplaced_key(node.q)
      if misplaced then
        return { CODE.KEY_CORRUPT, n, misplaced }
      end
    end
    if there[key] and holds_other(key, 'hash') then
      return { CODE.KEY_CORRUPT, n, key }
    end
    if parent_key and not added[parent_key] then
      -- One outside this flow.
      if redis.call('EXISTS', parent_key) == 0 then
        return { CODE.PARENT_MISSING, n, parent_key }
      end
      local _, _, pq = parent_of(parent_key, more.parent)
      local misplaced = holds_other(parent_key, 'hash') and parent_key or misplaced_key(pq)
      if misplaced then
        return { CODE.KEY_CORRUPT, n, misplaced }
      end
    end
    for _, family in ipairs({ parent_key or '', given[node.at + 2] and '' or key }) do
      -- An id that was made for this job has left nothing behind.
      if family ~= '' and not looked_at[family] then
        looked_at[family] = true
        for suffix, kind in pairs({ [':dependencies'] = 'set', [':processed'] = 'hash' }) do
          if holds_other(family .. suffix, kind) then
            return { CODE.KEY_CORRUPT, n, family .. suffix }
          end
        end
      end
    end
    if more.deduplication_id then
      for prefix, kind in pairs({ ['de:'] = 'string', ['dn:'] = 'hash' }) do
        local claim = node.q.base .. prefix .. more.deduplication_id
        if holds_other(claim, kind) then
          return { CODE.KEY_CORRUPT, n, claim }
        end
      end
    end
    if parent_key and (there[key] or added[key]) then
      local old = parents[key] or redis.call('HGET', key, 'parentKey')
      if old and old ~= parent_key and (added[old] or redis.call('EXISTS', old) == 1) then
        return { CODE.OTHER_PARENT, n, old }
      end
      if is_below(parent_key, key, parents) then
        return { CODE.OWN_ANCESTOR, n, parent_key }
      end
    end
    parents[key] = parent_key or parents[key]
    added[key] = true
  end
  return nil
end

local refusal = refused()
if refusal then
  return refusal
end

for _, q in ipairs(queues) do
  q.max_length = max_events(q)
  -- Every client counts these jobs too, whatever their ids.
  redis.call('INCRBY', q.id, q.count)
end

local reply, answers = { '' }, {}
-- Parents in the order in which they get children, and the keys of those by that of the parent.
local touched, children_of = {}, {}
for _, node in ipairs(nodes) do
  local q, id, at, more = node.q, node.id, node.at, node.more
  local parent_key = more.parent_key
  if parent_key and not children_of[parent_key] then
    touched[#touched + 1], children_of[parent_key] = more, {}
  end
  local answer = nil
  if there[node.key] then
    if parent_key then
      attach_existing(q, id, parent_key, more.parent)
    end
    reply[1] = redis.call('XADD', q.events, 'MAXLEN', '~', q.max_length, '*', 'event', 'duplicated', 'jobId', id)
    answer = { id }
  elseif more.deduplication_id then
    if more.replace and q.batch.any_delayed then
      -- The marker must not forget when a job that is about to be replaced was due.
      mark_delay(q)
    end
    local owner, event, rescheduled = deduplicate(q, more, { id = id, name = given[at + 4], data = given[at + 5],
      opts = given[at + 6], timestamp = tonumber(given[at + 7]), delay = more.delay or '0' }, q.max_length)
    q.batch.any_delayed = q.batch.any_delayed or rescheduled
    reply[1] = event or reply[1]
    answer = owner
  end
  if not answer then
    reply[1] = store_new(q, id, given, at + 4, more)
    there[node.key] = true
    if parent_key then
      table.insert(children_of[parent_key], node.key)
    end
    if given[at + 3] then
      table.insert(q.parents, given[at + 7])
      table.insert(q.parents, id)
      redis.call('XADD', q.events, '*', 'event', 'waiting-children', 'jobId', id)
    else
      gather_new(q, id, given[at + 7], more, nil)
    end
  end
  answers[#answers + 1] = answer or id
end

for _, q in ipairs(queues) do
  call_with_all('ZADD', q.waiting_children, q.parents)
  push_new(q)
  -- Once for all jobs of a queue.
  redis.call('XTRIM', q.events, 'MAXLEN', '~', q.max_length)
end
for _, more in ipairs(touched) do
  call_with_all('SADD', more.parent_key .. ':dependencies', children_of[more.parent_key])
end
-- Only now is it known which parents have nothing left to wait for.
for _, more in ipairs(touched) do
  local _, parent_id, pq = parent_of(more.parent_key, more.parent)
  release_if_done(pq, parent_id, now_ms)
end
reply[2] = cmsgpack.pack(answers)
return reply
