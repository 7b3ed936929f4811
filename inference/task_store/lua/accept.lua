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
--   owner:OWNER:tasks   stream      ids of the owner's newest tasks, by the owner's numbers; added to, and trimmed
--   owner:OWNER:idempotency:KEY     hash  as `idempotency`, of an owner; created
--   erased              sorted set  digests of erased ids that plain Celery clients gave; read
--   seq                 string      acceptance number of the last task; increased
--   owner:OWNER:use     hash        use of an owner: `due` of the rate limit; `images` and `bytes` of the day that began at `day`; `seq`,
--                                   the number of its last task; updated
--   open-tasks          hash        by owner, number of tasks that have not ended; increased
--   shares:QUEUE        hash        by owner, number of waiting tasks; increased
--   waiting:QUEUE       sorted set  tasks that wait, by acceptance number; added to
--   urgent:QUEUE        sorted set  waiting tasks with a priority over 0, by priority; added to
--   running:QUEUE       set         tasks that run; counted
--   deadlines           sorted set  task ids by deadline, ms; added to
--
-- Messages, and tokens for wake-up lists, are pushed to the lists that the arguments name (Celery's broker on the same server), and
-- owners get their turns there.
--
-- Arguments: how many tasks each stream `tasks` keeps; the number of submissions; for each, how many arguments follow, and these:
--   subject, owner or '', limits or '', bytes of the images, max_depth, result_ttl_ms, idempotency_key, fingerprint, idempotency_ttl_ms, entries;
--   how many messages, and for each list_key, payload, wake_up_key, turns_key or '', cost;
--   how many queues have a room, and for each queue, room, window, 1 if owners take turns, else 0;
--   for each task id, request_id, item, image or '', queue, deadline_ms, priority, how many arguments the fields of its record take,
--   these fields (field, value, ...).
-- `subject` is task:ID or batch:ID: it is accepted, and found by the idempotency key. `entries` is the record of a batch. A task of
-- another owner with the same id makes the state `taken`.
-- `room` is the limit for the sum of running tasks, waiting tasks that take precedence, and the new tasks, so that these end in
-- time; a queue without a room takes any number. A task with a priority overtakes tasks of lower priorities, except up to `window`
-- tasks, which workers hold already. If owners take turns, so does a task of an owner who has fewer waiting tasks than others.
-- `limits` is JSON with those limits of the owner that are set, '' without any: `interval` in ms between two requests and `burst`,
-- the number of requests that may come at once (GCRA); `images_per_day`, `bytes_per_day`, with days of UTC; `waiting_tasks`. Only an
-- accepted submission uses anything up.
-- Answer: for each submission its state, the subject that the state is about, or the queue that is full or too slow, or the limit that
-- is reached, and the bytes of all inline images after the call; with limits, in addition: ms until the rate limit has no
-- memory of earlier requests, images and bytes of the day, open tasks, and ms until the day ends.

-- Returns the rooms by queue, and the position of the first task in the arguments.
local function read_rooms(first)
  local rooms = {}
  for number = 0, tonumber(ARGV[first]) - 1 do
    local queue, room, window, turns = unpack(ARGV, first + 1 + 4 * number, first + 4 + 4 * number)
    rooms[queue] = {tasks = tonumber(room), window = tonumber(window), has_turns = turns == '1'}
  end
  return rooms, first + 1 + 4 * ARGV[first]
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

local DAY_MS = 86400000
local now_exactly = clock[1] * 1000 + clock[2] / 1000

-- Owners of the submissions, each read once; `flush_owners` writes the changes of the call.
local owners = {}

local function read_owner(owner)
  if owners[owner] then return owners[owner] end
  local due, day, images, bytes, seq = unpack(redis.call('HMGET', key('owner', owner, 'use'), 'due', 'day', 'images', 'bytes', 'seq'))
  local is_today = day and tonumber(day) == now - now % DAY_MS
  owners[owner] = {owner = owner, due = math.max(tonumber(due or 0), now_exactly), images = is_today and tonumber(images) or 0,
    bytes = is_today and tonumber(bytes) or 0, seq = tonumber(seq or 0), ids = {}}
  return owners[owner]
end

-- Returns the number of open tasks of an owner. Like the shares it is read only where a limit asks for it.
local function count_open_tasks(use)
  if not use.open then
    flush_counts()
    use.open = tonumber(redis.call('HGET', key('open-tasks'), use.owner) or 0)
  end
  return use.open
end

-- Returns how many tasks of an owner wait, and how many other owners have waiting tasks.
local function read_shares(queue, owner)
  flush_counts()
  local shares = key('shares', queue)
  local own = tonumber(redis.call('HGET', shares, owner) or 0)
  return own, redis.call('HLEN', shares) - (own > 0 and 1 or 0)
end

-- Returns the reason why a queue refuses the `coming` tasks; nil if it takes them. A queue without open tasks always takes them. Of
-- `max_depth` each owner with waiting tasks has an equal part, which others cannot fill.
local function refusal(queue, owner, coming, room, max_depth)
  local waiting = redis.call('ZCARD', key('waiting', queue))
  if max_depth > 0 and waiting + coming.count > max_depth then
    local own, others = waiting, 0
    if owner ~= '' then own, others = read_shares(queue, owner) end
    if (own + coming.count) * (others + 1) > max_depth then return 'overloaded' end
  end
  if not room then return nil end
  local running = redis.call('SCARD', key('running', queue))
  if waiting + running == 0 or waiting + running + coming.count <= room.tasks then return nil end
  if coming.priority > 0 then
    waiting = math.min(waiting, room.window + redis.call('ZCOUNT', key('urgent', queue), coming.priority, '+inf'))
  end
  if owner ~= '' and room.has_turns then -- each of the others has as many turns until the last of the coming tasks has its own
    local own, others = read_shares(queue, owner)
    waiting = math.min(waiting, room.window + own + others * (own + coming.count))
  end
  local ahead = waiting + running
  return ahead > 0 and ahead + coming.count > room.tasks and 'late' or nil
end

-- Returns the limit that does not allow `count` more tasks with images of `bytes`; nil if all do.
local function reached_limit(limits, use, count, bytes)
  -- A hundredth of a millisecond is less than the rounding of `due`.
  if limits.interval and use.due - now_exactly > (limits.burst - 1) * limits.interval + 0.01 then return 'requests_per_s' end
  if limits.images_per_day and use.images + count > limits.images_per_day then return 'images_per_day' end
  if limits.bytes_per_day and use.bytes + bytes > limits.bytes_per_day then return 'bytes_per_day' end
  if limits.waiting_tasks and count_open_tasks(use) + count > limits.waiting_tasks then return 'waiting_tasks' end
end

-- Count and number the tasks of an accepted submission; `flush_owners` lists them under their numbers, `owner_seq` in their records.
local function note_use(use, limits, coming, tasks, bytes)
  for queue, found in pairs(coming) do count_waiting(use.owner, queue, found.count) end
  count_open(use.owner, #tasks)
  if use.open then use.open = use.open + #tasks end
  use.due = use.due + (limits and limits.interval or 0)
  use.images, use.bytes, use.is_changed = use.images + #tasks, use.bytes + bytes, true
  for _, task in ipairs(tasks) do
    use.seq = use.seq + 1
    use.ids[#use.ids + 1] = task.id
    append(task.fields, 'owner_seq', use.seq)
  end
end

-- Returns an answer; `use` is nil without limits.
local function answer(state, subject, use)
  if not use then return {state, subject, 0} end
  return {state, subject, 0, math.ceil(use.due - now_exactly), use.images, use.bytes, count_open_tasks(use), DAY_MS - now % DAY_MS}
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

-- A message of a plain Celery client may be delivered again, after its task was erased.
local has_erased = redis.call('EXISTS', key('erased')) == 1

local function is_erased(task)
  return has_erased and task and redis.call('ZSCORE', key('erased'), redis.sha1hex(task.id))
end

-- One entry holds tasks that were accepted together: its stream id is the number of the first, and their numbers are consecutive.
-- The stream may be newer than its numbers only if the server lost keys: then it begins again.
local function append_to(stream, last, ids)
  local first = string.format('%.0f-0', last - #ids + 1)
  local oldest = string.format('%.0f', math.max(0, last - tonumber(ARGV[1]) + 1))
  local joined = table.concat(ids, ' ')
  if redis.pcall('XADD', stream, 'MINID', '~', oldest, first, 'ids', joined).err then
    redis.call('DEL', stream)
    redis.call('XADD', stream, first, 'ids', joined)
  end
end

-- Write the use of owners, and list their tasks.
local function flush_owners()
  flush_counts()
  for owner, use in pairs(owners) do
    if use.is_changed then
      redis.call('HSET', key('owner', owner, 'use'), 'due', string.format('%.3f', use.due), 'day', now - now % DAY_MS,
        'images', use.images, 'bytes', use.bytes, 'seq', use.seq)
    end
    if #use.ids > 0 then append_to(key('owner', owner, 'tasks'), use.seq, use.ids) end
  end
end

-- Whether the subject is a task of another owner: clients of Celery choose ids.
local function is_taken(subject, owner)
  return string.sub(subject, 1, 5) == 'task:' and (redis.call('HGET', key(subject), 'owner') or '') ~= owner
end

local function accept(first, last)
  local subject, owner, limits, bytes, max_depth, ttl, idempotency_key, fingerprint, idempotency_ttl = unpack(ARGV, first, first + 8)
  local entries, messages = unpack(ARGV, first + 9, first + 10)
  local first_message = first + 11
  local first_room = first_message + 5 * messages
  local use = owner ~= '' and read_owner(owner) or nil
  limits = limits ~= '' and cjson.decode(limits) or nil
  local limited = limits and use
  max_depth, ttl = tonumber(max_depth), tonumber(ttl)

  if redis.call('EXISTS', key(subject)) == 1 then
    -- The client repeats the request, since the first answer got lost, unless the task is another owner's.
    return answer(is_taken(subject, owner) and 'taken' or 'accepted', subject, limited)
  end
  if idempotency_key ~= '' then
    local known = redis.call('HMGET', idempotency_of(owner, idempotency_key), 'subject', 'fingerprint')
    if known[1] and redis.call('EXISTS', key(known[1])) == 1 then
      return answer(known[2] == fingerprint and 'replayed' or 'conflict', known[1], limited)
    end
  end
  local rooms, first_task = read_rooms(first_room)
  local tasks = read_tasks(first_task, last)
  if is_erased(tasks[1]) then return answer('replayed', subject, limited) end -- and no lease finds it
  local reached = limits and reached_limit(limits, use, #tasks, bytes)
  if reached then return answer('limited', reached, limited) end
  local queues, coming = count_coming(tasks)
  for _, queue in ipairs(queues) do
    local reason = refusal(queue, owner, coming[queue], rooms[queue], max_depth)
    if reason then return answer(reason, queue, limited) end
  end
  if use then note_use(use, limits, coming, tasks, bytes) end
  local seq, longest = redis.call('INCRBY', key('seq'), #tasks) - #tasks, 0
  for number, task in ipairs(tasks) do
    write(task, owner, seq + number, ttl, idempotency_key)
    longest = math.max(longest, task.deadline)
  end
  if entries ~= '' then
    redis.call('SET', key(subject), entries, 'PX', longest + ttl)
  end
  if idempotency_key ~= '' then
    local idempotency = idempotency_of(owner, idempotency_key)
    redis.call('HSET', idempotency, 'subject', subject, 'fingerprint', fingerprint)
    redis.call('PEXPIRE', idempotency, idempotency_ttl)
  end
  for at = first_message, first_room - 1, 5 do
    local list_key, payload, wake_up_key, turns_key, cost = unpack(ARGV, at, at + 4)
    push(list_key, payload, wake_up_key, turns_key, owner, cost)
  end
  return answer('accepted', subject, limited)
end

local answers = {}
local at = 3
for number = 1, tonumber(ARGV[2]) do
  local length = tonumber(ARGV[at])
  answers[number] = accept(at + 1, at + length)
  at = at + length + 1
end
if #changed > 0 then append_to(key('tasks'), last_seq, changed) end
flush_owners()
publish_changes()
local counter = key('inline-bytes')
local inline_bytes = image_bytes > 0 and redis.call('INCRBY', counter, image_bytes) or tonumber(redis.call('GET', counter) or 0)
for _, found in ipairs(answers) do found[3] = inline_bytes end
return answers
