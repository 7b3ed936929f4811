-- Renew leases.
--
-- Keys:
--   task:ID  hash        task record; read
--   leases   sorted set  task ids by end of the lease, ms; renewed
--
-- Arguments: holder, lease_ms, id, ...
-- Answer: 1 for each task that the holder holds, else 0.

local holder, lease = ARGV[1], tonumber(ARGV[2])
local ours, renewed = {}, {}
for i = 3, #ARGV do
  local mine = redis.call('HGET', record(ARGV[i]), 'holder') == holder
  if mine then renewed[#renewed + 1] = ARGV[i] end
  ours[#ours + 1] = mine and 1 or 0
end
lease_all(renewed, lease)
return ours
