-- List tasks that match a filter, a page at a time, newest first.
--
-- Keys:
--   tasks                           stream      ids of the newest tasks, by acceptance number; read
--   tasks:rest                      sorted set  tasks that erasures took out of that stream with others, by acceptance number; read
--   request:REQUEST_ID              sorted set  tasks of a request id, by acceptance number; tasks without a record leave it
--   owner:OWNER:tasks               stream      ids of the owner's newest tasks, by the owner's numbers; read
--   owner:OWNER:rest                sorted set  as `tasks:rest`, of the owner's stream; read
--   owner:OWNER:request:REQUEST_ID  sorted set  those of an owner; tasks without a record leave it
--   task:ID                         hash        task record; read
--
-- Arguments: owner or '' (all owners), request_id or '' (all tasks), before, since_ms, the first bytes of the field `model` or '',
-- limit, the number of tasks to examine at most, statuses (none: any).
-- Answer: the number before which the next page begins, 0 on the last page; the ids of tasks with a number below `before`.
-- Tasks are accepted in the order of their numbers, so the first one that is older than `since_ms` ends the list.

local owner, request_id, model = ARGV[1], ARGV[2], ARGV[5]
local before, since, limit, most = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[6]), tonumber(ARGV[7])
local statuses = {}
for at = 8, #ARGV do statuses[ARGV[at]] = true end

-- Tasks to examine, newest first; `has_more` says whether the index has older ones.
local tasks, has_more, index = {}, false, nil

local function add(id, seq)
  if #tasks == most then
    has_more = true
  else
    tasks[#tasks + 1] = {id = id, seq = seq}
  end
end

-- An entry has the ids of one call, in order; its stream id is the acceptance number of the first of them.
local ENTRIES = 64

local function read_stream()
  local stream = owner == '' and key('tasks') or key('owner', owner, 'tasks')
  local from = string.format('%.0f', math.max(0, before - 1))
  while true do
    local entries = redis.call('XREVRANGE', stream, from, '-', 'COUNT', ENTRIES)
    for _, entry in ipairs(entries) do
      local first, ids = tonumber(string.match(entry[1], '^%d+')), {}
      for id in string.gmatch(entry[2][2], '%S+') do ids[#ids + 1] = id end
      for at = #ids, 1, -1 do
        if first + at - 1 < before then add(ids[at], first + at - 1) end
      end
      if has_more then return end
      from = '(' .. entry[1]
    end
    if #entries < ENTRIES then return end
  end
end

local function newest_first(one, other)
  return one.seq > other.seq
end

local function read_all()
  read_stream()
  local rest = owner == '' and key('tasks', 'rest') or key('owner', owner, 'rest')
  local others = redis.call('ZREVRANGEBYSCORE', rest, '(' .. ARGV[3], '-inf', 'WITHSCORES', 'LIMIT', 0, most + 1)
  if #others == 0 then return end
  local found = tasks
  for i = 1, #others, 2 do found[#found + 1] = {id = others[i], seq = tonumber(others[i + 1])} end
  table.sort(found, newest_first)
  tasks = {}
  for _, task in ipairs(found) do add(task.id, task.seq) end
end

local function read_those_of_request()
  local indexes = request_indexes(request_id, owner)
  index = indexes[#indexes]
  local members = redis.call('ZREVRANGEBYSCORE', index, '(' .. ARGV[3], '-inf', 'WITHSCORES', 'LIMIT', 0, most + 1)
  local entries = {}
  for i = 1, #members, 2 do entries[#entries + 1] = {id = members[i], seq = tonumber(members[i + 1])} end
  -- A task without a request id has its own id as request id, and is not in the index.
  local own, seq, its_owner = unpack(redis.call('HMGET', record(request_id), 'request_id', 'seq', 'owner'))
  if own == request_id and is_number(seq) and tonumber(seq) < before and (owner == '' or its_owner == owner) then
    entries[#entries + 1] = {id = request_id, seq = tonumber(seq)}
    table.sort(entries, newest_first)
  end
  for _, entry in ipairs(entries) do add(entry.id, entry.seq) end
end

if request_id == '' then read_all() else read_those_of_request() end

local ids, gone, rest = {}, {}, has_more and tasks[#tasks].seq or 0
local last = 0
for _, task in ipairs(tasks) do
  local status, created, ran_on = unpack(redis.call('HMGET', record(task.id), 'status', 'created_at', 'model'))
  if not is_number(created) then
    gone[#gone + 1] = task.id
  elseif tonumber(created) < since then
    rest = 0
    break
  elseif (#ARGV < 8 or statuses[status]) and string.sub(ran_on or '', 1, #model) == model then
    if #ids == limit then
      rest = last
      break
    end
    ids[#ids + 1] = task.id
    last = task.seq
  end
end
if index then call_with_all(gone, 'ZREM', index) end
return {string.format('%.0f', rest), ids}
