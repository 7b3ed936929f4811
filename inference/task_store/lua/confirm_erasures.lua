-- Note that a sink has erased results, or cannot.
--
-- Keys:
--   outbox:SINK         stream  the orders are acknowledged and deleted
--   erasure:ERASURE_ID  hash    progress of an erasure; updated
--
-- Arguments: sink, group, then for each order entry id, erasure id, whether the sink cannot erase the result (0 or 1).

local sink, group = ARGV[1], ARGV[2]
local stream = key('outbox', sink)
for i = 3, #ARGV, 3 do
  local entry, erasure_id, cannot = unpack(ARGV, i, i + 2)
  local progress = key('erasure', erasure_id)
  redis.call('XACK', stream, group, entry)
  if redis.call('XDEL', stream, entry) == 1 and redis.call('EXISTS', progress) == 1 then
    redis.call('HINCRBY', progress, 'pending:' .. sink, -1)
    if cannot == '1' then redis.call('HINCRBY', progress, 'cannot:' .. sink, 1) end
  end
end
return 1
