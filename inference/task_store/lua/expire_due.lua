-- End tasks whose deadline has passed.
--
-- Keys:
--   task:ID             hash        task record; ended as expired
--   waiting:QUEUE       sorted set  tasks that wait, urgent ones also in `urgent`; an ended task leaves both
--   urgent:QUEUE        sorted set  urgent waiting tasks, by priority
--   running:QUEUE       set         tasks that run; an ended task leaves it
--   shares:QUEUE        hash        by owner, number of waiting tasks; decreased
--   open-tasks          hash        by owner, number of tasks that have not ended; decreased
--   leases              sorted set  task ids by end of the lease, ms; an ended task leaves it
--   deadlines           sorted set  task ids by deadline, ms; an ended task leaves it
--   image:ID            string      inline image; deleted
--   inline-bytes        string      bytes of all inline images; decreased
--   outbox:SINK         stream      not written here, since an expired task has no result
--   webhooks            sorted set  tasks whose webhook waits for its event, by the time of their end, ms; added to
--   webhooks:RECEIVER   sorted set  those of a receiver, by the time of the next attempt, ms; added to
--   webhook-receivers   sorted set  receivers, by the time of their next event, ms; added to
--   webhook-outages     hash        receivers that are down; read
--   request:REQUEST_ID  sorted set  tasks of a request id; lives as long as the record
--   owner:OWNER:request:REQUEST_ID  sorted set  those of an owner; lives as long as the record
--   batch:BATCH_ID      string      items of a batch; lives as long as the last record of them
--   seq:lives           sorted set  the record's time to live is noted here
--
-- Arguments: outcome, ttl_ms, limit.
-- Answer: the ids.

local outcome, ttl, limit = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local due = redis.call('ZRANGEBYSCORE', key('deadlines'), '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(due) do
  local task = read(id)
  if task.status then
    finish(task, 'expired', outcome, ttl)
  else
    redis.call('ZREM', key('deadlines'), id)
    redis.call('PEXPIRE', record(id), ttl) -- of a record that is not whole: nothing else ends its task
  end
end
flush_effects()
-- No task is open, so no image is inline, and no owner has a task: those whose records Redis evicted were not subtracted.
if redis.call('ZCARD', key('deadlines')) == 0 then redis.call('DEL', key('inline-bytes'), key('open-tasks')) end
return due
