-- Publishes a receipt to a room, if the room is small enough for receipts.
-- KEYS 1 room (the channel's name)  2 members
-- ARGV 1 most members  2 PUBLISH or SPUBLISH  3 the event  4 what stands before channels' names
-- Returns 1, or 0 when the room has too many members.
if redis.call('HLEN', KEYS[2]) > tonumber(ARGV[1]) then return 0 end
redis.call(ARGV[2], ARGV[4] .. KEYS[1], ARGV[3])
return 1
