-- Functions that the scripts share. Each script is run behind those definitions that it uses, with what they use (scripts.py): a
-- definition costs time in each call. So each begins with `local` at the beginning of a line, and nothing else does.
--
-- KEYS[1] is PREFIX, with which all keys begin. The comments leave it out: `task:ID` is PREFIX:task:ID. Each script lists the keys
-- that it uses, directly or through these functions; docs/redis-keys.md lists all keys. Times are on the server's clock, ms since
-- the epoch. Only commands of Redis 6.2 are used.

local prefix = KEYS[1]

local function key(first, second, ...)
  if second ~= nil then return key(first .. ':' .. second, ...) end -- in half the time of table.concat
  return prefix .. ':' .. first
end

local record_prefix = key('task', '')
local image_prefix = key('image', '')

local function record(id)
  return record_prefix .. id
end

local function image(id)
  return image_prefix .. id
end

-- Indexes with tasks of a request id: that of all owners, and that of the task's owner if it has one.
local function request_indexes(request_id, owner)
  local all = key('request', request_id)
  if owner and owner ~= '' then return {all, key('owner', owner, 'request', request_id)} end
  return {all}
end

-- Hash of the request with an idempotency key, which each owner has for itself.
local function idempotency_of(owner, idempotency_key)
  if owner and owner ~= '' then return key('owner', owner, 'idempotency', idempotency_key) end
  return key('idempotency', idempotency_key)
end

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local TERMINAL = {succeeded = true, failed = true, canceled = true, expired = true}
local KEEP = -1

-- Whether a value is a whole number. If a field of a record is none, another program has changed it: the scripts treat the record as
-- one that is not there, so that it does not stop their work for other tasks.
local find = string.find
local function is_number(value)
  return value and value ~= '' and not find(value, '%D')
end

local function is_leased(id)
  local until_ms = redis.call('ZSCORE', key('leases'), id)
  return until_ms and tonumber(until_ms) > now
end

local function drop_lease(id)
  redis.call('HDEL', record(id), 'holder')
  redis.call('ZREM', key('leases'), id)
end

-- Tasks that were accepted, or whose status changed; `publish_changes` publishes their ids.
local changed = {}

-- Changes of the counts by owner: by the key of a hash, by owner. `flush_counts` writes them.
local counts = {}

local function note_change(hash, owner, change)
  local changes = counts[hash] or {}
  counts[hash] = changes
  changes[owner] = (changes[owner] or 0) + change
end

-- Count a waiting task, or an open one, of an owner. A task without an owner is not counted.
local function count_waiting(owner, queue, change)
  if owner and owner ~= '' then note_change(key('shares', queue), owner, change) end
end

local function count_open(owner, change)
  if owner and owner ~= '' then note_change(key('open-tasks'), owner, change) end
end

local function flush_counts()
  for hash, changes in pairs(counts) do
    for owner, change in pairs(changes) do
      if redis.call('HINCRBY', hash, owner, change) <= 0 then redis.call('HDEL', hash, owner) end
    end
  end
  counts = {}
end

