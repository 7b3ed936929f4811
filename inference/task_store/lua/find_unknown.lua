-- Find ids that have no record.
--
-- Keys:
--   seq:tag  string  name of this store; read
--   task:ID  hash    task record; read
--
-- Arguments: tag, id, ...
-- Answer: the ids; none if this store has another tag, since the ids are another store's then.

local unknown = {}
if redis.call('GET', key('seq', 'tag')) ~= ARGV[1] then return unknown end
for i = 2, #ARGV do
  if redis.call('EXISTS', record(ARGV[i])) == 0 then unknown[#unknown + 1] = ARGV[i] end
end
return unknown
