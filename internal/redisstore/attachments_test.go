package redisstore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/internal/blob"
	"github.com/madang-chat/madang/internal/chat"
	"github.com/madang-chat/madang/internal/redisstore"
	"github.com/madang-chat/madang/internal/testkit"
)

// upload makes an attachment of a user's.
func upload(t testing.TB, s *redisstore.Store, user string) chat.Attachment {
	t.Helper()
	a := chat.Attachment{ID: blob.NewID(), By: user, Name: `é "of" mine.png`, Size: 1 << 40, ContentType: "image/png", SHA256: strings.Repeat("ab", 32)}
	must(t, s.AnnounceUpload(t.Context(), as(user), a.ID, a.Size, chat.Quota{}, time.Hour))
	must(t, s.KeepUpload(t.Context(), a, time.Hour))
	return a
}

func TestAnAttachmentIsSeenWhereItWasSent(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		first, second := room(t, s, "alice", "bob"), room(t, s, "bob", "carol")
		a := upload(t, s, "alice")
		sees := func(user string, want error) {
			t.Helper()
			got, err := s.Attachment(t.Context(), as(user), a.ID)
			wantErr(t, err, want)
			if err == nil && got != a {
				t.Errorf("%+v, want %+v", got, a)
			}
		}
		sees("alice", nil)
		sees("bob", chat.ErrAttachmentHidden)
		wantErr(t, s.Attach(t.Context(), as("bob"), first, []string{a.ID}, 0), chat.ErrAttachmentHidden)
		wantErr(t, s.Attach(t.Context(), as("alice"), second, []string{a.ID}, 0), chat.ErrNotMember)
		wantErr(t, s.Attach(t.Context(), as("alice"), name("none"), []string{a.ID}, 0), chat.ErrNoRoom)
		must(t, s.Attach(t.Context(), as("alice"), first, []string{a.ID, a.ID}, 0))
		sees("bob", nil)
		sees("carol", chat.ErrAttachmentHidden)
		// Who sees it may send it on.
		must(t, s.Attach(t.Context(), as("bob"), second, []string{a.ID}, 0))
		sees("carol", nil)
		_, err := s.Attachment(t.Context(), server, a.ID)
		must(t, err)
		// And who is no member any more does not.
		must(t, s.RemoveMember(t.Context(), as("bob"), second, "carol"))
		sees("carol", chat.ErrAttachmentHidden)
		must(t, s.RemoveMember(t.Context(), as("alice"), first, "alice"))
		sees("alice", nil)

		_, err = s.Attachment(t.Context(), as("alice"), blob.NewID())
		wantErr(t, err, chat.ErrNoAttachment)
	})
}

func TestOneThatMayNotBeAttachedKeepsNoneOfTheOthers(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		r := room(t, s, "alice", "bob")
		mine, hers := upload(t, s, "alice"), upload(t, s, "carol")
		for _, other := range []string{hers.ID, blob.NewID()} {
			if err := s.Attach(t.Context(), as("alice"), r, []string{mine.ID, other}, 0); err == nil {
				t.Fatal("attached")
			}
		}
		_, err := s.Attachment(t.Context(), as("bob"), mine.ID)
		wantErr(t, err, chat.ErrAttachmentHidden)
	})
}

// due are those of ids whose bytes are to go.
func due(t testing.TB, s *redisstore.Store, ids ...string) (of []string) {
	t.Helper()
	marker := blob.NewID() // that is among them, so that a look without the turn is no answer
	must(t, s.AnnounceUpload(t.Context(), as("m"), marker, 1, chat.Quota{}, past))
	soon(t, 10*time.Second, "a turn", func() bool {
		all, err := s.DueAttachments(t.Context(), time.Millisecond, 100_000)
		must(t, err)
		of = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !slices.Contains(all, id) })
		return slices.Contains(all, marker)
	})
	return of
}

// past makes a time of keeping be over, as if it were long ago.
const past = -2 * time.Hour

func TestWhatWasNotSentComesDue(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		r := room(t, s, "alice")
		cutOff, unsent, aged := blob.NewID(), upload(t, s, "alice"), upload(t, s, "alice")
		kept, pending := upload(t, s, "alice"), upload(t, s, "alice")
		must(t, s.AnnounceUpload(t.Context(), as("alice"), cutOff, 1, chat.Quota{}, past))
		must(t, s.KeepUpload(t.Context(), unsent, past))
		must(t, s.Attach(t.Context(), as("alice"), r, []string{kept.ID}, 0))
		must(t, s.Attach(t.Context(), as("alice"), r, []string{aged.ID}, past))

		_, err := s.Attachment(t.Context(), as("alice"), unsent.ID)
		wantErr(t, err, chat.ErrNoAttachment)
		wantErr(t, s.Attach(t.Context(), as("alice"), r, []string{unsent.ID}, 0), chat.ErrNoAttachment)
		got := due(t, s, cutOff, unsent.ID, aged.ID)
		if len(got) != 3 {
			t.Fatalf("%d of 3 are due", len(got))
		}
		must(t, s.ForgetAttachments(t.Context(), got))
		if more := due(t, s, cutOff, unsent.ID, aged.ID, kept.ID, pending.ID); len(more) > 0 {
			t.Fatalf("due again, or not yet: %v", more)
		}
		// An upload that ends after it was given up is none.
		wantErr(t, s.KeepUpload(t.Context(), unsent, time.Hour), chat.ErrNoAttachment)
		_, err = s.Attachment(t.Context(), as("alice"), kept.ID)
		must(t, err)
	})
}

