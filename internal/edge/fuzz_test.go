package edge

import (
	"net/url"
	"testing"
)

// FuzzForwarded reads identity headers: an identity has the user and groups that were escaped into
// the headers.
func FuzzForwarded(f *testing.F) {
	f.Add("alice", "system:masters", true)
	f.Add("a%2Fb%zz", "%", false)
	f.Add("", "", true)
	const forwarder = "xebec:gateway"
	f.Fuzz(func(t *testing.T, user, group string, escape bool) {
		headers := [2]string{user, group}
		if escape {
			headers = [2]string{url.PathEscape(user), url.PathEscape(group)}
		}
		id, err := forwarded(Identity{User: forwarder}, Headers{HeaderUser: headers[:1], HeaderGroup: headers[1:]}, []string{forwarder})
		if err != nil {
			if escape && user != "" {
				t.Errorf("user %q, group %q: %v", user, group, err)
			}
			return
		}
		if id.Forwarder != forwarder || escape && (id.User != user || len(id.Groups) != 1 || id.Groups[0] != group) {
			t.Errorf("user %q, group %q are read as %+v", user, group, id)
		}
	})
}
