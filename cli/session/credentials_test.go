package session

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/xebec-project/xebec/internal/pki"
)

// TestReplacedPair: who reads certificate and key while they are replaced sees a half of the old
// pair and one of the new.
func TestReplacedPair(t *testing.T) {
	for name, tt := range map[string]struct {
		replacedAfter time.Duration
		fits          bool
	}{"at once": {0, true}, "while it is replaced": {replacedWithin / 2, true}, "never": {time.Hour, false}} {
		synctest.Test(t, func(t *testing.T) {
			ca, err := pki.CreateCA("test", time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			before, err := ca.Issue(pki.AdminRequest("ann"))
			if err != nil {
				t.Fatal(err)
			}
			whole, err := ca.Issue(pki.AdminRequest("ann"))
			if err != nil {
				t.Fatal(err)
			}
			half := &pki.Pair{CertPEM: before.CertPEM, KeyPEM: whole.KeyPEM}
			began := time.Now()
			_, err = steadySource(func() ([]byte, *pki.Pair, error) {
				if time.Since(began) < tt.replacedAfter {
					return ca.CertPEM(), half, nil
				}
				return ca.CertPEM(), whole, nil
			})
			if (err == nil) != tt.fits {
				t.Errorf("a pair that fits %s: %v", name, err)
			}
			if took := time.Since(began); took > 2*replacedWithin {
				t.Errorf("%s: it returned after %s", name, took)
			}
		})
	}
}
