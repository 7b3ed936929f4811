-- Accept submissions: each is a task or a batch, accepted completely or not at all.
--
-- Keys:
--   task:ID             hash        task record; created
--   image:ID            string      inline image; created
--   inline-bytes        string      bytes of all inline images; increased
--   batch:BATCH_ID      string      items of a batch, as JSON; created
--   request:REQUEST_ID  sorted set  tasks of a request id, by acceptance number; added to
--   tasks               stream      ids of the newest tasks, by acceptance number; added to, and trimmed
--   idempotency:KEY     hash        `subject` and `fingerprint` of the request with this key; created, if the tasks have no owner
--   owner:OWNER:request:REQUEST_ID  sorted set  tasks of the owner with a request id, by acceptance number; added to
--   owner:OWNER:tasks   stream      ids of the owner's newest tasks, by acceptance number; added to, and trimmed
--   owner:OWNER:idempotency:KEY     hash  as `idempotency`, of an owner; created
--   erased              sorted set  digests of erased ids that plain Celery clients gave; read
--   seq                 string      acceptance number of the last task; increased
--   waiting:QUEUE       sorted set  tasks that wait, by acceptance number; added to
--   urgent:QUEUE        sorted set  waiting tasks with a priority over 0, by priority; added to
--   running:QUEUE       set         tasks that run; counted
--   deadlines           sorted set  task ids by deadline, ms; added to
--
-- Messages, and tokens for wake-up lists, are pushed to the lists that the arguments name (Celery's broker on the same server).
--
-- Arguments: how many tasks each stream `tasks` keeps; the number of submissions; for each, how many arguments follow, and these:
--   subject, owner or '', max_depth, result_ttl_ms, idempotency_key, fingerprint, idempotency_ttl_ms, entries;
--   how many messages, and for each list_key, payload, wake_up_key;
--   how many queues have a room, and for each queue, room, window;
--   for each task id, request_id, item, image or '', queue, deadline_ms, priority, how many arguments the fields of its record take,
--   these fields (field, value, ...).
-- `subject` is task:ID or batch:ID: it is accepted, and found by the idempotency key. `entries` is the record of a batch. A task of
-- another owner with the same id makes the state `taken`.
-- `room` is the limit for the sum of running tasks, waiting tasks that take precedence, and the new tasks, so that these end in
-- time; a queue without a room takes any number. A task with a priority overtakes tasks of lower priorities, except up to `window`
-- tasks, which workers hold already.
-- Answer: for each submission its state, the subject that the state is about, or the queue that is full or too slow, and the bytes
-- of all inline images after the call.

-- Returns the rooms by queue, and the position of the first task in the arguments.
local function read_rooms(first)
  local rooms = {}
  for number = 0, tonumber(ARGV[first]) - 1 do
    local queue, room, window = unpack(ARGV, first + 1 + 3 * number, first + 3 + 3 * number)
    rooms[queue] = {tasks = tonumber(room), window = tonumber(window)}
  end
  return rooms, first + 1 + 3 * ARGV[first]
end

local function read_tasks(first, last)
  local tasks, at = {}, first
  while at <= last do
    local id, request_id, item, bytes, queue, deadline, priority, width = unpack(ARGV, at, at + 7)
    tasks[#tasks + 1] = {id = id, request_id = request_id, item = item, image = bytes, queue = queue, deadline = tonumber(deadline),
      priority = tonumber(priority), fields = {unpack(ARGV, at + 8, at + 7 + width)}}
    at = at + 8 + width
  end
  return tasks
end

-- Returns the queues of the tasks in their order, and by queue the number of new tasks and their lowest priority.
local function count_coming(tasks)
  local queues, coming = {}, {}
  for _, task in ipairs(tasks) do
    local found = coming[task.queue]
    if not found then
      found = {count = 0, priority = task.priority}
      queues[#queues + 1], coming[task.queue] = task.queue, found
    end
    found.count, found.priority = found.count + 1, math.min(found.priority, task.priority)
  end
  return queues, coming
end

-- Returns the reason why a queue refuses the `coming` tasks; nil if it takes them. A queue without open tasks always takes them.
local function refusal(queue, coming, room, max_depth)
  local waiting = redis.call('ZCARD', key('waiting', queue))
  if max_depth > 0 and waiting + coming.count > max_depth then return 'overloaded' end
  if not room then return nil end
  if coming.priority > 0 then
    waiting = math.min(waiting, room.window + redis.call('ZCOUNT', key('urgent', queue), coming.priority, '+inf'))
  end
  local ahead = waiting + redis.call('SCARD', key('running', queue))
  return ahead > 0 and ahead + coming.count > room.tasks and 'late' or nil
end

local image_bytes = 0 -- bytes that this call writes
local last_seq = 0 -- number of the last task that this call accepts; `changed` has all of them, in order

local function write(task, owner, seq, ttl, idempotency_key)
  local id, life = task.id, task.deadline + ttl
  changed[#changed + 1], last_seq = id, seq
  if task.image ~= '' then append(task.fields, 'image_bytes', #task.image) end
  if idempotency_key ~= '' then append(task.fields, 'idempotency', idempotency_key) end
  redis.call('HSET', record(id), 'item', task.item, 'request_id', task.request_id, 'status', 'queued', 'seq', seq,
    'queue', task.queue, 'created_at', now, 'deadline_at', now + task.deadline, unpack(task.fields))
  if task.image ~= '' then
    redis.call('SET', image(id), task.image, 'PX', life)
    image_bytes = image_bytes + #task.image
  end
  if task.request_id ~= id then -- else the task is found by its id
    for _, index in ipairs(request_indexes(task.request_id, owner)) do
      redis.call('ZADD', index, seq, id)
      extend_ttl(index, life)
      forget_some_gone(index)
    end
  end
  redis.call('ZADD', key('waiting', task.queue), seq, id)
  redis.call('ZADD', key('deadlines'), now + task.deadline, id)
  if task.priority > 0 then redis.call('ZADD', key('urgent', task.queue), task.priority, id) end
end

-- One entry holds tasks that were accepted together: its stream id is the number of the first, and their numbers are consecutive.
-- The stream may be newer than its numbers only if the server lost keys: then it begins again.
local function append_to(stream, last, ids, strategy, threshold)
  local first, joined = string.format('%.0f-0', last - #ids + 1), table.concat(ids, ' ')
  if redis.pcall('XADD', stream, strategy, '~', threshold, first, 'ids', joined).err then
    redis.call('DEL', stream)
    redis.call('XADD', stream, first, 'ids', joined)
  end
end

-- An entry for each task, so that MAXLEN counts tasks: the numbers of an owner's tasks have gaps, and say nothing of how many it has.
local function index_of_owner(owner, tasks, seq)
  for number, task in ipairs(tasks) do append_to(all_tasks_of(owner), seq + number, {task.id}, 'MAXLEN', ARGV[1]) end
end

-- Whether the subject is a task of another owner: clients of Celery choose ids.
local function is_taken(subject, owner)
  return string.sub(subject, 1, 5) == 'task:' and (redis.call('HGET', key(subject), 'owner') or '') ~= owner
end

-- A message of a plain Celery client may be delivered again, after its task was erased.
local has_erased = redis.call('EXISTS', key('erased')) == 1

local function is_erased(task)
  return has_erased and task and redis.call('ZSCORE', key('erased'), redis.sha1hex(task.id))
end

local function accept(first, last)
  local subject, owner, max_depth, ttl, idempotency_key, fingerprint, idempotency_ttl = unpack(ARGV, first, first + 6)
  local entries, messages = unpack(ARGV, first + 7, first + 8)
  local first_message = first + 9
  local first_room = first_message + 3 * messages
  max_depth, ttl = tonumber(max_depth), tonumber(ttl)

  if redis.call('EXISTS', key(subject)) == 1 then
    if is_taken(subject, owner) then return {'taken', subject} end
    return {'accepted', subject} -- the client repeats the request: the first answer got lost
  end
  local idempotency = idempotency_of(owner, idempotency_key)
  if idempotency_key ~= '' then
    local known = redis.call('HMGET', idempotency, 'subject', 'fingerprint')
    if known[1] and redis.call('EXISTS', key(known[1])) == 1 then
      return {known[2] == fingerprint and 'replayed' or 'conflict', known[1]}
    end
  end
  local rooms, first_task = read_rooms(first_room)
  local tasks = read_tasks(first_task, last)
  if is_erased(tasks[1]) then return {'replayed', subject} end -- and no lease finds it
  local queues, coming = count_coming(tasks)
  for _, queue in ipairs(queues) do
    local reason = refusal(queue, coming[queue], rooms[queue], max_depth)
    if reason then return {reason, queue} end
  end

  local seq, longest = redis.call('INCRBY', key('seq'), #tasks) - #tasks, 0
  for number, task in ipairs(tasks) do
    write(task, owner, seq + number, ttl, idempotency_key)
    longest = math.max(longest, task.deadline)
  end
  if entries ~= '' then
    redis.call('SET', key(subject), entries, 'PX', longest + ttl)
  end
  if owner ~= '' then index_of_owner(owner, tasks, seq) end
  if idempotency_key ~= '' then
    redis.call('HSET', idempotency, 'subject', subject, 'fingerprint', fingerprint)
    redis.call('PEXPIRE', idempotency, idempotency_ttl)
  end
  for at = first_message, first_room - 1, 3 do
    local list_key, payload, wake_up_key = unpack(ARGV, at, at + 2)
    redis.call('LPUSH', list_key, payload)
    if wake_up_key ~= '' and redis.call('LLEN', wake_up_key) == 0 then redis.call('LPUSH', wake_up_key, '') end
  end
  return {'accepted', subject}
end

local answers = {}
local at = 3
for number = 1, tonumber(ARGV[2]) do
  local length = tonumber(ARGV[at])
  answers[number] = accept(at + 1, at + length)
  at = at + length + 1
end
if #changed > 0 then
  append_to(key('tasks'), last_seq, changed, 'MINID', string.format('%.0f', math.max(0, last_seq - tonumber(ARGV[1]) + 1)))
end
publish_changes()
local counter = key('inline-bytes')
local inline_bytes = image_bytes > 0 and redis.call('INCRBY', counter, image_bytes) or tonumber(redis.call('GET', counter) or 0)
for _, answer in ipairs(answers) do answer[3] = inline_bytes end
return answers
