-- owner, lease_ms, id, ...
local owner, lease = ARGV[1], tonumber(ARGV[2])
local ours = {}
for i = 3, #ARGV do
  local mine = redis.call('HGET', k('task', ARGV[i]), 'owner') == owner
  if mine then redis.call('ZADD', k('leases'), now + lease, ARGV[i]) end
  ours[#ours + 1] = mine and 1 or 0
end
return ours
