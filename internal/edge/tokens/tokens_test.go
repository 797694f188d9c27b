package tokens

import (
	"fmt"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/edge/tokens/tokenstest"
)

// TestInvalidTokensDoNotEvictValid fills the caches with invalid tokens, and requires that a valid
// one stays cached. The clock is that of a bubble: a review counts for a time that a busy machine
// may need for the signatures.
func TestInvalidTokensDoNotEvictValid(t *testing.T) {
	synctest.Test(t, testInvalidTokensDoNotEvictValid)
}

func testInvalidTokensDoNotEvictValid(t *testing.T) {
	issuer := tokenstest.NewIssuer(t)
	tokens := New(issuer.Client())
	if err := tokens.keys.fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	valid := issuer.Token(nil)
	check := func(fresh bool) {
		t.Helper()
		id, _, err := tokens.Verify(valid, fresh)
		if err == nil {
			err = tokens.Review(t.Context(), valid)
		}
		if err != nil || id.User != "system:serviceaccount:default:web" {
			t.Fatalf("the valid token: %v, %v", id, err)
		}
	}
	check(true)
	for i := range 3 * maxInvalid {
		_, _, err := tokens.Verify(fmt.Sprintf("%s%d", valid[:len(valid)-6], 100000+i), true)
		if apierr.Reason(err) != edge.ReasonBadToken {
			t.Fatal(err)
		}
	}
	check(false) // cached, so that the limit of failures does not matter
	if _, _, err := tokens.Verify(issuer.Token(nil), false); apierr.Code(err) != codes.ResourceExhausted {
		t.Errorf("a token that is not cached, of a source at its limit: %v", err)
	}
	if reviewed, _ := issuer.Counts(); reviewed != 1 {
		t.Errorf("%d reviews, want that of the valid token", reviewed)
	}
	if n := len(tokens.invalid.elements); n > maxInvalid {
		t.Errorf("%d invalid tokens are cached, more than %d", n, maxInvalid)
	}
}
