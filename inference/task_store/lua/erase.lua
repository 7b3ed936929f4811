-- Erase tasks: cancel open ones, remove everything that this store has of them, and order the erasure of their
-- images and of their results in the sinks.
--
-- Keys:
--   task:ID                 hash        task record; deleted. A replay of the task loses its `replay_of`
--   image:ID                string      inline image; deleted
--   inline-bytes            string      bytes of all inline images; decreased
--   unstored:ID             string      late image; deleted
--   unstored                sorted set  tasks with a late image; the task leaves it
--   waiting:QUEUE           sorted set  tasks that wait, urgent ones also in `urgent`; the task leaves both
--   urgent:QUEUE            sorted set  urgent waiting tasks, by priority
--   running:QUEUE           set         tasks that run; the task leaves it
--   shares:QUEUE            hash        by owner, number of waiting tasks; decreased
--   open-tasks              hash        by owner, number of tasks that have not ended; decreased
--   leases                  sorted set  task ids by end of the lease, ms; the task leaves it
--   deadlines               sorted set  task ids by deadline, ms; the task leaves it
--   dead-letters            sorted set  tasks that are dead letters, by time, ms; the task leaves it
--   webhooks                sorted set  tasks whose webhook waits for its event; the task leaves it
--   webhooks:RECEIVER       sorted set  those of a receiver; the task leaves it
--   webhook-receivers       sorted set  receivers, by the time of their next event, ms; updated
--   webhook-outages         hash        receivers that are down; updated
--   request:REQUEST_ID      sorted set  tasks of a request id; the task leaves it
--   tasks                   stream      ids of the newest tasks, by acceptance number; an entry with the task is deleted
--   tasks:rest              sorted set  tasks that were in deleted entries, by acceptance number; added to, and trimmed
--   owner:OWNER:request:REQUEST_ID  sorted set  those of the task's owner; the task leaves it
--   owner:OWNER:tasks       stream      as `tasks`, by the owner's numbers
--   owner:OWNER:rest        sorted set  as `tasks:rest`, by the owner's numbers
--   owner:OWNER:use         hash        `seq`, the number of the owner's last task; read
--   owner:OWNER:idempotency:KEY     hash  as `idempotency`, of an owner
--   batch:BATCH_ID          string      items of a batch; the id is replaced, and a batch without another task is deleted
--   idempotency:KEY         hash        deleted if it stands for the task, or for a batch without another task
--   seq                     string      acceptance number of the last task; read
--   seq:tag                 string      name of this store; read
--   seq:lives               sorted set  the records' time to live is noted here
--   outbox:SINK             stream      gets an order for each sink that has, or gets, the result
--   erased                  sorted set  digests of erased ids that plain Celery clients gave, by time, ms; added to, and trimmed
--   erasures                hash        by erasure id, the objects to be deleted, as JSON; added to
--   erasure:ERASURE_ID      hash        progress of an erasure; created
--
-- Arguments: outcome, ttl_ms, how many tasks the stream `tasks` keeps, erasure id, life of its progress, ms, caller, the object keys
-- as JSON, their number, JSON of the item that replaces one of a batch, then the ids.
-- `outcome` is the answer to callers that wait for one of the tasks.
-- Answer: the ids that had a record.

local outcome, ttl, index_max, erasure_id, life, caller, objects, object_count, replacement = unpack(ARGV, 1, 9)
ttl = tonumber(ttl)
local ERASED_MEMORY_MS = 86400000
local REPLAYS = 1000 -- at most this many later tasks of a request id are examined

local progress, tag = key('erasure', erasure_id), redis.call('GET', key('seq', 'tag'))

-- Returns the record as a table, and the sinks with their delivery states.
local function read_all_fields(id)
  local fields, deliveries, found = {}, {}, redis.call('HGETALL', record(id))
  for i = 1, #found, 2 do
    fields[found[i]] = found[i + 1]
    local sink = string.match(found[i], '^delivery:(.+)$')
    if sink then deliveries[sink] = found[i + 1] end
  end
  return fields, deliveries
end

-- Take a task out of a list of the newest tasks. A stream's entry cannot be changed, so its other ids move to `rest`.
local function unlist(id, seq, last, stream, rest)
  redis.call('ZREM', rest, id)
  local entry = redis.call('XREVRANGE', stream, seq, '-', 'COUNT', 1)[1]
  if not entry or not string.find(' ' .. entry[2][2] .. ' ', ' ' .. id .. ' ', 1, true) then return end
  local number = tonumber(string.match(entry[1], '^%d+'))
  for other in string.gmatch(entry[2][2], '%S+') do
    if other ~= id then redis.call('ZADD', rest, number, other) end
    number = number + 1
  end
  redis.call('XDEL', stream, entry[1])
  redis.call('ZREMRANGEBYSCORE', rest, '-inf', last - index_max)
end

-- Take tasks out of their batch; returns whether the batch has another task. `replaced` has what replaces each id, as JSON.
local function leave_batch(batch, replaced)
  local batch_key, has_tasks = key('batch', batch), false
  local entries = redis.call('GET', batch_key)
  if not entries then return false end
  entries = string.gsub(entries, '"([%w_-]+)"', replaced)
  local decoded = cjson.decode(entries) -- an object if the batch has an owner
  for _, entry in ipairs(decoded.entries or decoded) do has_tasks = has_tasks or type(entry) == 'string' end
  if has_tasks then
    redis.call('SET', batch_key, entries, 'KEEPTTL')
    if redis.call('PTTL', batch_key) == -1 then redis.call('PEXPIRE', batch_key, ttl) end
  else
    redis.call('DEL', batch_key)
  end
  return has_tasks
