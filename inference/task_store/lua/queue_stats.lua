-- queue, id, ... Gives depth, age of the oldest in ms, how many ended within how many ms while others waited,
-- and for each id how many wait before it, -1 where it does not wait.
local waiting = k('waiting', ARGV[1])
local oldest = redis.call('ZRANGE', waiting, 0, 0)[1]
local created = oldest and redis.call('HGET', record(oldest), 'created_at')
local age = created and now - created or 0
-- Only what ends while others wait says how much can be done; else it says how much came. The running second counts in part.
local second = math.floor(now / 1000)
local whole_seconds = math.min(10, math.floor(age / 1000))
local ended, window = 0, 0
if whole_seconds > 0 then
  for at = second - whole_seconds, second do
    ended = ended + tonumber(redis.call('GET', k('finished', ARGV[1], at)) or 0)
  end
  window = now - (second - whole_seconds) * 1000
end
local places = {}
for i = 2, #ARGV do places[i - 1] = redis.call('ZRANK', waiting, ARGV[i]) or -1 end
return {redis.call('ZCARD', waiting), age, ended, window, places}
