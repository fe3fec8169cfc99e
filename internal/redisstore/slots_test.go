package redisstore

import (
	"testing"

	"github.com/madang-chat/madang/internal/chat"
)

func TestTagsSpreadEvenlyOverSlots(t *testing.T) {
	if got := crc16("123456789"); got != 0x31C3 {
		t.Fatalf("crc16 of the reference text is %#x", got)
	}
	for _, n := range []int{1, 2, 3, 7, 16, 256, 1000, slots} {
		tags := partitionTags(n)
		seen := map[string]bool{}
		for i, tag := range tags {
			slot := int(crc16(tag)) % slots
			if slot < i*slots/n || slot >= (i+1)*slots/n {
				t.Fatalf("%d partitions: tag %q of partition %d is in slot %d, not in [%d,%d)", n, tag, i, slot, i*slots/n, (i+1)*slots/n)
			}
			if seen[tag] {
				t.Fatalf("%d partitions: tag %q twice", n, tag)
			}
			seen[tag] = true
		}
	}
}

// Keys of deployments that exist are made of these: they must never change.
func TestTagsAndPartitionsAreFixed(t *testing.T) {
	k := newKeyspace(256, 0)
	for i, want := range map[int]string{0: "cv", 1: "14", 100: "1y", 255: "fv"} {
		if k.tags[i] != want {
			t.Errorf("tag of partition %d is %q, was %q", i, k.tags[i], want)
		}
	}
	for name, want := range map[string]int{"r1": 231, "alice": 73, "한글": 1} {
		if got := k.partition(name); got != want {
			t.Errorf("%q is in partition %d, was in %d", name, got, want)
		}
	}
}

func TestNamesCannotEscapeTheirKey(t *testing.T) {
	k := newKeyspace(16, 0)
	for _, name := range []string{"alice", "a:rooms", "{x}:user:bob", "50%", "%41", "한글 이름", "a b\"c'", "*?[]"} {
		ch := chat.Channel{Kind: chat.UserChannel, Name: name}
		key := k.channel(ch)
		for _, c := range key[len(k.prefix[k.partition(name)])+len("user:"):] {
			if c > 0x7e || !plain(byte(c)) && c != '%' {
				t.Errorf("%q: %q in the key %q", name, c, key)
			}
		}
		if got, ok := k.parseChannel(key); !ok || got != ch {
			t.Errorf("%q came back as %v", name, got)
		}
	}
	room := chat.Channel{Kind: chat.RoomChannel, Name: "r~1.a"}
	for _, k := range []*keyspace{k, newKeyspace(16, 3)} {
		if got, ok := k.parseChannel(k.channel(room)); !ok || got != room {
			t.Errorf("the room came back as %v", got)
		}
	}
}
