// Package redisstore keeps rooms, members and messages in Redis and carries
// their events: it implements chat.Store for the senders' side and chat.Feed for
// gateways, over a standalone server, Sentinel or a Cluster with one code path.
// It is the only package that knows Redis: every key is built in keys.go, and
// every write that must be whole is a script in script/, each with its contract.
//
// How a command travels: a call names its partition; the partition's primary, as
// the client knows it at that moment, has lanes (lane.go) in which calls that
// arrive together share a pipeline; what the primary refuses because slots or
// roles moved is sent again until the caller's deadline (do.go); reads of a slot that is on
// its way go to its next owner.
//
// How an event travels: a link (link.go) is one subscriber connection, to one
// slot's primary in a Cluster. Canaries (canary.go) take the way of the sends and
// come back through the link, so a link that is up and deaf is found.
//
// The package decides nothing about sockets and HTTP, and holds no state that
// could not be read from Redis again.
package redisstore
