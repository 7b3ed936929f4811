-- Return whether a task is a dead letter.
--
-- Keys:
--   dead-letters  sorted set  tasks that are dead letters, by time, ms; read
--
-- Arguments: id.
-- Answer: 1 or 0.

return redis.call('ZSCORE', key('dead-letters'), ARGV[1]) and 1 or 0
