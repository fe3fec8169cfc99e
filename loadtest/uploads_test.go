package loadtest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/loadtest/internal/fakechat"
)

func TestAChatCarriesFiles(t *testing.T) {
	server := fakechat.New(t)
	server.TakeFiles()
	s := spec(server, "chat")
	s.Rate, s.Duration, s.UploadShare, s.UploadBytes = 50, time.Second, 0.2, 2000
	res := run(t, s)
	sizes, _ := server.Files()
	if !res.Passed() || res.Sends.Uploads == 0 || int(res.Sends.Uploads) != len(sizes)-1 { // one was a try
		t.Fatalf("%d uploads, the server has %d; %v %v", res.Sends.Uploads, len(sizes), res.Ended, res.Problems)
	}
	timed := uint64(0)
	for _, p := range res.Phases {
		timed += uint64(p.UploadTime.Count)
	}
	if timed < res.Sends.Uploads/2 { // some are between two phases
		t.Errorf("%d of %d uploads are timed", timed, res.Sends.Uploads)
	}
	var text strings.Builder
	res.WriteText(&text)
	for _, want := range []string{"files stored, 0 not", "due → file stored", "20 % of the sends, 2000 bytes each"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the report does not say %q:\n%s", want, text.String())
		}
	}
}

func TestATargetWithoutFilesIsToldOf(t *testing.T) {
	s := spec(fakechat.New(t), "chat")
	s.Rate, s.Duration, s.UploadShare = 50, 200*time.Millisecond, 0.5
	res := run(t, s)
	if !res.Passed() || res.Sends.Uploads != 0 || !strings.Contains(strings.Join(res.Notes, "\n"), "no uploads: the target takes no attachments") {
		t.Fatalf("%v %v %v", res.Ended, res.Problems, res.Notes)
	}
}
