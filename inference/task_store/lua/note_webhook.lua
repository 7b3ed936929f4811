-- Note an attempt to deliver an event.
--
-- Keys:
--   task:ID             hash        task record; `webhook_state`, `webhook_log`, `webhook_next_at`; expires if nothing else waits
--   webhooks            sorted set  tasks whose webhook waits for its event; a task whose delivery ended leaves it
--   webhooks:RECEIVER   sorted set  those of a receiver, by the time of the next attempt, ms; updated
--   webhook-receivers   sorted set  receivers, by the time of their next event, ms; updated
--   webhook-outages     hash        receivers that are down: `FAILURES UNTIL_MS`; updated
--   dead-letters        sorted set  tasks that are dead letters; read
--   request:REQUEST_ID  sorted set  tasks of a request id; lives as long as the record
--   owner:OWNER:request:REQUEST_ID  sorted set  those of an owner; lives as long as the record
--   batch:BATCH_ID      string      items of a batch; lives as long as the last record of them
--   seq:lives           sorted set  the record's time to live is noted here
--
-- Arguments: id, receiver, state, log, ms until the next attempt, ttl_ms, whether the receiver is down (0 or 1), least, first and
-- longest pause of a receiver that is down, ms.
-- `state` is delivered, given_up or, for another attempt, pending.

local id, receiver, state, log = unpack(ARGV, 1, 4)
local delay, ttl = tonumber(ARGV[5]), tonumber(ARGV[6])
local is_down, least, first, longest = ARGV[7] == '1', tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])

-- Returns the end of the receiver's pause. Attempts that were made at the same time count as one failure.
local function note_outage()
  local outages = key('webhook-outages')
  if not is_down then
    redis.call('HDEL', outages, receiver)
    return 0
  end
  local failures, paused_until = string.match(redis.call('HGET', outages, receiver) or '0 0', '^(%d+) (%d+)$')
  failures, paused_until = tonumber(failures), tonumber(paused_until)
  if paused_until <= now then
    paused_until = now + math.max(least, math.min(longest, first * 2 ^ math.min(failures, 30)))
    redis.call('HSET', outages, receiver, string.format('%.0f %.0f', failures + 1, paused_until))
  end
  return paused_until
end

local paused_until = note_outage()
if redis.call('HGET', record(id), 'webhook_state') == 'pending' then
  redis.call('HSET', record(id), 'webhook_log', log)
else
  state = 'given_up' -- meanwhile, or Redis evicted the record
end
if state == 'pending' then
  local next_at = math.max(now + delay, paused_until)
  redis.call('ZADD', key('webhooks', receiver), 'XX', next_at, id)
  redis.call('HSET', record(id), 'webhook_next_at', string.format('%.0f', next_at))
else
  end_webhook(id, receiver, state, ttl)
  set_batch_lives()
end
schedule_receiver(receiver, paused_until)
return 1
