-- Push a message to the broker.
--
-- Keys: none with PREFIX. The message and a token are pushed to the lists that the arguments name, and the owner gets a turn.
--
-- Arguments: list_key, payload, wake_up_key, turns_key or '', owner, cost in items.

push(unpack(ARGV))
