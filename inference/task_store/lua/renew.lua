-- Renew leases.
--
-- Keys:
--   task:ID  hash        task record; read
--   leases   sorted set  task ids by end of the lease, ms; renewed
--
-- Arguments: owner, lease_ms, id, ...
-- Answer: 1 for each task that the owner holds, else 0.

local owner, lease = ARGV[1], tonumber(ARGV[2])
local ours, renewed = {}, {}
for i = 3, #ARGV do
  local mine = redis.call('HGET', record(ARGV[i]), 'owner') == owner
  if mine then renewed[#renewed + 1] = ARGV[i] end
  ours[#ours + 1] = mine and 1 or 0
end
lease_all(renewed, lease)
return ours
