package dns

import (
	"bytes"
	"testing"
)

// FuzzParseResolvConf reads resolv.conf files of any content: servers are addresses, and no word
// holds a comment.
func FuzzParseResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 10.0.0.1\nsearch a.example b.example # c\noptions ndots:5\n"))
	f.Add([]byte("nameserver fe80::1%eth0\ndomain x;y\n\xff\x00"))
	f.Fuzz(func(t *testing.T, content []byte) {
		c, err := ParseResolvConf(bytes.NewReader(content))
		if err != nil {
			return
		}
		for _, server := range c.Nameservers {
			if !server.IsValid() {
				t.Errorf("server %v", server)
			}
		}
		for _, word := range append(c.Searches, c.Options...) {
			if bytes.ContainsAny([]byte(word), "#; \t") {
				t.Errorf("word %q", word)
			}
		}
	})
}
