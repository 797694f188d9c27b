package storage

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestKey(t *testing.T) {
	for _, tc := range []struct {
		key  Key
		want string
	}{
		{Key{"", "Pod", "default", "web-0"}, "/xebec/registry/core/Pod/default/web-0"},
		{Key{"apps", "Deployment", "default", "web"}, "/xebec/registry/apps/Deployment/default/web"},
		{Key{"", "Node", "", "node-1.example"}, "/xebec/registry/core/Node/_/node-1.example"},
		{Key{"coordination.k8s.io", "Lease", "kube-system", "a"}, "/xebec/registry/coordination.k8s.io/Lease/kube-system/a"},
	} {
		if got := tc.key.String(); got != tc.want {
			t.Errorf("%+v is %q, want %q", tc.key, got, tc.want)
		}
		if back, err := ParseKey(tc.want); err != nil || back != tc.key {
			t.Errorf("ParseKey(%q) = %+v, %v, want %+v", tc.want, back, err, tc.key)
		}
		if !tc.key.valid() {
			t.Errorf("%+v is not valid", tc.key)
		}
	}
	for _, bad := range []string{
		"", "/", "/xebec/leases/1f", "/xebec/registry/core/Pod/default", "/xebec/registry/core/Pod/default/",
		"/xebec/registry/core/Pod/default/a/b", "/xebec/registry//Pod/default/a", "/xebec/registry/core//default/a",
		"/xebec/registry/core/Pod//a",
	} {
		if k, err := ParseKey(bad); err == nil {
			t.Errorf("ParseKey(%q) = %+v, want an error", bad, k)
		}
	}
	for _, bad := range []Key{
		{}, {Kind: "Pod"}, {Name: "a"}, {Kind: "Pod", Namespace: "_", Name: "a"}, {Group: "core", Kind: "Pod", Name: "a"},
		{Kind: "Pod", Namespace: "a/b", Name: "c"}, {Kind: "Pod", Namespace: "a", Name: "b/c"},
	} {
		if bad.valid() {
			t.Errorf("%+v is valid", bad)
		}
	}
}

// The cache must order keys as etcd does: by the bytes of their names.
func TestCompareKeys(t *testing.T) {
	spaces := []string{"", "a", "a-b", "a0", "ab", "b", "default", "default-2", "z"}
	names := []string{"a", "a-b", "a.b", "a0", "b", "web-10", "web-2"}
	var keys []Key
	for _, ns := range spaces {
		for _, n := range names {
			keys = append(keys, Key{Kind: "Pod", Namespace: ns, Name: n})
		}
	}
	rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	want := slices.Clone(keys)
	slices.SortFunc(want, func(a, b Key) int { return strings.Compare(a.String(), b.String()) })
	slices.SortFunc(keys, compareKeys)
	if !slices.Equal(keys, want) {
		t.Errorf("order is\n%v\nwant etcd's\n%v", keys, want)
	}
}

func TestPageToken(t *testing.T) {
	prefix := listPrefix("", "Pod", "default")
	want := pageToken{revision: 1 << 40, last: Key{Kind: "Pod", Namespace: "default", Name: "web-0"}}
	if got, err := parseToken(want.encode(), prefix); err != nil || got != want {
		t.Errorf("round trip gives %+v, %v, want %+v", got, err, want)
	}
	for name, bad := range map[string]string{
		"not base64":        "!!",
		"empty":             "",
		"cut":               want.encode()[:8],
		"other kind":        pageToken{revision: 5, last: Key{Kind: "Node", Name: "a"}}.encode(),
		"other namespace":   pageToken{revision: 5, last: Key{Kind: "Pod", Namespace: "default-2", Name: "a"}}.encode(),
		"no revision":       pageToken{last: want.last}.encode(),
		"negative revision": pageToken{revision: -3, last: want.last}.encode(),
	} {
		if got, err := parseToken(bad, prefix); !errors.Is(err, ErrContinue) {
			t.Errorf("%s: parseToken gives %+v, %v, want ErrContinue", name, got, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(pageToken{revision: 7, last: Key{Kind: "Pod", Namespace: "default", Name: "a"}}.encode())
	f.Fuzz(func(t *testing.T, s string) {
		token, err := parseToken(s, kindPrefix("", "Pod"))
		if err != nil {
			return
		}
		if again, err := parseToken(token.encode(), kindPrefix("", "Pod")); err != nil || again != token {
			t.Errorf("%q decodes to %+v, which encodes to %+v, %v", s, token, again, err)
		}
	})
}
