package storage

import (
	"encoding/base64"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// pageToken says where the next page of a list starts. Clients see it as an opaque string.
type pageToken struct {
	revision int64 // of the snapshot
	last     Key   // of the last object looked at
}

func (t pageToken) encode() string {
	b := protowire.AppendVarint(nil, uint64(t.revision))
	return base64.RawURLEncoding.EncodeToString(append(b, t.last.String()...))
}

// parseToken decodes a token and checks that it belongs to a list of prefix.
func parseToken(s, prefix string) (pageToken, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return pageToken{}, fmt.Errorf("%w: not base64", ErrContinue)
	}
	rev, n := protowire.ConsumeVarint(b)
	if n < 0 || int64(rev) <= 0 {
		return pageToken{}, fmt.Errorf("%w: no revision", ErrContinue)
	}
	last, err := ParseKey(string(b[n:]))
	if err != nil {
		return pageToken{}, fmt.Errorf("%w: %w", ErrContinue, err)
	}
	if !strings.HasPrefix(last.String(), prefix) {
		return pageToken{}, fmt.Errorf("%w: it belongs to another kind or namespace", ErrContinue)
	}
	return pageToken{revision: int64(rev), last: last}, nil
}
