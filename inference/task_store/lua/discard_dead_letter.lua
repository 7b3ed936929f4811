-- id, ttl_ms. What sinks refused is given up; a record that another sink has still to get stays until it has it.
local id, ttl = ARGV[1], tonumber(ARGV[2])
local key = record(id)
if redis.call('ZREM', k('dead-letters'), id) == 0 then return 0 end
local undelivered = tonumber(redis.call('HGET', key, 'undelivered') or 0)
for _, sink in ipairs(refusing_sinks(key)) do
  redis.call('HSET', key, 'delivery:' .. sink, 'discarded')
  undelivered = redis.call('HINCRBY', key, 'undelivered', -1)
end
if undelivered == 0 then
  let_expire(id, ttl, unpack(redis.call('HMGET', key, 'request_id', 'seq', 'batch')))
  settle_batches()
end
return 1
