-- Reads what has waited in a partition's outbox for a while: its writer is gone.
-- KEYS 1 outbox
-- ARGV 1 least age (ms)  2 count  3 where to begin, as XRANGE has it
-- Returns entries as Redis gives them.
local time = redis.call('TIME')
local ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
return redis.call('XRANGE', KEYS[1], ARGV[3], string.format('%.0f', ms - tonumber(ARGV[1])), 'COUNT', ARGV[2])
