-- Declares a gateway dead, unless it gave a sign of life since it was looked at. In one step, so that a
-- gateway that wakes up either renews its lease or learns that it is too late.
-- KEYS 1 lease
-- ARGV 1 the counter that was seen, '0' for no lease  2 how long it is remembered (ms)
-- Returns 1 when the gateway is dead, 0 when it lives.
local is = redis.call('GET', KEYS[1])
if is and is ~= 'dead' and string.match(is, '^%d+') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], 'dead', 'PX', ARGV[2])
return 1
