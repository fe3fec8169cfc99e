package loop_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/madang-chat/madang/gateway/edge"
	"github.com/madang-chat/madang/gateway/loop"
	"github.com/madang-chat/madang/internal/auth"
	"github.com/madang-chat/madang/protocol"
)

// rekeying is a client of TLS 1.3 whose records after the handshake are sealed here,
// because crypto/tls asks for new keys when it wants to, not when a test does.
type rekeying struct {
	*raw
	secret []byte // RFC 8446 §7.1: client_application_traffic_secret_N
	seq    uint64 // of the next record under it
}

const (
	recordHandshakeType = 22
	recordDataType      = 23
)

// updateRequested is a KeyUpdate that wants one back (RFC 8446 §4.6.3).
var updateRequested = []byte{24, 0, 0, 1, 1}

func (g *encrypted) dialRekeying() *rekeying {
	g.t.Helper()
	var keys strings.Builder
	conf := g.config(tls.VersionTLS13)
	conf.KeyLogWriter = &keys
	r := g.dialRaw()
	c := tls.Client(r.Conn, conf)
	if err := c.Handshake(); err != nil {
		g.t.Fatal(err)
	}
	if suite := c.ConnectionState().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 {
		g.t.Skipf("%s, and this test speaks TLS_AES_128_GCM_SHA256", tls.CipherSuiteName(suite))
	}
	for line := range strings.Lines(keys.String()) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "CLIENT_TRAFFIC_SECRET_0" {
			secret, _ := hex.DecodeString(f[2])
			return &rekeying{raw: r, secret: secret}
		}
	}
	g.t.Fatal("no secret in the key log")
	return nil
}

// expand is HKDF-Expand-Label (RFC 8446 §7.1).
func expand(secret []byte, label string, n int) []byte {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(n))
	info = append(append(info, byte(len(label))), label...)
	out, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), n)
	if err != nil {
		panic(err)
	}
	return out
}

// seal appends a record.
func (r *rekeying) seal(dst []byte, kind byte, data []byte) []byte {
	block, _ := aes.NewCipher(expand(r.secret, "key", 16))
	aead, _ := cipher.NewGCM(block)
	inner := append(append([]byte{}, data...), kind)
	head := []byte{recordDataType, 3, 3, 0, 0}
	binary.BigEndian.PutUint16(head[3:], uint16(len(inner)+aead.Overhead()))
	nonce := expand(r.secret, "iv", 12)
	for i, b := range binary.BigEndian.AppendUint64(nil, r.seq) {
		nonce[4+i] ^= b
	}
	r.seq++
	return append(append(dst, head...), aead.Seal(nil, nonce, inner, head)...)
}

// update appends a wish for new keys, and takes new ones.
func (r *rekeying) update(dst []byte) []byte {
	dst = r.seal(dst, recordHandshakeType, updateRequested)
	r.secret, r.seq = expand(r.secret, "traffic upd", 32), 0
	return dst
}

// holding is a verifier that keeps its loop busy while a token is held, so that what
// comes meanwhile is read in one turn.
type holding struct{ begun, end chan struct{} }

func (h holding) Verify(token string) (auth.Claims, error) {
	if token == "hold" {
		close(h.begun)
		<-h.end
	}
	return verifier{}.Verify(token)
}

// Whoever asks for new keys and breaks off in the same breath gets the answer, and not
// the next who is written to.
func TestAKeyUpdateOfAStrangerBreaksNobody(t *testing.T) {
	hold := holding{make(chan struct{}), make(chan struct{})}
	g := startTLS(t, func(o *loop.Options) { o.Loops, o.Verifier = 1, hold })
	bob := g.dialWSS("bob", tls.VersionTLS13)
	bob.says(`{"type":"ping"}`)
	bob.want(protocol.Pong)

	stranger := g.dialRekeying()
	sleeper := g.dialTLS(g.config(tls.VersionTLS13), nil)
	sleeper.sends(goodHead + "Authorization: Bearer hold\r\n\r\n")
	<-hold.begun
	out := stranger.seal(stranger.update(nil), recordDataType, []byte("nonsense\r\n\r\n"))
	if _, err := stranger.Conn.Write(out); err != nil {
		t.Fatal(err)
	}
	bob.says(`{"type":"ping"}`)
	close(hold.end)
	bob.want(protocol.Pong)
	bob.says(`{"type":"ping"}`)
	bob.want(protocol.Pong)
}

// Whoever goes on asking for new keys and takes no answer is closed before much of it
// is kept.
func TestAnswersToKeyUpdatesAreBounded(t *testing.T) {
	g := startTLS(t, func(o *loop.Options) { o.Loops, o.SendBufferBytes = 1, 16<<10 })
	eve := g.dialRekeying()
	if err := eve.Conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := eve.Conn.Write(eve.seal(nil, recordDataType, []byte(goodHead+"Authorization: Bearer eve\r\n\r\n"))); err != nil {
		t.Fatal(err)
	}
	g.hub.kind(t, edge.EvOpened)
	// A frame without an end: sixteen updates in a row are what crypto/tls takes, and
	// a byte of it makes it a new row. Masked with zeros.
	frame := append([]byte{0x81, 0x80 | 126, 0x3f, 0xff, 0, 0, 0, 0}, strings.Repeat(" ", 0x3fff)...)
	for end := time.Now().Add(20 * time.Second); ; frame = frame[1:] {
		var out []byte
		for range 16 {
			out = eve.update(out)
		}
		out = eve.seal(out, recordDataType, frame[:1])
		_ = eve.Conn.SetWriteDeadline(end)
		if _, err := eve.Conn.Write(out); err != nil {
			break // it is closed
		}
		if held := g.Stats().HeldBytes; held > 1<<20 || len(frame) == 1 || time.Now().After(end) {
			t.Fatalf("still open, and the gateway holds %d bytes", held)
		}
	}
}
