package ledger

import "github.com/madang-chat/madang/protocol"

// Pos is a message ID in 8 bytes: 44 bits of milliseconds, 20 of sequence. It
// compares as the ID does. A book holds one for every message of a run, and one
// for every reader.
type Pos uint64

const seqBits = 20

// Pack packs an ID. ok is false for one that no Redis clock makes before the
// year 2527, or a sequence of more than a million in one millisecond.
func Pack(id protocol.ID) (p Pos, ok bool) {
	if id.Ms >= 1<<(64-seqBits) || id.Seq >= 1<<seqBits {
		return 0, false
	}
	return Pos(id.Ms<<seqBits | id.Seq), true
}

// ID unpacks the position.
func (p Pos) ID() protocol.ID {
	return protocol.ID{Ms: uint64(p) >> seqBits, Seq: uint64(p) & (1<<seqBits - 1)}
}
