// Package doctor says whether a host and a Redis are fit for madang, what is
// wrong with them, and the exact command that puts it right.
//
// Reading and judging are apart: ReadHost and redisstore.Inspect collect facts,
// the judge functions look at facts only, so that every finding has a test that
// needs neither root nor a broken machine. The package changes nothing on the
// host and writes nothing to Redis. cmd/madang calls it.
package doctor
