// Package plan turns a load into machines: how many gateways, APIs and Redis
// shards, how much memory and network, and what runs out first.
//
// The model is arithmetic on constants that were measured (measured.go, written
// by `go run ./test/measure`); where a figure follows from a protocol and not
// from a measurement (the headers of TCP/IP), the formula says so. It knows no
// network and no Redis: `madang plan`, `madang doctor` and docs/scaling.md use it.
package plan
