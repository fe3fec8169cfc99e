-- Moves a user's marker of a room, never back.
-- KEYS 1 the user's rooms  2 the user's channel
-- ARGV 1 'm:' or 'd:' and the room  2 ID  3 its ordinal
--      4 PUBLISH or SPUBLISH, '' when nobody is told  5 the event for the user's own connections
--      6 what stands before channels' names
-- Returns 1 when the marker moved, 0 when it is there or further.
local is = redis.call('HGET', KEYS[1], ARGV[1])
if is then
  -- By the IDs: ordinals begin again at what a failover has lost.
  local ms, seq = string.match(is, '^(%d+)-(%d+)')
  local toms, toseq = string.match(ARGV[2], '^(%d+)-(%d+)$')
  ms, seq, toms, toseq = tonumber(ms), tonumber(seq), tonumber(toms), tonumber(toseq)
  if toms < ms or (toms == ms and toseq <= seq) then return 0 end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
if ARGV[4] ~= '' then redis.call(ARGV[4], ARGV[6] .. KEYS[2], ARGV[5]) end
return 1
