-- tag, id, ... Gives the ids that have no record; none where the store has another tag: then they are another store's.
local unknown = {}
if redis.call('GET', k('seq', 'tag')) ~= ARGV[1] then return unknown end
for i = 2, #ARGV do
  if redis.call('EXISTS', record(ARGV[i])) == 0 then unknown[#unknown + 1] = ARGV[i] end
end
return unknown
