-- Count attempts that ended in a dead predictor process; such a task runs isolated from then on.
--
-- Keys:
--   task:ID  hash        task record; `deaths`, `died_attempt`, `alone`
--   leases   sorted set  task ids by end of the lease, ms; renewed
--
-- Arguments: holder, lease_ms, id, ...
-- Answer: for each task the number of its attempts that crashed, 0 if another holder has the task.

local holder, lease = ARGV[1], tonumber(ARGV[2])
local deaths = {}
for i = 3, #ARGV do
  local record_key = record(ARGV[i])
  local status, held_by = unpack(redis.call('HMGET', record_key, 'status', 'holder'))
  local count = 0
  if status == 'running' and held_by == holder then
    count = count_death(ARGV[i])
    redis.call('HSET', record_key, 'alone', '1')
    redis.call('ZADD', key('leases'), now + lease, ARGV[i])
  end
  deaths[#deaths + 1] = count
end
return deaths
