// Command measure prints what madang costs: the constants of internal/plan, each
// counted on processes that run (redis-server, madang api, madang gateway) with
// clients that share no code with them.
//
//	go run ./test/measure                            print a table
//	go run ./test/measure -write internal/plan/measured.go
//
// It wants a quiet machine of two cores or more and about six minutes. Memory is
// what the kernel says of a process (VmRSS) or of itself (Slab); CPU is user and
// system time of the process, idle cost taken off where that is said.
package main
