package watch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/resolve"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/scheme"
)

// Deleted is a deleted object that may still be there for a while.
type Deleted struct {
	resolve.Reference
	UID string
}

// AwaitGone returns when none of the objects exists any more.
func AwaitGone(ctx context.Context, s *session.Session, cl *client.Client, objects []Deleted, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	for _, d := range objects {
		err := Observe(ctx, s, cl, d.Reference, func(obj scheme.Object) (bool, error) {
			return obj == nil || obj.GetMetadata().GetUid() != d.UID, nil
		})
		if errors.Is(err, context.DeadlineExceeded) {
			return exit.TimedOutf("deletion of %s%s", d.Reference, holders(cl, d.Reference))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// holders says what keeps an object from going.
func holders(cl *client.Client, r resolve.Reference) string {
	obj, err := client.GetKind(context.Background(), cl, r.Kind, r.Namespace, r.Name)
	if err != nil || len(obj.GetMetadata().GetFinalizers()) == 0 {
		return ""
	}
	return fmt.Sprintf("; waiting for finalizers %v", obj.GetMetadata().GetFinalizers())
}
