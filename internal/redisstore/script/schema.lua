-- Says what the deployment was made with, and writes it when nothing was.
-- KEYS 1 schema
-- ARGV 1 version  2 partitions
-- Returns {version, partitions} as they are stored.
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'version', ARGV[1], 'partitions', ARGV[2])
end
return redis.call('HMGET', KEYS[1], 'version', 'partitions')
