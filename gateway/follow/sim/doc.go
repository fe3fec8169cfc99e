// Package sim plays a whole deployment around follow.Core, in memory and on a
// clock of its own: Redis nodes that replicate with a lag and fail over, links
// that break or go silent, reads that are executed at one moment and answered at
// another, gateways with loops and slow sockets, clients that keep positions,
// resume and page. A schedule is a list of numbers drawn from a seed; after it
// the faults stop, everything is delivered, and what was promised is checked
// (DESIGN §4, DELIVERY). Some promises are checked at every delivery.
//
// It never starts a goroutine, never reads the real clock and never looks into a
// Core: it sees what a loop, a link and a client would see. A schedule that
// breaks a promise is shrunk by leaving steps out, and told as a story.
//
// What it does not play: Redis answering wrongly, two messages with one ID, and a
// process whose command client knows an older primary than its link does (the
// link is made to the primary that the command client knows, DELIVERY L1).
package sim
