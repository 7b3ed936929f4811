-- Cancel tasks.
--
-- Keys:
--   task:ID             hash        task record; ended as canceled
--   waiting:QUEUE       sorted set  tasks that wait, urgent ones also in `urgent`; an ended task leaves both
--   urgent:QUEUE        sorted set  urgent waiting tasks, by priority
--   running:QUEUE       set         tasks that run; an ended task leaves it
--   shares:QUEUE        hash        by owner, number of waiting tasks; decreased
--   open-tasks          hash        by owner, number of tasks that have not ended; decreased
--   leases              sorted set  task ids by end of the lease, ms; an ended task leaves it
--   deadlines           sorted set  task ids by deadline, ms; an ended task leaves it
--   image:ID            string      inline image; deleted
--   inline-bytes        string      bytes of all inline images; decreased
--   outbox:SINK         stream      not written here, since a canceled task has no result
--   webhooks            sorted set  tasks whose webhook waits for its event, by the time of their end, ms; added to
--   webhooks:RECEIVER   sorted set  those of a receiver, by the time of the next attempt, ms; added to
--   webhook-receivers   sorted set  receivers, by the time of their next event, ms; added to
--   webhook-outages     hash        receivers that are down; read
--   request:REQUEST_ID  sorted set  tasks of a request id; lives as long as the record
--   owner:OWNER:request:REQUEST_ID  sorted set  those of an owner; lives as long as the record
--   batch:BATCH_ID      string      items of a batch; lives as long as the last record of them
--   seq:lives           sorted set  the record's time to live is noted here
--
-- Arguments: outcome, ttl_ms, call, id, ...
-- `call` identifies a call: if it is repeated because its answer got lost, it gets the same answer.
-- Answer: unknown, finished or canceled for each id.

local outcome, ttl, call = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local states = {}
for i = 4, #ARGV do
  local task = read(ARGV[i])
  if not task.status then
    states[#states + 1] = 'unknown'
  elseif TERMINAL[task.status] then
    states[#states + 1] = redis.call('HGET', record(task.id), 'canceled_by') == call and 'canceled' or 'finished'
  else
    redis.call('HSET', record(task.id), 'canceled_by', call)
    finish(task, 'canceled', outcome, ttl)
    states[#states + 1] = 'canceled'
  end
end
flush_effects()
return states
