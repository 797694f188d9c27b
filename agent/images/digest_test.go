package images_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/xebec-project/xebec/agent/images"
	"github.com/xebec-project/xebec/agent/runtime/containerdtest"
)

// TestDigest names images from archives by their digests, with and without their tags.
func TestDigest(t *testing.T) {
	d := containerdtest.Start(t)
	store := open(t, d, images.Config{}).Images()
	// Nothing listens there, so that no registry has any image.
	const repo = "127.0.0.1:1/lab/bb"
	load := func(size int) string {
		t.Helper()
		loaded, err := store.Import(t.Context(), containerdtest.Archive(t, repo+":1", heavy(t, containerdtest.Busybox(t), size)))
		if err != nil || len(loaded) != 1 {
			t.Fatalf("loaded %v, %v", loaded, err)
		}
		return loaded[0].Digest
	}
	digest := load(1000)
	ensure := func(name, policy string) (images.Image, error) {
		t.Helper()
		img, pulled, err := store.Ensure(t.Context(), name, policy, nil)
		if err == nil && pulled {
			t.Errorf("%s was pulled", name)
		}
		return img, err
	}
	for _, policy := range []string{"Never", "IfNotPresent", "Always"} {
		for _, name := range []string{repo + "@" + digest, repo + ":1@" + digest, repo + ":other@" + digest} {
			if img, err := ensure(name, policy); err != nil || img.Digest != digest || img.Name != repo+"@"+digest {
				t.Errorf("%s with policy %s is %+v, %v", name, policy, img, err)
			}
		}
	}
	const absent = "@sha256:0123456789012345678901234567890123456789012345678901234567890123"
	for _, name := range []string{repo + ":1" + absent, repo + absent, "127.0.0.1:1/other/bb@" + digest} {
		if img, err := ensure(name, "Never"); !errors.Is(err, images.ErrNeverPull) {
			t.Errorf("%s is %+v, %v, want ErrNeverPull", name, img, err)
		}
	}

	// The tag goes to another image; the digest still means the first.
	next := load(2000)
	for name, want := range map[string]string{repo + ":1": next, repo + "@" + digest: digest, repo + ":1@" + digest: digest, repo + ":1@" + next: next} {
		if img, err := ensure(name, "Never"); err != nil || img.Digest != want {
			t.Errorf("%s is %+v, %v, want digest %s", name, img, err, want)
		}
	}
	// Nothing but pods that name it keeps an image that has lost its tag.
	inUse := []string{repo + "@" + digest}
	collector := images.NewCollector(store, images.GC{High: 100, InUse: func() []string { return inUse }})
	for _, want := range [][]string{{repo + ":1", repo + "@" + digest, repo + "@" + next}, {repo + ":1", repo + "@" + next}} {
		if _, err := collector.FreeUnused(t.Context()); err != nil {
			t.Fatal(err)
		}
		list, err := store.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range list {
			got = append(got, i.Name)
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("there are %q, want %q", got, want)
		}
		inUse = nil
	}
}
