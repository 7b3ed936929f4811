-- id, queue, deadline_ms, max_depth, request_id, index_ttl_ms, idempotency_key, fingerprint, idempotency_ttl_ms,
-- revision, list_key, payload, bell_key, then field, value, ... of the record
local id, queue, deadline, max_depth, request_id, index_ttl = unpack(ARGV, 1, 6)
local idempotency_key, fingerprint, idempotency_ttl, revision, list_key, payload, bell = unpack(ARGV, 7, 13)

if redis.call('EXISTS', k('task', id)) == 1 then
  return {'accepted', id} -- the client sent it again: its first answer got lost
end
if idempotency_key ~= '' then
  local known = redis.call('HMGET', k('idempotency', idempotency_key), 'task_id', 'fingerprint')
  if known[1] and redis.call('EXISTS', k('task', known[1])) == 1 then
    return {known[2] == fingerprint and 'replayed' or 'conflict', known[1]}
  end
end
if revision ~= '' and revision ~= (redis.call('HGET', k('desired'), 'revision') or '0') then
  return {'changed', id}
end
if tonumber(max_depth) > 0 and redis.call('ZCARD', k('waiting', queue)) >= tonumber(max_depth) then
  return {'overloaded', id}
end

local seq = redis.call('INCR', k('seq'))
redis.call('HSET', k('task', id), 'queue', queue, 'request_id', request_id, 'status', 'queued', 'seq', seq,
  'created_at', now, 'deadline_at', now + deadline, unpack(ARGV, 14))
redis.call('ZADD', k('waiting', queue), seq, id)
redis.call('ZADD', k('deadlines'), now + deadline, id)
redis.call('ZADD', k('request', request_id), seq, id)
if redis.call('PTTL', k('request', request_id)) < tonumber(index_ttl) then
  redis.call('PEXPIRE', k('request', request_id), index_ttl)
end
if idempotency_key ~= '' then
  redis.call('HSET', k('idempotency', idempotency_key), 'task_id', id, 'fingerprint', fingerprint)
  redis.call('PEXPIRE', k('idempotency', idempotency_key), idempotency_ttl)
end
if list_key ~= '' then
  redis.call('LPUSH', list_key, payload)
  if bell ~= '' and redis.call('LLEN', bell) == 0 then redis.call('LPUSH', bell, '') end
end
return {'accepted', id}
