-- Give back leased tasks, which wait again.
--
-- Keys:
--   task:ID        hash        task record; `status`, `holder`, `requeued_at`
--   leases         sorted set  task ids by end of the lease; the tasks leave it
--   waiting:QUEUE  sorted set  tasks that wait; added to
--   urgent:QUEUE   sorted set  urgent waiting tasks; added to
--   running:QUEUE  set         tasks that run; the tasks leave it
--   shares:QUEUE   hash        by owner, number of waiting tasks; increased
--
-- Arguments: holder, id, ...

for i = 2, #ARGV do
  local id = ARGV[i]
  local status, holder, queue, seq, priority, owner =
    unpack(redis.call('HMGET', record(id), 'status', 'holder', 'queue', 'seq', 'priority', 'owner'))
  if holder == ARGV[1] and not TERMINAL[status] and queue and is_number(seq) and is_number(priority) then
    redis.call('HSET', record(id), 'requeued_at', now) -- the worker returns its message too
    drop_lease(id)
    wait_again(id, status, queue, seq, priority, owner)
  end
end
flush_counts()
publish_changes()
return 1
