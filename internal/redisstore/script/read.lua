-- Moves a user's read marker of a room, never back, and tells the user's other connections.
-- KEYS 1 the user's rooms  2 the user's channel
-- ARGV 1 room  2 ID  3 its ordinal  4 PUBLISH or SPUBLISH  5 the `read` event
--      6 what stands before channels' names
-- Returns 1 when the marker moved, 0 when it is there or further.
local field = 'm:' .. ARGV[1]
local is = redis.call('HGET', KEYS[1], field)
if is then
  -- By the IDs: ordinals begin again at what a failover has lost.
  local ms, seq = string.match(is, '^(%d+)-(%d+)')
  local toms, toseq = string.match(ARGV[2], '^(%d+)-(%d+)$')
  ms, seq, toms, toseq = tonumber(ms), tonumber(seq), tonumber(toms), tonumber(toseq)
  if toms < ms or (toms == ms and toseq <= seq) then return 0 end
end
redis.call('HSET', KEYS[1], field, ARGV[2] .. ' ' .. ARGV[3])
redis.call(ARGV[4], ARGV[6] .. KEYS[2], ARGV[5])
return 1
