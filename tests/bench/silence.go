package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/osthread"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	"github.com/xebec-project/xebec/lab"
	"github.com/xebec-project/xebec/lab/topology"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
)

// silences is how many times the leader's master goes silent in each way.
const silences = 2

// reads is a client's reads, which are idempotent: none may fail.
type reads struct {
	api apiv1.ResourceServiceClient

	mu           sync.Mutex
	done, failed int
	last         error
}

func (r *reads) run(ctx context.Context) {
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, 30*time.Second)
		_, err := r.api.Get(call, &apiv1.GetRequest{Object: &apiv1.ObjectReference{Kind: "Namespace", Name: "default"}})
		cancel()
		r.mu.Lock()
		r.done++
		if err != nil && ctx.Err() == nil {
			r.failed++
			r.last = err
		}
		r.mu.Unlock()
		pause(ctx, 5*time.Millisecond)
	}
}

// measureSilence takes the wire, then the power, of the master whose etcd leads, several times,
// while a client on a node writes and reads through all gateways. The master's kernel ends no
// connection either time.
func measureSilence(ctx context.Context, b *bench) (result, error) {
	var r result
	err := withLab(ctx, b, 3, 1, func(l *lab.Lab, _ string, _ time.Duration) error {
		conn, err := dialFrom(l, "node-1")
		if err != nil {
			return err
		}
		defer conn.Close()
		api := apiv1.NewResourceServiceClient(conn)
		w, reads := &writer{api: api, timeout: 30 * time.Second}, &reads{api: api}
		work, cancel := context.WithCancel(ctx)
		var all sync.WaitGroup
		all.Go(func() { w.run(work) })
		all.Go(func() { reads.run(work) })
		defer all.Wait()
		defer cancel()

		var figures []string
		for _, way := range []struct {
			name         string
			harm, repair func(context.Context, string) error
		}{
			{"wire", l.Cut, l.Heal},
			{"power", func(ctx context.Context, host string) error {
				return l.Kill(ctx, host, lab.KillOptions{PowerOff: true})
			}, l.Start},
		} {
			var gaps []time.Duration
			for range silences {
				pause(ctx, around)
				leader, err := etcdLeader(ctx, conn)
				if err != nil {
					return err
				}
				began := time.Now()
				if err := way.harm(ctx, leader); err != nil {
					return err
				}
				pause(ctx, 3*around)
				gaps = append(gaps, w.gap(began))
				if err := way.repair(ctx, leader); err != nil {
					return err
				}
				pause(ctx, around)
			}
			slices.Sort(gaps)
			figures = append(figures, fmt.Sprintf("%s %.2f s (%v)", way.name, gaps[len(gaps)/2].Seconds(), gaps))
		}
		if ctx.Err() != nil {
			return errors.New("no time left")
		}
		r.figure = fmt.Sprintf("%s; election timeout %s", strings.Join(figures, ", "), topology.EtcdElection)
		r.notes = []string{
			fmt.Sprintf("%d writes, %d failed; %d reads, %d failed (%v)", len(w.acknowledged), w.failed, reads.done, reads.failed, reads.last),
		}
		return nil
	})
	return r, err
}

// dialFrom connects to all gateways of a lab from the network of one of its machines, as the lab's
// administrator.
func dialFrom(l *lab.Lab, host string) (*grpc.ClientConn, error) {
	source, err := pki.NewSource(l.Spec.AdminFiles())
	if err != nil {
		return nil, err
	}
	var gateways []string
	for _, m := range l.Spec.MasterHosts() {
		gateways = append(gateways, m.GatewayAddr().String())
	}
	dial := rpc.ContextDialer(rpc.DefaultSilence)
	return rpc.Dial(rpc.SchemeStatic+":///"+strings.Join(gateways, ","), rpc.ClientConfig{
		TLS: source,
		Options: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, addr string) (conn net.Conn, err error) {
			err = inNetwork(l, host, func() error {
				conn, err = dial(ctx, addr)
				return err
			})
			return conn, err
		})},
	})
}

// inNetwork runs f on a thread in the network of one of a lab's machines. Sockets that f makes stay
// there.
func inNetwork(l *lab.Lab, host string, f func() error) error {
	return osthread.Do(func() error {
		namespace, err := netns.GetFromName(topology.NamespacePrefix(l.Spec.Name) + host)
		if err != nil {
			return fmt.Errorf("network of %s: %w", host, err)
		}
		defer namespace.Close()
		if err := unix.Setns(int(namespace), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network of %s: %w", host, err)
		}
		return f()
	})
}

// etcdLeader returns the master whose etcd leads.
func etcdLeader(ctx context.Context, conn *grpc.ClientConn) (string, error) {
	var last error
	for ; ctx.Err() == nil; pause(ctx, 100*time.Millisecond) {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		status, err := clusterv1.NewClusterServiceClient(conn).Status(call, &clusterv1.StatusRequest{})
		cancel()
		if last = err; err != nil {
			continue
		}
		for _, m := range status.GetEtcdMembers() {
			if m.GetLeader() {
				return m.GetName(), nil
			}
		}
	}
	return "", fmt.Errorf("etcd has no leader: %w", errors.Join(ctx.Err(), last))
}
