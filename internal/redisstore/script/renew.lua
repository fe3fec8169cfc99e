-- Renews a gateway's lease, unless the fleet has declared it dead (DELIVERY P1).
-- KEYS 1 lease
-- ARGV 1 'counter connections address'  2 TTL (ms)
-- Returns 1, or 'DEAD'.
if redis.call('GET', KEYS[1]) == 'dead' then return 'DEAD' end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
