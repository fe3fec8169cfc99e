-- Tells who was disconnected since a time, oldest first.
-- KEYS 1 the list of disconnections
-- ARGV 1 the time (ms), inclusive  2 most users
-- Returns user, time, user, time, … . A script because RESP3 nests what RESP2 does not.
return redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
