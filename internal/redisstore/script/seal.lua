-- Ends a dead gateway in a partition: from here on it can take no seat (take.lua looks).
-- KEYS 1 whom the gateway holds
-- ARGV 1 how long that is remembered (ms)
-- Returns whom it holds, '' among them.
redis.call('SADD', KEYS[1], '')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return redis.call('SMEMBERS', KEYS[1])
