-- Lease due events of webhooks to the caller: a bounded number for each receiver, one for a receiver that is down.
--
-- Keys:
--   task:ID            hash        task record; read
--   webhooks           sorted set  tasks whose webhook waits for its event; a task whose record Redis evicted leaves it
--   webhook-receivers  sorted set  receivers, by the time of their next event, ms; updated
--   webhooks:RECEIVER  sorted set  tasks, by the time of the next attempt, ms; that of a leased task is the end of its lease
--   webhook-outages    hash        receivers that are down: `FAILURES UNTIL_MS`; read
--
-- Arguments: lease_ms, limit, limit for each receiver, then for each receiver that the caller asks now: receiver, number of events.
-- Answer: the ids.

-- Receivers that are examined in a call; the caller asks fewer at a time.
local EXAMINED = 1000

local lease, free, per_receiver = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local busy, ids = {}, {}
for i = 4, #ARGV, 2 do busy[ARGV[i]] = tonumber(ARGV[i + 1]) end
for _, receiver in ipairs(redis.call('ZRANGEBYSCORE', key('webhook-receivers'), '-inf', now, 'LIMIT', 0, EXAMINED)) do
  local limit = redis.call('HEXISTS', key('webhook-outages'), receiver) == 1 and 1 or per_receiver
  local room = math.min(limit - (busy[receiver] or 0), free)
  if room > 0 then
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('webhooks', receiver), '-inf', now, 'LIMIT', 0, room)) do
      if redis.call('EXISTS', record(id)) == 1 then
        redis.call('ZADD', key('webhooks', receiver), now + lease, id)
        ids[#ids + 1] = id
        free = free - 1
      else
        redis.call('ZREM', key('webhooks', receiver), id)
        redis.call('ZREM', key('webhooks'), id)
      end
    end
    schedule_receiver(receiver, 0)
  end
  if free == 0 then break end
end
return ids
