-- Start an attempt of each task.
--
-- Keys:
--   task:ID        hash        task record; `status`, `started_at`, `attempts`
--   waiting:QUEUE  sorted set  tasks that wait; a started task leaves it
--   urgent:QUEUE   sorted set  urgent waiting tasks; a started task leaves it
--   running:QUEUE  set         tasks that run; added to
--   leases         sorted set  task ids by end of the lease, ms; renewed
--   started:QUEUE  hash        by priority and owner, the highest acceptance number that has started; expires
--   shares:QUEUE   hash        by owner, number of waiting tasks; decreased
--
-- Arguments: holder, lease_ms, id, ...
-- Answer: for each task the number of its attempt, 0 if it may not run.

local holder, lease = ARGV[1], tonumber(ARGV[2])
local STARTED_LIFE_MS = 86400000 -- no task waits for longer than its deadline, a day at most
local attempts, started = {}, {}
local newest = {} -- by queue, by priority and owner, the highest acceptance number
for i = 3, #ARGV do
  local id = ARGV[i]
  local record_key = record(id)
  local status, held_by, deadline, queue, seq, priority, earlier, owner =
    unpack(redis.call('HMGET', record_key, 'status', 'holder', 'deadline_at', 'queue', 'seq', 'priority', 'attempts', 'owner'))
  local attempt = 0
  local is_whole = status and queue and is_number(deadline) and is_number(seq) and is_number(priority) and is_number(earlier or 0)
  if is_whole and not TERMINAL[status] and held_by == holder and tonumber(deadline) > now then
    attempt = (earlier or 0) + 1
    redis.call('HSET', record_key, 'status', 'running', 'started_at', now, 'attempts', attempt)
    mark_not_waiting(id, status, queue, owner)
    started[#started + 1] = id
    changed[#changed + 1] = id
    local class = owner and priority .. ' ' .. owner or priority
    newest[queue] = newest[queue] or {}
    newest[queue][class] = math.max(newest[queue][class] or 0, tonumber(seq))
  end
  attempts[#attempts + 1] = attempt
end
stop_waiting('SADD')
lease_all(started, lease)
for queue, by_class in pairs(newest) do
  for class, seq in pairs(by_class) do
    local before = tonumber(redis.call('HGET', key('started', queue), class) or 0)
    if seq > before then redis.call('HSET', key('started', queue), class, seq) end
  end
  redis.call('PEXPIRE', key('started', queue), STARTED_LIFE_MS)
end
publish_changes()
return attempts
