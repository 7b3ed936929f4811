-- Note that a sink has confirmed results.
--
-- Keys:
--   task:ID             hash        task record; `delivery:SINK`; expires when every sink has the result
--   outbox:SINK         stream      the entries are acknowledged and deleted
--   request:REQUEST_ID  sorted set  tasks of a request id; lives as long as the record
--   owner:OWNER:request:REQUEST_ID  sorted set  those of an owner; lives as long as the record
--   batch:BATCH_ID      string      items of a batch; lives as long as the last record of them
--   seq:lives           sorted set  the record's time to live is noted here
--
-- Arguments: sink, group, ttl_ms, then for each result entry id, task id.

local sink, group, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
local stream, delivery = key('outbox', sink), 'delivery:' .. sink
local entries = {}
for i = 4, #ARGV, 2 do entries[#entries + 1] = ARGV[i] end
-- Free memory first: a full Redis lets a script continue only if its first write takes no memory, and delivered entries must leave.
call_with_all(entries, 'XACK', stream, group)
call_with_all(entries, 'XDEL', stream)
for i = 5, #ARGV, 2 do
  local id = ARGV[i]
  local state, undelivered, request_id, seq, batch, owner =
    unpack(redis.call('HMGET', record(id), delivery, 'undelivered', 'request_id', 'seq', 'batch', 'owner'))
  if state == 'pending' and is_number(undelivered) then
    redis.call('HSET', record(id), delivery, 'delivered', 'undelivered', undelivered - 1)
    if tonumber(undelivered) == 1 then let_expire(id, ttl, request_id, seq, batch, owner) end
  end
end
set_batch_lives()
return 1
