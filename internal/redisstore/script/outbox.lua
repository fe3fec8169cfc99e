-- Reads what has waited in a partition's outbox for a while: its writer is gone.
-- KEYS 1 outbox
-- ARGV 1 least age (ms)  2 count  3 where to begin, as XRANGE has it
-- Returns entries as Redis gives them: those that are older, then those whose age their IDs do not tell.
local time = redis.call('TIME')
local ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local entries = redis.call('XRANGE', KEYS[1], ARGV[3], string.format('%.0f', ms - tonumber(ARGV[1])), 'COUNT', ARGV[2])
local left = tonumber(ARGV[2]) - #entries
if left == 0 then return entries end
-- The clock may have been set back, or be another primary's: a stream's IDs go on from the last one, and
-- are in the future until the clock has caught up. How old such entries are nobody knows.
local first = tonumber(string.match(ARGV[3], '%d+') or '0')
local later = first > ms and ARGV[3] or string.format('%.0f', ms + 1)
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], later, '+', 'COUNT', left)) do
  entries[#entries + 1] = entry
end
return entries