func TestAnAttachmentGoesToAHundredRooms(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		a := upload(t, s, "alice")
		var last string
		for i := range 101 {
			r := fmt.Sprintf("%s-%d", name("room"), i)
			_, err := s.CreateRoom(t.Context(), as("alice"), r, "", nil)
			must(t, err)
			err = s.Attach(t.Context(), as("alice"), r, []string{a.ID}, 0)
			if i < 100 {
				must(t, err)
				last = r
			} else {
				wantErr(t, err, chat.ErrAttachmentRooms)
			}
		}
		must(t, s.Attach(t.Context(), as("alice"), last, []string{a.ID}, 0)) // where it is, it may be again
	})
}

func TestUploadsHaveAQuota(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		alice, q := as(name("alice")), chat.Quota{Bytes: 100, In: time.Hour}
		try := func(bytes int64) error {
			return s.AnnounceUpload(t.Context(), alice, blob.NewID(), bytes, q, time.Hour)
		}
		must(t, try(60))
		var over *chat.QuotaError
		if err := try(41); !errors.As(err, &over) || over.Again <= 0 || over.Again > time.Hour {
			t.Fatalf("over the quota: %v", err)
		}
		must(t, try(40))
		must(t, s.GiveBack(t.Context(), alice, 30))
		must(t, try(30))
		if err := try(1); !errors.As(err, &over) {
			t.Fatalf("given back twice: %v", err)
		}
		alice.Server = true
		must(t, try(1000))
		// A quota below one file lets one through at a time.
		bob := as(name("bob"))
		must(t, s.AnnounceUpload(t.Context(), bob, blob.NewID(), 1000, q, time.Hour))
		if err := s.AnnounceUpload(t.Context(), bob, blob.NewID(), 1, q, time.Hour); !errors.As(err, &over) {
			t.Fatalf("a second: %v", err)
		}
	})
}

func TestWhatWasSentOutlivesWhatWasNot(t *testing.T) {
	onAll(t, func(t *testing.T, s *redisstore.Store) {
		const pending = 300 * time.Millisecond
		r := room(t, s, "alice", "bob")
		sent, kept, unsent := upload(t, s, "alice"), upload(t, s, "alice"), upload(t, s, "alice")
		for _, a := range []chat.Attachment{sent, kept, unsent} {
			must(t, s.KeepUpload(t.Context(), a, pending))
		}
		must(t, s.Attach(t.Context(), as("alice"), r, []string{sent.ID}, 0))
		must(t, s.Attach(t.Context(), as("alice"), r, []string{kept.ID}, time.Hour))
		soon(t, 10*time.Second, "the end of what was not sent", func() bool {
			_, err := s.Attachment(t.Context(), as("alice"), unsent.ID)
			return errors.Is(err, chat.ErrNoAttachment)
		})
		for _, a := range []chat.Attachment{sent, kept} {
			_, err := s.Attachment(t.Context(), as("bob"), a.ID)
			must(t, err)
		}
	})
}

func TestWhatAQuotaRefusesLeavesNothing(t *testing.T) {
	r := testkit.Redis(t)
	s := open(t, r.URL(), func(o *redisstore.Options) { o.Partitions, o.Links = 1, 1 })
	q := chat.Quota{Bytes: 1 << 20, In: 24 * time.Hour}
	must(t, s.AnnounceUpload(t.Context(), as("eve"), blob.NewID(), 1<<20, q, 24*time.Hour))
	for range 1000 {
		var over *chat.QuotaError
		if err := s.AnnounceUpload(t.Context(), as("eve"), blob.NewID(), 16<<10, q, 24*time.Hour); !errors.As(err, &over) {
			t.Fatal(err)
		}
	}
	n := r.Must(t, "ZCARD", "{0}:attachments:due")
	if n != int64(1) {
		t.Errorf("%v uploads announced, 1 was allowed", n)
	}
}

func TestAnAnnouncementThatFailedIsNotCharged(t *testing.T) {
	r := testkit.Redis(t) // has no replicas
	s := open(t, r.URL(), func(o *redisstore.Options) {
		o.Partitions, o.Links, o.MinReplicasAck, o.AckTimeout = 1, 1, 1, 20*time.Millisecond
	})
	q := chat.Quota{Bytes: 100 << 20, In: 24 * time.Hour}
	for range 4 {
		wantErr(t, s.AnnounceUpload(t.Context(), as("eve"), blob.NewID(), 25<<20, q, 24*time.Hour), chat.ErrNotReplicated)
	}
	later := open(t, r.URL(), func(o *redisstore.Options) { o.Partitions, o.Links = 1, 1 }) // replicas are back
	var over *chat.QuotaError
	if err := later.AnnounceUpload(t.Context(), as("eve"), blob.NewID(), 25<<20, q, 24*time.Hour); errors.As(err, &over) {
		t.Errorf("after four 503s: over quota for %v, and nothing was uploaded", over.Again)
	}
}
