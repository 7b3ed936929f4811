-- The number of submissions, then those of each: how many arguments follow, and they are
-- subject, max_depth, result_ttl_ms, idempotency_key, fingerprint, idempotency_ttl_ms, revision, entries,
-- how many messages, how many arguments a task; list_key, payload, bell_key of each message;
-- id, queue, deadline_ms, request_id, image or '', then field, value, ... of each task's record
-- `revision` is that of the desired state that the tasks were checked with, or empty.
-- `subject` is task:ID, or batch:ID with `entries` for its record: what is accepted, and what the idempotency key stands for.
-- Gives for each what became of it, and the subject that it is about or the queue that is full.

local function write(at, width, ttl, seq)
  local id, queue, deadline, request_id, image = unpack(ARGV, at, at + 4)
  redis.call('HSET', k('task', id), 'queue', queue, 'request_id', request_id, 'status', 'queued', 'seq', seq,
    'created_at', now, 'deadline_at', now + deadline, unpack(ARGV, at + 5, at + width - 1))
  if image ~= '' then redis.call('SET', k('image', id), image, 'PX', deadline + ttl) end
  if request_id ~= id then -- else it is found by its id
    redis.call('ZADD', k('request', request_id), seq, id)
    live_at_least(k('request', request_id), deadline + ttl)
  end
  return deadline + ttl
end

local function accept(first, last)
  local subject, max_depth, ttl, idempotency_key, fingerprint, idempotency_ttl = unpack(ARGV, first, first + 5)
  local revision, entries, messages, width = unpack(ARGV, first + 6, first + 9)
  local first_message = first + 10
  local first_task = first_message + 3 * messages
  max_depth, ttl, width = tonumber(max_depth), tonumber(ttl), tonumber(width)

  if redis.call('EXISTS', k(subject)) == 1 then
    return {'accepted', subject} -- the client sent it again: its first answer got lost
  end
  if idempotency_key ~= '' then
    local known = redis.call('HMGET', k('idempotency', idempotency_key), 'subject', 'fingerprint')
    if known[1] and redis.call('EXISTS', k(known[1])) == 1 then
      return {known[2] == fingerprint and 'replayed' or 'conflict', known[1]}
    end
  end
  if revision ~= '' and revision ~= (redis.call('HGET', k('desired'), 'revision') or '0') then
    return {'changed', subject}
  end
  local tasks = (last - first_task + 1) / width
  local coming = {}
  for at = first_task, last, width do
    local queue = ARGV[at + 1]
    coming[queue] = (coming[queue] or 0) + 1
  end
  for queue, count in pairs(coming) do
    if max_depth > 0 and redis.call('ZCARD', k('waiting', queue)) + count > max_depth then
      return {'overloaded', queue}
    end
  end

  local longest = ttl
  local waiting, deadlines = {}, {} -- score, id, ...
  local seq = redis.call('INCRBY', k('seq'), tasks) - tasks
  for at = first_task, last, width do
    seq = seq + 1
    longest = math.max(longest, write(at, width, ttl, seq))
    local id, queue, deadline = unpack(ARGV, at, at + 2)
    waiting[queue] = waiting[queue] or {}
    append(waiting[queue], seq, id)
    append(deadlines, now + deadline, id)
  end
  for queue, members in pairs(waiting) do call_with_all(members, 'ZADD', k('waiting', queue)) end
  call_with_all(deadlines, 'ZADD', k('deadlines'))
  if entries ~= '' then
    redis.call('SET', k(subject), entries, 'PX', longest)
  end
  if idempotency_key ~= '' then
    redis.call('HSET', k('idempotency', idempotency_key), 'subject', subject, 'fingerprint', fingerprint)
    redis.call('PEXPIRE', k('idempotency', idempotency_key), idempotency_ttl)
  end
  for at = first_message, first_task - 1, 3 do
    local list_key, payload, bell = unpack(ARGV, at, at + 2)
    redis.call('LPUSH', list_key, payload)
    if bell ~= '' and redis.call('LLEN', bell) == 0 then redis.call('LPUSH', bell, '') end
  end
  return {'accepted', subject}
end

local answers = {}
local at = 2
for number = 1, tonumber(ARGV[1]) do
  local length = tonumber(ARGV[at])
  answers[number] = accept(at + 1, at + length)
  at = at + length + 1
end
return answers
