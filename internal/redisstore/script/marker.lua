-- Moves a user's marker of a room, never back.
-- KEYS 1 the user's rooms  2 the user's channel  3 memory of the removal
-- ARGV 1 'm:' or 'd:'  2 ID  3 its ordinal
--      4 PUBLISH or SPUBLISH, '' when nobody is told  5 the event for the user's own connections
--      6 what stands before channels' names  7 room
-- Returns 1 when the marker moved, 0 when it is there or further, or the user has left.
local field = ARGV[1] .. ARGV[7]
local user = redis.call('HMGET', KEYS[1], field, 'r:' .. ARGV[7])
local is = user[1]
-- It may have been on its way when the user left, and would never go. Of who was just added the
-- index may not say so yet.
if not user[2] and redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
if is then
  -- By the IDs: ordinals begin again at what a failover has lost.
  local ms, seq = string.match(is, '^(%d+)-(%d+)')
  local toms, toseq = string.match(ARGV[2], '^(%d+)-(%d+)$')
  ms, seq, toms, toseq = tonumber(ms), tonumber(seq), tonumber(toms), tonumber(toseq)
  if toms < ms or (toms == ms and toseq <= seq) then return 0 end
end
redis.call('HSET', KEYS[1], field, ARGV[2] .. ' ' .. ARGV[3])
if ARGV[4] ~= '' then redis.call(ARGV[4], ARGV[6] .. KEYS[2], ARGV[5]) end
return 1
