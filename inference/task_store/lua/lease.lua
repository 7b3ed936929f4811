-- Lease tasks to a worker, and give it their inline images.
--
-- Keys:
--   task:ID   hash        task record; `holder` is set
--   leases    sorted set  task ids by end of the lease, ms; added to
--   image:ID  string      inline image; read
--
-- Arguments: holder, lease_ms, id, ...
-- Answer: the time, ms; then for each task its state (leased, held, finished or unknown), isolated ('1' or ''), attempts,
-- created_at, deadline_at, image, owner or '', request id if it is not the task's id, batch id or '', trace or ''.

local holder, lease = ARGV[1], tonumber(ARGV[2])
local leases, leased = {now}, {}
local carriers, images = {}, {} -- the answers of leased tasks, and the keys of the images that go into them
for i = 3, #ARGV do
  local id = ARGV[i]
  local record_key = record(id)
  local status, held_by, isolated, attempts, created, deadline, owner, request, batch, trace = unpack(redis.call('HMGET',
    record_key, 'status', 'holder', 'alone', 'attempts', 'created_at', 'deadline_at', 'owner', 'request_id', 'batch', 'trace'))
  local state = 'leased'
  if not status or not (is_number(created) and is_number(deadline) and is_number(attempts or 0)) then
    state = 'unknown'
  elseif TERMINAL[status] then
    state = 'finished'
  elseif held_by and held_by ~= holder and (is_leased(id) or status == 'running') then
    state = 'held' -- it may run without a lease: its holder died, and reap.lua must count that first
  else
    redis.call('HSET', record_key, 'holder', holder)
    leased[#leased + 1] = id
  end
  local found = {state, isolated or '', 0, 0, 0, '', '', '', '', ''}
  if state ~= 'unknown' then
    if request == id then request = '' end
    found = {state, isolated or '', attempts or 0, created, deadline, '', owner or '', request or '', batch or '', trace or ''}
  end
  leases[#leases + 1] = found
  if state == 'leased' then
    carriers[#carriers + 1] = found
    images[#images + 1] = image(id)
  end
end
lease_all(leased, lease)
for start = 1, #images, 1000 do
  for offset, bytes in ipairs(redis.call('MGET', unpack(images, start, math.min(start + 999, #images)))) do
    carriers[start + offset - 1][6] = bytes or ''
  end
end
return leases