-- Let a task wait that has the given status. Call `flush_counts` afterwards.
local function wait_again(id, status, queue, seq, priority, owner)
  redis.call('HSET', record(id), 'status', 'queued')
  if status == 'running' then count_waiting(owner, queue, 1) end
  changed[#changed + 1] = id
  redis.call('ZADD', key('waiting', queue), seq, id)
  redis.call('SREM', key('running', queue), id)
  if tonumber(priority) > 0 then redis.call('ZADD', key('urgent', queue), priority, id) end
end

-- Call a command with many arguments: first the given ones, then `values`, in parts: Lua cannot pass more than a few thousand.
local function call_with_all(values, ...)
  local first = {...}
  for start = 1, #values, 1000 do
    local arguments = {unpack(first)}
    for at = start, math.min(start + 999, #values) do arguments[#arguments + 1] = values[at] end
    redis.call(unpack(arguments))
  end
end

-- How long counts of ended tasks last in pace:QUEUE (see commit.lua). The count of urgent ones lasts for some commits of a slow
-- model: faded within 2 s, it would be a rate of 0.5 a second just after one task, even if the model ends one in 10 s.
local FADE_MS, FADE_COMMITS = 2000, 3

local function fade_of_urgent(busy, commits)
  return math.max(FADE_MS, FADE_COMMITS * busy / commits)
end

-- Delete inline images by their keys. `bytes` is their size by their records: an image may be gone already, but
-- `inline-bytes` still counts it.
local function delete_images(keys, bytes)
  call_with_all(keys, 'DEL')
  if bytes > 0 and redis.call('DECRBY', key('inline-bytes'), bytes) <= 0 then redis.call('DEL', key('inline-bytes')) end
end

-- Tasks that no longer wait, by queue. `stop_waiting` removes all of them at once from the queue's sets `waiting` and `urgent`, and
-- adds them to its set `running` (`note` is SADD) or removes them from it (SREM). `status` is that of the task before.
local started_or_ended = {}

local function mark_not_waiting(id, status, queue, owner)
  if status == 'queued' then count_waiting(owner, queue, -1) end
  local ids = started_or_ended[queue] or {}
  ids[#ids + 1] = id
  started_or_ended[queue] = ids
end

local function stop_waiting(note)
  for queue, ids in pairs(started_or_ended) do
    call_with_all(ids, 'ZREM', key('waiting', queue))
    if redis.call('EXISTS', key('urgent', queue)) == 1 then call_with_all(ids, 'ZREM', key('urgent', queue)) end
    call_with_all(ids, note, key('running', queue))
  end
  flush_counts()
end

-- Publish the changed tasks on the channel PREFIX:changes, but only while an API process with open event streams listens there.
local function publish_changes()
  local channel = prefix .. ':changes'
  if #changed > 0 and redis.call('PUBSUB', 'NUMSUB', channel)[2] > 0 then
    redis.call('PUBLISH', channel, table.concat(changed, ' '))
  end
end

-- Lists to which this call has pushed: their owner has a turn, and their queue a token.
local pushed_to = {}

-- Push a message to its list (of a queue in Celery's broker), and a token to the queue's wake-up list if that is empty. A message of
-- an owner with `turns_key` gives the owner a turn: see tasks/transport/claim.lua. An owner whose first message comes takes its place
-- after the owner who is next, and after as many items as the message has: `cost`. So nobody who waits is overtaken again and again.
local function push(list_key, payload, wake_up_key, turns_key, owner, cost)
  redis.call('LPUSH', list_key, payload)
  if pushed_to[list_key] then return end
  pushed_to[list_key] = true
  if turns_key ~= '' and not redis.call('ZSCORE', turns_key, owner) then
    local next_turn = redis.call('ZRANGE', turns_key, 0, 0, 'WITHSCORES')[2] or 0
    redis.call('ZADD', turns_key, next_turn + cost, owner)
  end
  if wake_up_key ~= '' and redis.call('LLEN', wake_up_key) == 0 then redis.call('LPUSH', wake_up_key, '') end
end

local function append(list, one, another)
  list[#list + 1] = one
  list[#list + 1] = another
end

-- Lease all `ids` for `lease` ms from now.
local function lease_all(ids, lease)
  local members = {}
  for _, id in ipairs(ids) do append(members, now + lease, id) end
  call_with_all(members, 'ZADD', key('leases'))
end

local function extend_ttl(index, ttl)
  if redis.call('PTTL', index) < ttl then redis.call('PEXPIRE', index, ttl) end
end

-- An index lives as long as tasks with its request id are accepted, but its entries may outlive their records. Each acceptance
-- examines two random entries, so that at most about half of a long index has no records.
local function forget_some_gone(index)
  if redis.call('ZCARD', index) <= 100 then return end
  for _, id in ipairs(redis.call('ZRANDMEMBER', index, 2)) do
    if redis.call('EXISTS', record(id)) == 0 then redis.call('ZREM', index, id) end
  end
end

-- Times that records live after their end, by the time of their last use, to the hour. They differ between processes and change
-- with the settings; a record that has expired must not be taken for a task that was never accepted.
local lives, LIFE_MEMORY_MS, LIFE_ROUND_MS = key('seq', 'lives'), 90000000, 3600000

local function note_life(ttl)
  if now - tonumber(redis.call('ZSCORE', lives, ttl) or 0) < LIFE_ROUND_MS then return end
  redis.call('ZADD', lives, now, ttl)
  redis.call('ZREMRANGEBYSCORE', lives, '-inf', now - LIFE_MEMORY_MS)
  redis.call('PEXPIRE', lives, LIFE_MEMORY_MS)
end

-- Time to live of the records that this script ends; a script has one `ttl` for all of them.
local given_life

-- Life of the record of each batch, for tasks that end here or wait for a sink; `set_batch_lives` sets it for all at once.
local batch_lives = {}

local function set_batch_lives()
  if given_life then note_life(given_life) end
  for batch, ttl in pairs(batch_lives) do
    if ttl == KEEP then
      redis.call('PERSIST', key('batch', batch))
    else
      extend_ttl(key('batch', batch), ttl)
    end
  end
end

-- Let a record expire after `ttl` ms, or never (KEEP: a dead letter). Call `set_batch_lives` afterwards. The last four arguments
-- are fields of the record.
local function let_expire(id, ttl, request_id, seq, batch, owner)
  if ttl == KEEP then return end
  redis.call('PEXPIRE', record(id), ttl)
  given_life = ttl
  if request_id and request_id ~= id and is_number(seq) then
    for _, index in ipairs(request_indexes(request_id, owner)) do
      redis.call('ZADD', index, seq, id) -- a record may outlive the index that it was accepted with
      extend_ttl(index, ttl)
    end
  end
  if batch then batch_lives[batch] = batch_lives[batch] or ttl end
end

-- Count the crash of the current attempt, once, even if several processes report it, or one reports it again.
local function count_death(id)
  local record_key = record(id)
  local attempts, died_attempt, deaths = unpack(redis.call('HMGET', record_key, 'attempts', 'died_attempt', 'deaths'))
  if died_attempt == attempts then return tonumber(deaths) end
  redis.call('HSET', record_key, 'died_attempt', attempts)
  return redis.call('HINCRBY', record_key, 'deaths', 1)
end

-- Read the fields of a record that are needed to end its task; `status` is false if there is no record, or it is not whole.
local function read(id)
  local status, holder, attempts, queue, reply_to, sinks, request_id, seq, batch, created_at, priority, image_bytes, started_at,
    webhook, owner = unpack(redis.call('HMGET', record(id), 'status', 'holder', 'attempts', 'queue', 'reply_to', 'sinks',
      'request_id', 'seq', 'batch', 'created_at', 'priority', 'image_bytes', 'started_at', 'webhook', 'owner'))
  local is_whole = queue and reply_to and sinks and request_id
    and is_number(seq) and is_number(created_at) and is_number(priority) and is_number(image_bytes or 0) and is_number(started_at or 0)
  if not is_whole or (webhook and not string.match(webhook, '^%S+ %S+$')) then status = false end
  return {id = id, status = status, holder = holder, attempts = attempts, queue = queue, reply_to = reply_to, sinks = sinks,
    request_id = request_id, seq = seq, batch = batch, created_at = created_at, priority = priority, image_bytes = image_bytes or 0,
    started_at = started_at, webhook = webhook, owner = owner}
end

-- Outboxes by the field `sinks` of a record: outbox, delivery field, ...
local outboxes = {}

local function outboxes_of(sinks)
  local found = outboxes[sinks]
  if not found then
    found = {}
    for sink in string.gmatch(sinks, '[^,]+') do append(found, key('outbox', sink), 'delivery:' .. sink) end
    outboxes[sinks] = found
  end
  return found
end

local function refusing_sinks(record_key)
  local sinks, fields = {}, redis.call('HGETALL', record_key)
  for i = 1, #fields, 2 do
    local sink = string.match(fields[i], '^delivery:(.+)$')
    if sink and fields[i + 1] == 'refused' then sinks[#sinks + 1] = sink end
  end
  return sinks
end

-- Put the event of a task that ends into the outbox of its webhook's receiver; false if the webhook does not want this event. A
-- receiver that is down is not asked before its pause has ended.
local function send_to_webhook(task, status)
  local receiver, statuses = string.match(task.webhook, '^(%S+) (%S+)$')
  if not string.find(',' .. statuses .. ',', ',' .. status .. ',', 1, true) then return false end
  redis.call('ZADD', key('webhooks'), now, task.id)
  redis.call('ZADD', key('webhooks', receiver), now, task.id)
  if redis.call('HEXISTS', key('webhook-outages'), receiver) == 0 then
    redis.call('ZADD', key('webhook-receivers'), 'LT', now, receiver)
  end
  return true
end

-- Note when a receiver gets its next event: when that is due, but not before the end of its pause (ms since the epoch, or 0).
local function schedule_receiver(receiver, paused_until)
  local first = redis.call('ZRANGE', key('webhooks', receiver), 0, 0, 'WITHSCORES')
  if first[1] then
    redis.call('ZADD', key('webhook-receivers'), math.max(first[2], paused_until), receiver)
  else
    redis.call('ZREM', key('webhook-receivers'), receiver)
    redis.call('HDEL', key('webhook-outages'), receiver)
  end
end

-- End the delivery of an event; the record expires unless something else waits for it. Call `set_batch_lives` afterwards.
local function end_webhook(id, receiver, state, ttl)
  redis.call('ZREM', key('webhooks'), id)
  redis.call('ZREM', key('webhooks', receiver), id)
  local record_key = record(id)
  if redis.call('HGET', record_key, 'webhook_state') ~= 'pending' then return end
  redis.call('HSET', record_key, 'webhook_state', state)
  redis.call('HDEL', record_key, 'webhook_next_at')
  if redis.call('HINCRBY', record_key, 'undelivered', -1) == 0 and not redis.call('ZSCORE', key('dead-letters'), id) then
    let_expire(id, ttl, unpack(redis.call('HMGET', record_key, 'request_id', 'seq', 'batch', 'owner')))
  end
end

-- By channel, the parts of the message that is published there.
local replies = {}
local ended, ended_images, ended_image_bytes = {}, {}, 0

-- Move a task that `read` returned into a terminal state, in its record and outboxes. No other function does. Call `flush_effects`
-- after the last task.
local function finish(task, status, outcome, ttl)
  local id = task.id
  local fields = {'status', status, 'finished_at', now, 'outcome', outcome, 'holder', ''}
  local undelivered = 0
  if status == 'succeeded' then
    local found = outboxes_of(task.sinks)
    for i = 1, #found, 2 do
      redis.call('XADD', found[i], '*', 'task_id', id)
      append(fields, found[i + 1], 'pending')
    end
    undelivered = #found / 2
  end
  if task.webhook and send_to_webhook(task, status) then
    undelivered = undelivered + 1
    append(fields, 'webhook_state', 'pending')
  end
  append(fields, 'undelivered', undelivered)
  redis.call('HSET', record(id), unpack(fields))
  ended[#ended + 1] = id
  changed[#changed + 1] = id
  ended_images[#ended_images + 1] = image(id)
  ended_image_bytes = ended_image_bytes + task.image_bytes
  mark_not_waiting(id, task.status, task.queue, task.owner)
  count_open(task.owner, -1)
  if undelivered == 0 then
    let_expire(id, ttl, task.request_id, task.seq, task.batch, task.owner)
  elseif task.batch then
    batch_lives[task.batch] = KEEP -- its tasks may wait for their sink longer than the time to live
  end
  if task.reply_to ~= '' then
    local parts = replies[task.reply_to] or {}
    replies[task.reply_to] = parts
    append(parts, struct.pack('>I4I8', #id, now) .. id .. struct.pack('>I4', #outcome), outcome)
  end
end

-- Apply the effects of all ended tasks: waiting sets, batches, leases, deadlines, images; publish one message to each API process
-- that waits for results, and the changes.
local function flush_effects()
  stop_waiting('SREM')
  set_batch_lives()
  call_with_all(ended, 'ZREM', key('leases'))
  call_with_all(ended, 'ZREM', key('deadlines'))
  delete_images(ended_images, ended_image_bytes)
  for channel, parts in pairs(replies) do
    redis.call('PUBLISH', channel, table.concat(parts))
  end
  publish_changes()
end
