package etcd

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/xebec-project/xebec/internal/pki"
)

// TestHTTPNeedsACertificate asks a member by HTTP, as every process on its host can: it answers
// holders of certificates alone, and even them nothing about keys, which its JSON API would read
// with the member's own certificate.
func TestHTTPNeedsACertificate(t *testing.T) {
	c := newCluster(t, 1, nil)
	url := c.members[0].cfg.MetricsURL
	source, err := pki.NewSource(c.files("reader", pki.ServiceRequest("cloud", "m")))
	if err != nil {
		t.Fatal(err)
	}
	known := source.ClientConfig(pki.AnyServer)
	known.NextProtos = nil
	for _, tt := range []struct {
		name, url, path string
		tls             *tls.Config
		want            int // 0: no answer
	}{
		{"metrics, by a certificate", url, "/metrics", known, http.StatusOK},
		{"health, by a certificate", url, "/health", known, http.StatusOK},
		{"keys, by a certificate", url, "/v3/kv/range", known, http.StatusNotFound},
		{"a snapshot, by a certificate", url, "/v3/maintenance/snapshot", known, http.StatusNotFound},
		{"the members, by a certificate", url, "/v3/cluster/member/list", known, http.StatusNotFound},
		{"metrics, without", url, "/metrics", &tls.Config{InsecureSkipVerify: true}, 0},
		{"keys, without", url, "/v3/kv/range", &tls.Config{InsecureSkipVerify: true}, 0},
		{"keys, in plain text", "http" + strings.TrimPrefix(url, "https"), "/v3/kv/range", nil, http.StatusBadRequest},
	} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: tt.tls, DisableKeepAlives: true}}
		resp, err := client.Post(tt.url+tt.path, "application/json", strings.NewReader(`{"key":"AA==","range_end":"AA=="}`))
		if !strings.HasPrefix(tt.path, "/v3/") {
			resp, err = client.Get(tt.url + tt.path)
		}
		if err != nil {
			if tt.want == http.StatusOK || tt.want == http.StatusNotFound {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		resp.Body.Close()
		if resp.StatusCode != tt.want {
			t.Errorf("%s: answered %s: %s", tt.name, resp.Status, body)
		}
	}
}
