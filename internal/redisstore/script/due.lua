-- Tells which attachments' bytes are to go.
-- KEYS 1 what is due
-- ARGV 1 most attachments
-- Returns them, longest due first.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[1])
