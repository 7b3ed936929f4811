-- batch_id or '', id, ... All or nothing: gives 1 where they are forgotten, 0 where one is queued no more.
for i = 2, #ARGV do
  if redis.call('HGET', record(ARGV[i]), 'status') ~= 'queued' then return 0 end
end
for i = 2, #ARGV do
  local id = ARGV[i]
  local queue, request_id = unpack(redis.call('HMGET', record(id), 'queue', 'request_id'))
  redis.call('ZREM', k('waiting', queue), id)
  redis.call('ZREM', k('urgent', queue), id)
  redis.call('ZREM', k('deadlines'), id)
  redis.call('ZREM', k('request', request_id), id)
  redis.call('DEL', record(id), image(id))
end
if ARGV[1] ~= '' then redis.call('DEL', k('batch', ARGV[1])) end
return 1
