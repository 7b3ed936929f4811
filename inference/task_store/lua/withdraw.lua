-- id
local id = ARGV[1]
local queue, status, request_id = unpack(redis.call('HMGET', k('task', id), 'queue', 'status', 'request_id'))
if status ~= 'queued' then return 0 end
redis.call('ZREM', k('waiting', queue), id)
redis.call('ZREM', k('deadlines'), id)
redis.call('ZREM', k('request', request_id), id)
redis.call('DEL', k('task', id))
return 1
