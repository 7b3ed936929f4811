-- Note that a sink will never take results: each becomes a dead letter; deliveries to its other sinks continue.
--
-- Keys:
--   task:ID       hash        task record; `delivery:SINK` and `refusal:SINK`
--   outbox:SINK   stream      the entries are acknowledged and deleted
--   dead-letters  sorted set  tasks that are dead letters, by time, ms; added to
--
-- Arguments: sink, group, then for each result entry id, task id, reason.

local sink, group = ARGV[1], ARGV[2]
local stream = key('outbox', sink)
for i = 3, #ARGV, 3 do
  local entry, id, reason = unpack(ARGV, i, i + 2)
  local record_key = record(id)
  redis.call('XACK', stream, group, entry)
  redis.call('XDEL', stream, entry)
  if redis.call('HGET', record_key, 'delivery:' .. sink) == 'pending' then
    redis.call('HSET', record_key, 'delivery:' .. sink, 'refused', 'refusal:' .. sink, reason)
    redis.call('ZADD', key('dead-letters'), now, id)
  end
end
return 1
