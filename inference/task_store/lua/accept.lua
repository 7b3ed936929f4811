-- The number of submissions, then those of each: how many arguments follow, and they are
-- subject, max_depth, result_ttl_ms, idempotency_key, fingerprint, idempotency_ttl_ms, entries;
-- how many messages, and list_key, payload, bell_key of each;
-- groups of tasks that have much in common: queue, deadline_ms, priority, room and window, how many arguments `field, value, ...`
-- of their records take, these, how many tasks, and id, request_id, item, image or '' of each.
-- `room`: how many tasks there may be of those that run, those that go before, and these, so that they end in time; '' for any
-- number. A task with a priority passes those of lower ones, except that many as `window` says, which workers hold already.
-- `subject` is task:ID, or batch:ID with `entries` for its record: what is accepted, and what the idempotency key stands for.
-- Gives for each what became of it, and the subject that it is about or the queue that is full, or too slow.

local function read_groups(first, last)
  local groups, at = {}, first
  while at <= last do
    local queue, deadline, priority, room, window, width = unpack(ARGV, at, at + 5)
    local first_task = at + 7 + width
    local count = tonumber(ARGV[first_task - 1])
    groups[#groups + 1] = {queue = queue, deadline = tonumber(deadline), priority = tonumber(priority), room = tonumber(room),
      window = tonumber(window), count = count, fields = {unpack(ARGV, at + 6, first_task - 2)}, first_task = first_task}
    at = first_task + 4 * count
  end
  return groups
end

-- Gives what keeps `coming` tasks out, those of `group` among them; nil for nothing. Where no task is open they always go in.
local function refusal(group, coming, max_depth)
  local waiting = redis.call('ZCARD', k('waiting', group.queue))
  if max_depth > 0 and waiting + coming > max_depth then return 'overloaded' end
  if not group.room then return nil end
  if group.priority > 0 then
    waiting = math.min(waiting, group.window + redis.call('ZCOUNT', k('urgent', group.queue), group.priority, '+inf'))
  end
  local ahead = waiting + redis.call('SCARD', k('running', group.queue))
  return ahead > 0 and ahead + coming > group.room and 'late' or nil
end

-- Gives the acceptance number of the last.
local function write(group, seq, ttl)
  local life = group.deadline + ttl
  local waiting, deadlines, urgent = {}, {}, {} -- score, id, ...
  for at = group.first_task, group.first_task + 4 * (group.count - 1), 4 do
    local id, request_id, item, bytes = unpack(ARGV, at, at + 3)
    seq = seq + 1
    redis.call('HSET', record(id), 'item', item, 'request_id', request_id, 'status', 'queued', 'seq', seq,
      'queue', group.queue, 'created_at', now, 'deadline_at', now + group.deadline, unpack(group.fields))
    if bytes ~= '' then redis.call('SET', image(id), bytes, 'PX', life) end
    if request_id ~= id then -- else it is found by its id
      redis.call('ZADD', k('request', request_id), seq, id)
      live_at_least(k('request', request_id), life)
      forget_some_gone(k('request', request_id))
    end
    append(waiting, seq, id)
    append(deadlines, now + group.deadline, id)
    if group.priority > 0 then append(urgent, group.priority, id) end
  end
  call_with_all(waiting, 'ZADD', k('waiting', group.queue))
  call_with_all(deadlines, 'ZADD', k('deadlines'))
  call_with_all(urgent, 'ZADD', k('urgent', group.queue))
  return seq
end

local function accept(first, last)
  local subject, max_depth, ttl, idempotency_key, fingerprint, idempotency_ttl = unpack(ARGV, first, first + 5)
  local entries, messages = unpack(ARGV, first + 6, first + 7)
  local first_message = first + 8
  local first_group = first_message + 3 * messages
  max_depth, ttl = tonumber(max_depth), tonumber(ttl)

  if redis.call('EXISTS', k(subject)) == 1 then
    return {'accepted', subject} -- the client sent it again: its first answer got lost
  end
  if idempotency_key ~= '' then
    local known = redis.call('HMGET', k('idempotency', idempotency_key), 'subject', 'fingerprint')
    if known[1] and redis.call('EXISTS', k(known[1])) == 1 then
      return {known[2] == fingerprint and 'replayed' or 'conflict', known[1]}
    end
  end
  local groups = read_groups(first_group, last)
  local coming, tasks, longest = {}, 0, 0
  for _, group in ipairs(groups) do
    coming[group.queue] = (coming[group.queue] or 0) + group.count
    tasks = tasks + group.count
    longest = math.max(longest, group.deadline)
  end
  for _, group in ipairs(groups) do
    local reason = refusal(group, coming[group.queue], max_depth)
    if reason then return {reason, group.queue} end
  end

  local seq = redis.call('INCRBY', k('seq'), tasks) - tasks
  for _, group in ipairs(groups) do seq = write(group, seq, ttl) end
  if entries ~= '' then
    redis.call('SET', k(subject), entries, 'PX', longest + ttl)
  end
  if idempotency_key ~= '' then
    redis.call('HSET', k('idempotency', idempotency_key), 'subject', subject, 'fingerprint', fingerprint)
    redis.call('PEXPIRE', k('idempotency', idempotency_key), idempotency_ttl)
  end
  for at = first_message, first_group - 1, 3 do
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
