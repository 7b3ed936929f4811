-- owner, lease_ms, 1 where those may start that come with their image, id, ...
local owner, lease, may_start = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local leases, leased = {now}, {}
for i = 4, #ARGV do
  local id = ARGV[i]
  local key = k('task', id)
  local status, holder, alone, attempts, created, deadline =
    unpack(redis.call('HMGET', key, 'status', 'owner', 'alone', 'attempts', 'created_at', 'deadline_at'))
  local state, image, attempt = 'leased', false, 0
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
    if may_start and image and not alone and status == 'queued' then attempt = start(id, owner) end
  end
  local number = attempt > 0 and attempt or attempts or 0
  leases[#leases + 1] = {state, alone or '', number, created or 0, deadline or 0, image or '', attempt > 0 and 1 or 0}
end
lease_all(leased, lease)
note_started()
return leases
