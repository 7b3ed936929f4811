-- owner, lease_ms, id, ... Gives the attempt's number, 0 where the task may not run.
local owner, lease = ARGV[1], tonumber(ARGV[2])
local attempts, started = {}, {}
local newest = {} -- by queue and priority, the highest acceptance number
for i = 3, #ARGV do
  local id = ARGV[i]
  local key = record(id)
  local status, holder, deadline, queue, seq, priority, earlier =
    unpack(redis.call('HMGET', key, 'status', 'owner', 'deadline_at', 'queue', 'seq', 'priority', 'attempts'))
  local attempt = 0
  if status and not TERMINAL[status] and holder == owner and tonumber(deadline) > now then
    attempt = (earlier or 0) + 1
    redis.call('HSET', key, 'status', 'running', 'started_at', now, 'attempts', attempt)
    waits_no_more(id, queue)
    started[#started + 1] = id
    newest[queue] = newest[queue] or {}
    newest[queue][priority] = math.max(newest[queue][priority] or 0, tonumber(seq))
  end
  attempts[#attempts + 1] = attempt
end
stop_waiting('SADD')
lease_all(started, lease)
for queue, by_priority in pairs(newest) do
  for priority, seq in pairs(by_priority) do
    local before = tonumber(redis.call('HGET', k('started', queue), priority) or 0)
    if seq > before then redis.call('HSET', k('started', queue), priority, seq) end
  end
end
return attempts
