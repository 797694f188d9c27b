package datapath

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"go.uber.org/zap"
)

// outward keeps what the node tells others up to date: which addresses it answers for,
// and the health of services. It belongs to Syncer.Run.
type outward struct {
	health *healthServer // nil: there is no health check server
	mine   []netip.Addr
	checks []HealthCheck
	known  bool // what the two should be; until then what an earlier agent left goes on
	failed bool
}

// announce publishes the state of the maps to the network and to load balancers. With refresh,
// unchanged state is published again.
func (s *Syncer) announce(refresh bool) {
	o := &s.outward
	s.mu.Lock()
	var mine []netip.Addr
	var checks []HealthCheck
	changed := false
	if s.synced {
		mine, checks, changed = s.table.Balancers()
	}
	s.mu.Unlock()
	if changed {
		o.mine, o.checks, o.known = mine, checks, true
	}
	if !changed && !refresh {
		return
	}
	var err error
	if o.known {
		err = s.datapath.Announce(o.mine)
	} else {
		err = s.datapath.Renew()
	}
	if o.health != nil && (changed || o.failed) {
		healthErr := o.health.set(o.checks)
		o.failed = healthErr != nil
		err = errors.Join(err, healthErr)
	}
	if err != nil {
		s.log.Error("Failed to attach the programs for traffic from outside", zap.Error(err))
	}
}

// runOutward renews what the node tells until the context ends.
func (s *Syncer) runOutward(ctx context.Context) {
	if s.outward.health != nil {
		defer s.outward.health.close()
	}
	renew := time.NewTicker(announceEvery)
	defer renew.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.written:
			s.announce(false)
		case <-renew.C:
			s.announce(true)
		}
	}
}
