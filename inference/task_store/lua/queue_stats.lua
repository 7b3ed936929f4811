-- queue. Gives depth, age of the oldest in ms, ended in the last whole and the running ten seconds, ms that these are.
local waiting = k('waiting', ARGV[1])
local oldest = redis.call('ZRANGE', waiting, 0, 0)[1]
local created = oldest and redis.call('HGET', k('task', oldest), 'created_at')
local decade = math.floor(now / 10000)
local ended = 0
for _, bucket in ipairs({decade - 1, decade}) do
  ended = ended + tonumber(redis.call('GET', k('finished', ARGV[1], bucket)) or 0)
end
return {redis.call('ZCARD', waiting), created and now - created or 0, ended, now - (decade - 1) * 10000}
