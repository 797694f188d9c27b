package gateway

import (
	"context"
	"time"

	"google.golang.org/grpc/connectivity"
)

// readyLimit is how long a gateway that starts looks for an apiserver before it takes calls all the
// same: what it can answer by itself, such as what is wrong with the cluster, is wanted most when
// there is none.
const readyLimit = 5 * time.Second

// Ready is closed when the gateway takes calls: once it is connected to an apiserver, for until
// then it would fail calls that another gateway can answer, or it itself a moment later, and after
// readyLimit at the latest.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// reach closes ready.
func (s *Service) reach(ctx context.Context) {
	defer close(s.ready)
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	for {
		s.apiserver.Connect()
		state := s.apiserver.GetState()
		if state == connectivity.Ready || !s.apiserver.WaitForStateChange(ctx, state) {
			return
		}
	}
}
