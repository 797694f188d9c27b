package rpc

import (
	"fmt"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/edge"
)

// ReasonPanic: the handler panicked; the server's log has the stack.
const ReasonPanic = "PANIC"

// refuse returns a status error with a reason.
func refuse(code codes.Code, reason, format string, args ...any) error {
	return apierr.New(code, reason, fmt.Sprintf(format, args...))
}

// errNoPeer is the error of a call that came by no connection.
var errNoPeer = refuse(codes.Unauthenticated, edge.ReasonNoCertificate, "the call was not authenticated")

// withRequestID adds a RequestInfo to the details of a status error that has none.
func withRequestID(err error, id string) error {
	if err == nil || id == "" {
		return err
	}
	st := status.Convert(apierr.From(err))
	for _, detail := range st.Details() {
		if _, ok := detail.(*errdetails.RequestInfo); ok {
			return err
		}
	}
	if full, tooLarge := st.WithDetails(&errdetails.RequestInfo{RequestId: id}); tooLarge == nil {
		return full.Err()
	}
	return err
}
