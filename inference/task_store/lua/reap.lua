-- Take tasks from dead workers: queue them again, or, if they are out of attempts, lease them to the caller.
--
-- Keys:
--   leases         sorted set  task ids by end of the lease, ms; ended leases are removed
--   task:ID        hash        task record; `status`, `holder`, `deaths`, `losses`, `alone`, `requeued_at`
--   waiting:QUEUE  sorted set  tasks that wait; added to
--   urgent:QUEUE   sorted set  urgent waiting tasks; added to
--   running:QUEUE  set         tasks that run; a task that waits again leaves it
--   shares:QUEUE   hash        by owner, number of waiting tasks; increased
--
-- Arguments: holder, lease_ms, max_attempts, limit.
-- Answer: the ids to be queued again; the ids of tasks that are out of attempts, leased to `holder`.

local holder, lease, max_attempts, limit = unpack(ARGV)
local requeue, exhausted = {}, {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('leases'), '-inf', now, 'LIMIT', 0, limit)) do
  local record_key = record(id)
  local status, queue, seq, priority, deaths, losses, owner =
    unpack(redis.call('HMGET', record_key, 'status', 'queue', 'seq', 'priority', 'deaths', 'losses', 'owner'))
  local is_whole = queue and is_number(seq) and is_number(priority) and is_number(deaths or 0) and is_number(losses or 0)
  local dead_attempt = status == 'running'
  if not status or TERMINAL[status] or not is_whole then
    redis.call('ZREM', key('leases'), id)
  elseif dead_attempt and count_death(id) >= tonumber(max_attempts) then
    redis.call('HSET', record_key, 'holder', holder)
    redis.call('ZADD', key('leases'), now + lease, id)
    exhausted[#exhausted + 1] = id
  else
    -- A task that did not run when its process died need not be the cause: only the second time counts.
    if dead_attempt or redis.call('HINCRBY', record_key, 'losses', 1) >= 2 then
      redis.call('HSET', record_key, 'alone', '1')
    end
    redis.call('HSET', record_key, 'requeued_at', now)
    drop_lease(id)
    wait_again(id, status, queue, seq, priority, owner)
    requeue[#requeue + 1] = id
  end
end
flush_counts()
publish_changes()
return {requeue, exhausted}
