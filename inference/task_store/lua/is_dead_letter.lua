-- id
return redis.call('ZSCORE', k('dead-letters'), ARGV[1]) and 1 or 0