end

-- Replays have the request id of the first task.
local function leave_replays(id, fields)
  for _, later in ipairs(redis.call('ZRANGEBYSCORE', key('request', fields.request_id), fields.seq, '+inf', 'LIMIT', 0, REPLAYS)) do
    if redis.call('HGET', record(later), 'replay_of') == id then redis.call('HDEL', record(later), 'replay_of') end
  end
end

-- Whether a task that is left has this request id. One whose own id it is, is in no index.
local function is_used(request_id)
  return redis.call('EXISTS', key('request', request_id)) == 1 or redis.call('HGET', record(request_id), 'request_id') == request_id
end

local function leave_webhook(id, webhook)
  local receiver = string.match(webhook, '^%S+')
  redis.call('ZREM', key('webhooks'), id)
  redis.call('ZREM', key('webhooks', receiver), id)
  local paused_until = string.match(redis.call('HGET', key('webhook-outages'), receiver) or '0 0', '%d+$')
  schedule_receiver(receiver, tonumber(paused_until))
end

-- The order follows the result in the outbox. A record of Kafka has the request id as key, so it is the task's own only if no other
-- task has that.
local function order(id, deliveries, request_id)
  local own_request_id = is_used(request_id) and '' or request_id
  for sink, state in pairs(deliveries) do
    redis.call('XADD', key('outbox', sink), '*', 'task_id', id, 'erasure', erasure_id, 'request_id', own_request_id,
      'is_pending', state == 'pending' and 1 or 0)
    redis.call('HINCRBY', progress, 'pending:' .. sink, 1)
  end
end

-- Forget the idempotency key of a task, unless the key is in use again, or for other tasks of its batch.
local function leave_idempotency(id, fields, batch_has_others)
  if not fields.idempotency or batch_has_others then return end
  local idempotency = idempotency_of(fields.owner, fields.idempotency)
  local subject = fields.batch and 'batch:' .. fields.batch or 'task:' .. id
  if redis.call('HGET', idempotency, 'subject') == subject then redis.call('DEL', idempotency) end
end

-- Returns the result of `read_all_fields`.
local function remove(id)
  local fields, deliveries = read_all_fields(id)
  local owner = fields.owner
  local replayed = idempotency_of(owner, 'replay:' .. id) -- of a dead letter: the task that continues
  local again = redis.call('HGET', replayed, 'subject')
  if again then redis.call('HDEL', key(again), 'idempotency') end
  redis.call('DEL', record(id), image(id), key('unstored', id), replayed)
  redis.call('ZREM', key('unstored'), id)
  redis.call('ZREM', key('dead-letters'), id)
  if fields.webhook then leave_webhook(id, fields.webhook) end
  unlist(id, fields.seq, redis.call('GET', key('seq')) or 0, key('tasks'), key('tasks', 'rest'))
  if owner and is_number(fields.owner_seq) then
    local last = redis.call('HGET', key('owner', owner, 'use'), 'seq') or 0
    unlist(id, fields.owner_seq, last, key('owner', owner, 'tasks'), key('owner', owner, 'rest'))
  end
  for _, index in ipairs(request_indexes(fields.request_id, owner)) do redis.call('ZREM', index, id) end
  if string.sub(id, -6) ~= tag then redis.call('ZADD', key('erased'), now, redis.sha1hex(id)) end
  return fields, deliveries
end

local ids = {}
for i = 10, #ARGV do
  local task = read(ARGV[i])
  if task.status then
    ids[#ids + 1] = task.id
    if not TERMINAL[task.status] then finish(task, 'canceled', outcome, ttl) end
  end
end
flush_effects()
if #ids == 0 then return ids end
redis.call('HSET', progress, 'owner', caller, 'tasks', #ids, 'pending:images', object_count)
redis.call('PEXPIRE', progress, life)
if object_count ~= '0' then redis.call('HSET', key('erasures'), erasure_id, objects) end
local removed, replaced_in, batch_has_others = {}, {}, {}
for number, id in ipairs(ids) do
  local fields, deliveries = remove(id)
  removed[number] = {fields, deliveries}
  if fields.batch then
    replaced_in[fields.batch] = replaced_in[fields.batch] or {}
    replaced_in[fields.batch][id] = replacement
  end
end
-- Only now it is known which tasks are left.
for batch, replaced in pairs(replaced_in) do batch_has_others[batch] = leave_batch(batch, replaced) end
for number, id in ipairs(ids) do
  local fields, deliveries = unpack(removed[number])
  leave_idempotency(id, fields, fields.batch and batch_has_others[fields.batch])
  leave_replays(id, fields)
  order(id, deliveries, fields.request_id)
end
redis.call('ZREMRANGEBYSCORE', key('erased'), '-inf', now - ERASED_MEMORY_MS)
redis.call('PEXPIRE', key('erased'), ERASED_MEMORY_MS)
return ids
