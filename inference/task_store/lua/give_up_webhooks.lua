-- Give up events that could not be delivered in time.
--
-- Keys:
--   task:ID             hash        task record; `webhook_state`; expires if nothing else waits
--   webhooks            sorted set  tasks whose webhook waits for its event, by the time of their end, ms; old ones leave it
--   webhooks:RECEIVER   sorted set  those of a receiver; old ones leave it
--   webhook-receivers   sorted set  receivers, by the time of their next event, ms; updated
--   webhook-outages     hash        receivers that are down: `FAILURES UNTIL_MS`; updated
--   dead-letters        sorted set  tasks that are dead letters; read
--   request:REQUEST_ID  sorted set  tasks of a request id; lives as long as the record
--   owner:OWNER:request:REQUEST_ID  sorted set  those of an owner; lives as long as the record
--   batch:BATCH_ID      string      items of a batch; lives as long as the last record of them
--   seq:lives           sorted set  the record's time to live is noted here
--
-- Arguments: age_ms, ttl_ms, limit.
-- Answer: the ids.

local age, ttl, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local old = redis.call('ZRANGEBYSCORE', key('webhooks'), '-inf', now - age, 'LIMIT', 0, limit)
for _, id in ipairs(old) do
  local receiver = string.match(redis.call('HGET', record(id), 'webhook') or '', '^%S+')
  if receiver then
    local paused_until = string.match(redis.call('HGET', key('webhook-outages'), receiver) or '0 0', '%d+$')
    end_webhook(id, receiver, 'given_up', ttl)
    schedule_receiver(receiver, tonumber(paused_until))
  else
    redis.call('ZREM', key('webhooks'), id) -- Redis evicted the record
  end
end
set_batch_lives()
return old
