package agent

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xebec-project/xebec/internal/kinds/core"
	"github.com/xebec-project/xebec/internal/pki"
)

// TestRootCA shows the authorities to pods, and tells of new ones.
func TestRootCA(t *testing.T) {
	dir := t.TempDir()
	files := pki.Files{CA: filepath.Join(dir, "ca.crt"), Cert: filepath.Join(dir, "n.crt"), Key: filepath.Join(dir, "n.key")}
	synctest.Test(t, func(t *testing.T) {
		ca, err := pki.CreateCA("one", 0)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := ca.Issue(pki.NodeRequest("node-1"))
		if err != nil {
			t.Fatal(err)
		}
		next, err := pki.CreateCA("two", 0)
		if err != nil {
			t.Fatal(err)
		}
		write := func(authorities []byte) {
			if err := pki.WriteFile(files.CA, authorities); err != nil {
				t.Fatal(err)
			}
		}
		write(ca.CertPEM())
		if err := pair.WriteFiles(files.Cert, files.Key); err != nil {
			t.Fatal(err)
		}
		source, err := pki.NewSource(files)
		if err != nil {
			t.Fatal(err)
		}
		plane := controlPlane{root: rootCA{source}}
		shown := func() []byte {
			cm, err := plane.ConfigMap(t.Context(), "shop", core.RootCAConfigMap)
			if err != nil || cm.GetMetadata().GetNamespace() != "shop" {
				t.Errorf("got %v, %v", cm, err)
			}
			return []byte(cm.GetData()[core.RootCAKey])
		}
		if !bytes.Equal(shown(), ca.CertPEM()) {
			t.Errorf("pods are shown %s", shown())
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		calls := 0
		go plane.Follow(ctx, "ConfigMap", "shop", core.RootCAConfigMap, func() { calls++ })
		<-time.After(3 * rootCAInterval)
		synctest.Wait()
		if calls != 0 {
			t.Errorf("notified %d times without a change", calls)
		}
		both := append(bytes.Clone(ca.CertPEM()), next.CertPEM()...)
		write(both)
		<-time.After(2 * rootCAInterval)
		synctest.Wait()
		if calls != 1 || !bytes.Equal(shown(), both) {
			t.Errorf("notified %d times of a new authority, pods are shown %s", calls, shown())
		}
	})
}
