-- owner, lease_ms, id, ...
local owner, lease = ARGV[1], tonumber(ARGV[2])
local leases, leased = {now}, {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local key = k('task', id)
  local status, holder, alone, attempts, created, deadline =
    unpack(redis.call('HMGET', key, 'status', 'owner', 'alone', 'attempts', 'created_at', 'deadline_at'))
  local state, image = 'leased', false
  if not status then
    state = 'unknown'
  elseif TERMINAL[status] then
    state = 'finished'
  elseif holder and holder ~= owner and (is_leased(id) or status == 'running') then
    state = 'held' -- running without a lease: its owner died, and the reaper counts that first
  else
    redis.call('HSET', key, 'owner', owner)
    leased[#leased + 1] = id
    image = redis.call('GET', k('image', id))
  end
  leases[#leases + 1] = {state, alone or '', attempts or 0, created or 0, deadline or 0, image or ''}
end
lease_all(leased, lease)
return leases
