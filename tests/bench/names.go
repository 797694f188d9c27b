package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/xebec-project/xebec/lab"
)

const (
	// agentKills is how many agents are killed while names are looked up.
	agentKills = 100
	// lookupPause is the time between two look-ups of one of two clients on a node, by UDP and by TCP.
	lookupPause = 10 * time.Millisecond
	lookupName  = "kubernetes.default.svc.cluster.local."
)

// measureNames kills agents, one node's after the other's, while names are looked up on every node.
func measureNames(ctx context.Context, b *bench) (result, error) {
	var r result
	err := withLab(ctx, b, 1, 2, func(l *lab.Lab, _ string, _ time.Duration) error {
		nodes := []string{"node-1", "node-2"}
		var asked, failed atomic.Int64
		var first atomic.Value
		work, cancel := context.WithCancel(ctx)
		var all sync.WaitGroup
		for _, node := range nodes {
			for _, network := range []string{"udp", "tcp"} {
				all.Go(func() {
					for work.Err() == nil {
						err := inNetwork(l, node, func() error { return lookUp(network) })
						asked.Add(1)
						if err != nil {
							failed.Add(1)
							first.CompareAndSwap(nil, fmt.Sprintf("%s by %s: %v", node, network, err))
						}
						pause(work, lookupPause)
					}
				})
			}
		}
		began := time.Now()
		var err error
		for i := range agentKills {
			agent := nodes[i%len(nodes)] + "/agent"
			for ctx.Err() == nil {
				if err = l.Kill(ctx, agent, lab.KillOptions{}); err == nil {
					break
				}
				// It was just killed: the lab waits longer before each start, which this ends.
				err = l.Start(ctx, agent)
				pause(ctx, 50*time.Millisecond)
			}
			pause(ctx, 100*time.Millisecond)
		}
		took := time.Since(began)
		cancel()
		all.Wait()
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		r.figure = fmt.Sprintf("%d of %d", failed.Load(), asked.Load())
		r.notes = []string{
			fmt.Sprintf(
				"%d kills in %.0f s, %.0f look-ups/s; first failure: %v",
				agentKills,
				took.Seconds(),
				float64(asked.Load())/took.Seconds(),
				first.Load(),
			),
		}
		return nil
	})
	return r, err
}

// lookUp asks the node's DNS server for the API's service.
func lookUp(network string) error {
	client := miekg.Client{Net: network, Timeout: 2 * time.Second}
	answer, _, err := client.Exchange(new(miekg.Msg).SetQuestion(lookupName, miekg.TypeA), "10.96.0.10:53")
	if err != nil {
		return err
	}
	if answer.Rcode != miekg.RcodeSuccess || len(answer.Answer) != 1 {
		return fmt.Errorf("%s with %d answers", miekg.RcodeToString[answer.Rcode], len(answer.Answer))
	}
	return nil
}
