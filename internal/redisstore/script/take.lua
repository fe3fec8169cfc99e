-- Takes seats: says that users are connected to a gateway, and puts the expiry of what says so off.
-- New seats and old ones are the same to it, so a refresh heals what Redis has lost.
-- KEYS 1 whom the gateway holds  2… the presence of each user (also its channel's name)
-- ARGV 1 gateway  2 PUBLISH or SPUBLISH  3 TTL of a presence (ms)  4 TTL of whom the gateway holds (ms)
--      5 what stands before channels' names  6… user and 'seq connections room…' for each
-- Announces those who had no seat anywhere. Returns how many seats are new, or 'DEAD' when the gateway
--      was declared dead; nothing was written then. Running it again changes nothing.
if redis.call('SISMEMBER', KEYS[1], '') == 1 then return 'DEAD' end
local taken = 0
for i = 2, #KEYS do
  if redis.call('HSET', KEYS[i], ARGV[1], ARGV[2 * i + 3]) == 1 then
    taken = taken + 1
    redis.call('SADD', KEYS[1], ARGV[2 * i + 2])
    if redis.call('HLEN', KEYS[i]) == 1 then redis.call(ARGV[2], ARGV[5] .. KEYS[i], '1') end
  end
  redis.call('PEXPIRE', KEYS[i], ARGV[3])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return taken
