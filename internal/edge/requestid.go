package edge

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"

	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
)

// HeaderRequestID identifies a call at every server that it passes: a caller may choose it, and the
// first server makes one otherwise. Logs and error details have it.
const HeaderRequestID = "x-request-id"

// maxRequestID is the length that a request id may have.
const maxRequestID = 128

// NewRequestID returns a request id of 32 hexadecimal digits.
func NewRequestID() string {
	var id [16]byte
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
	return hex.EncodeToString(id[:])
}

// requestID returns the request id of a call, a new one with an error when the caller's is invalid.
func requestID(headers Headers) (string, error) {
	values := headers[HeaderRequestID]
	if values == nil {
		return NewRequestID(), nil
	}
	if len(values) == 1 && isRequestID(values[0]) {
		return values[0], nil
	}
	return NewRequestID(), refuse(codes.InvalidArgument, apierr.ReasonBadRequest,
		"header %s: want one value of 1 to %d letters, digits or any of -_.:/+=@", HeaderRequestID, maxRequestID)
}

func isRequestID(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for _, b := range []byte(id) {
		switch {
		case b >= '0' && b <= '9', b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z':
		case b == '-', b == '_', b == '.', b == ':', b == '/', b == '+', b == '=', b == '@':
		default:
			return false
		}
	}
	return true
}

// RequestID returns the id of the call that ctx belongs to, empty outside of one.
func RequestID(ctx context.Context) string {
	if c := CallFromContext(ctx); c != nil {
		return c.RequestID
	}
	return ""
}
