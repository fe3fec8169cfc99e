package loop

import (
	"bytes"
	"testing"
)

func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 198.51.100.1 5000 443\r\nGET"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x01\x13\x88\x01\xbb"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, p []byte) {
		kept := bytes.Clone(p)
		n, err := proxyHeaderLen(p)
		if n < 0 || n > len(p) || n > maxProxyV2 || n > 0 && err != nil {
			t.Fatalf("%d bytes of %d, %v", n, len(p), err)
		}
		// Whatever arrives first, the answer is the same in the end.
		for i := range p {
			m, err2 := proxyHeaderLen(p[:i])
			if m > 0 && m != n || n > 0 && err2 != nil {
				t.Fatalf("%d bytes at %d, %v; %d in the end", m, i, err2, n)
			}
		}
		if n > 0 {
			addr, err := parseProxyHeader(p[:n])
			if err != nil && addr.IsValid() {
				t.Fatal("an address and an error")
			}
		}
		if !bytes.Equal(p, kept) {
			t.Fatal("the input was changed")
		}
	})
}
