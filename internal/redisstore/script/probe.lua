-- Changes nothing, and is refused where nobody could write: by a server that is full, can't save,
-- lacks replicas, or is no primary.
-- KEYS 1 what could be written
-- Returns 1.
local is = redis.call('GET', KEYS[1])
if is then redis.call('SET', KEYS[1], is, 'KEEPTTL') else redis.call('SET', KEYS[1], '', 'PX', 1) end
return 1
