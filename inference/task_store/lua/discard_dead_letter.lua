-- Give up a dead letter, and the delivery to each sink that refused it. The record is kept until all other sinks have the result.
--
-- Keys:
--   task:ID             hash        task record; `delivery:SINK`; expires
--   dead-letters        sorted set  the task leaves it
--   request:REQUEST_ID  sorted set  tasks of a request id; lives as long as the record
--   owner:OWNER:request:REQUEST_ID  sorted set  those of an owner; lives as long as the record
--   batch:BATCH_ID      string      items of a batch; lives as long as the last record of them
--   seq:lives           sorted set  the record's time to live is noted here
--
-- Arguments: id, ttl_ms.
-- Answer: 1, or 0 if the task is not a dead letter.

local id, ttl = ARGV[1], tonumber(ARGV[2])
local record_key = record(id)
if redis.call('ZREM', key('dead-letters'), id) == 0 then return 0 end
local undelivered = tonumber(redis.call('HGET', record_key, 'undelivered') or 0)
for _, sink in ipairs(refusing_sinks(record_key)) do
  redis.call('HSET', record_key, 'delivery:' .. sink, 'discarded')
  undelivered = redis.call('HINCRBY', record_key, 'undelivered', -1)
end
if undelivered == 0 then
  let_expire(id, ttl, unpack(redis.call('HMGET', record_key, 'request_id', 'seq', 'batch', 'owner')))
  set_batch_lives()
end
return 1
