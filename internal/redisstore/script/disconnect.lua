-- Disconnects a user: what was issued to them before now is no good any more. It is kept in the user's
-- hash and moves rooms_rev, so that an audit finds it where the event was missed (DELIVERY M4).
-- KEYS 1 the user's rooms  2 the user's channel
-- ARGV 1 PUBLISH or SPUBLISH  2 what stands before channels' names
-- Returns the time (ms) before which tokens and connections are no good. Running it again moves it on.
local time = redis.call('TIME')
local ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local before = string.format('%.0f', math.max(tonumber(redis.call('HGET', KEYS[1], 'disc') or '0') + 1, ms))
local rev = string.format('%.0f', math.max(tonumber(redis.call('HGET', KEYS[1], 'rev') or '0') + 1, ms))
redis.call('HSET', KEYS[1], 'disc', before, 'rev', rev)
redis.call(ARGV[1], ARGV[2] .. KEYS[2], '{"type":"disconnect","before_ms":' .. before .. ',"rooms_rev":' .. rev .. '}')
return before
