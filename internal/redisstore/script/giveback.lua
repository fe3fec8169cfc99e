-- Gives bytes back to what a user may upload, unless that time has passed.
-- KEYS 1 the user's uploads (string: bytes)
-- ARGV 1 bytes
-- Returns 1.
if redis.call('EXISTS', KEYS[1]) == 1 then
  if redis.call('DECRBY', KEYS[1], ARGV[1]) < 0 then redis.call('DEL', KEYS[1]) end
end
return 1
