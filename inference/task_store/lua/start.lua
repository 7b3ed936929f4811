-- owner, lease_ms, id, ... Gives the attempt's number, 0 where the task may not run.
local owner, lease = ARGV[1], tonumber(ARGV[2])
local attempts = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local key = k('task', id)
  local status, holder, deadline, queue, seq, priority =
    unpack(redis.call('HMGET', key, 'status', 'owner', 'deadline_at', 'queue', 'seq', 'priority'))
  local attempt = 0
  if status and not TERMINAL[status] and holder == owner and tonumber(deadline) > now then
    attempt = redis.call('HINCRBY', key, 'attempts', 1)
    redis.call('HSET', key, 'status', 'running', 'started_at', now)
    redis.call('ZADD', k('leases'), now + lease, id)
    redis.call('ZREM', k('waiting', queue), id)
    local started = tonumber(redis.call('HGET', k('started', queue), priority) or 0)
    if tonumber(seq) > started then redis.call('HSET', k('started', queue), priority, seq) end
  end
  attempts[#attempts + 1] = attempt
end
return attempts
