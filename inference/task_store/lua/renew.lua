-- owner, lease_ms, id, ...
local owner, lease = ARGV[1], tonumber(ARGV[2])
local ours, renewed = {}, {}
for i = 3, #ARGV do
  local mine = redis.call('HGET', record(ARGV[i]), 'owner') == owner
  if mine then renewed[#renewed + 1] = ARGV[i] end
  ours[#ours + 1] = mine and 1 or 0
end
lease_all(renewed, lease)
return ours
