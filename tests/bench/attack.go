package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xebec-project/xebec/internal/edge/edgetest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	"github.com/xebec-project/xebec/tests/cluster"
)

const (
	// victims are callers with certificates that go on with their work, with a pause after each call,
	// so that the figure is of the server and not of a full machine.
	victims     = 4
	victimPause = 10 * time.Millisecond
	// beforehand is how long they work before the attack.
	beforehand = 10 * time.Second
	// sampleInterval is how often the gateway's memory is looked at.
	sampleInterval = 200 * time.Millisecond
	// attackPause is the least time between two connections of an attacker that has been cut off.
	attackPause = 20 * time.Millisecond
)

// attackFrom is the address that attacks come from: another one than that of the victims, on
// loopback.
var attackFrom = &net.TCPAddr{IP: net.IPv4(127, 0, 66, 6)}

// attacked is the target of an attack.
type attacked struct {
	address string
	// key is the id of a key that tokens are signed with, which everyone may know.
	key string
}

// attack measures what an attack from one source costs: by how much the gateway's memory grows, and
// what other callers notice.
func attack(run func(ctx context.Context, t attacked) string) func(context.Context, *bench) (result, error) {
	return func(ctx context.Context, b *bench) (result, error) {
		c, err := b.start(ctx, 1)
		if err != nil {
			return result{}, err
		}
		defer c.Close()
		gateway := c.Masters()[0].Process("gateway")
		callers, closeAll, err := dialMany(c, victims)
		if err != nil {
			return result{}, err
		}
		defer closeAll()
		if err := fill(ctx, callers, victims); err != nil {
			return result{}, err
		}
		key, err := signingKey(ctx, c)
		if err != nil {
			return result{}, err
		}
		work := func(ctx context.Context, api apiv1.ResourceServiceClient, caller, _ int) error {
			defer pause(ctx, victimPause)
			_, err := api.Get(
				ctx,
				&apiv1.GetRequest{Object: &apiv1.ObjectReference{Kind: "ConfigMap", Namespace: "default", Name: fmt.Sprintf("stored-%d", caller)}},
			)
			return err
		}
		start, err := gateway.Usage()
		if err != nil {
			return result{}, err
		}
		idle, err := loadPaused(ctx, beforehand, callers, work)
		if err != nil {
			return result{}, err
		}
		before, err := gateway.Usage()
		if err != nil {
			return result{}, err
		}
		attackCtx, end := context.WithTimeout(ctx, b.attack)
		defer end()
		said := make(chan string, 1)
		go func() { said <- run(attackCtx, attacked{gateway.Address(), key}) }()
		most := make(chan int64, 1)
		go func() { most <- mostMemory(attackCtx, gateway) }()
		under, err := loadPaused(ctx, b.attack, callers, work)
		end()
		what, rss := <-said, <-most
		if err != nil {
			return result{}, fmt.Errorf("a caller's call failed under attack: %w", err)
		}
		after, err := gateway.Usage()
		if err != nil {
			return result{}, err
		}
		return result{
			figure: fmt.Sprintf("RSS %d MiB, at most %d (+%d); p99 %s, under attack %s", before.RSS/mebibyte, rss/mebibyte,
				(rss-before.RSS)/mebibyte, milliseconds(quantile(idle, .99)), milliseconds(quantile(under, .99))),
			notes: []string{
				fmt.Sprintf("%s for %s: %s; p50 %s, under attack %s; gateway's CPU-s per second %.2f, under attack %.2f", attackFrom.IP, b.attack, what,
					milliseconds(quantile(idle, .5)), milliseconds(quantile(under, .5)),
					(before.CPU-start.CPU).Seconds()/beforehand.Seconds(), (after.CPU-before.CPU).Seconds()/b.attack.Seconds()),
			},
		}, nil
	}
}

// signingKey returns the id of a public key.
func signingKey(ctx context.Context, c *cluster.Cluster) (string, error) {
	conn, err := c.Dial("gateway")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	keys, err := authv1.NewTokenServiceClient(conn).ListKeys(ctx, &authv1.ListKeysRequest{})
	if err != nil {
		return "", err
	}
	return keys.GetKeys()[0].GetId(), nil
}

// loadPaused is load without what the callers' pauses take.
func loadPaused(
	ctx context.Context,
	length time.Duration,
	callers []apiv1.ResourceServiceClient,
	call func(ctx context.Context, api apiv1.ResourceServiceClient, caller, n int) error,
) ([]time.Duration, error) {
	took, err := load(ctx, length, callers, call)
	for i := range took {
		took[i] -= victimPause
	}
	slices.Sort(took)
	return took, err
}

func mostMemory(ctx context.Context, p *cluster.Process) int64 {
	var most int64
	for ctx.Err() == nil {
		if u, err := p.Usage(); err == nil {
			most = max(most, u.RSS)
		}
		pause(ctx, sampleInterval)
	}
	return most
}

// stranger connects without a certificate.
func stranger(ctx context.Context, t attacked) (*edgetest.Conn, error) {
	return edgetest.Dial(ctx, attackFrom, t.address, &tls.Config{InsecureSkipVerify: true})
}

// unfinishedRequests opens 150 calls at a time whose requests lack the last byte, on a new
// connection whenever the gateway has closed the one before.
func unfinishedRequests(ctx context.Context, t attacked) string {
	const streams, size = 150, 4<<20 - 1
	connections, calls := 0, 0
	for ; ctx.Err() == nil; pause(ctx, attackPause) {
		c, err := stranger(ctx, t)
		if err != nil {
			continue
		}
		connections++
		var sending sync.WaitGroup
		for range streams {
			stream, err := c.Open(apiv1.ResourceService_Get_FullMethodName)
			if err != nil {
				break
			}
			calls++
			sending.Go(func() { _ = c.Send(ctx, stream, size, size-1) })
		}
		sending.Wait()
		select {
		case <-c.Done():
		case <-ctx.Done():
		}
		c.Close()
	}
	return fmt.Sprintf("%d calls on %d connections", calls, connections)
}

// idleConnections opens as many as 3,000 connections, 100 a second, and leaves them alone.
func idleConnections(ctx context.Context, t attacked) string {
	const most, perSecond = 3000, 100
	var group errgroup.Group
	group.SetLimit(most)
	made, taken := 0, 0
	var mu sync.Mutex
	for ; ctx.Err() == nil; pause(ctx, time.Second/perSecond) {
		made++
		group.TryGo(func() error {
			c, err := stranger(ctx, t)
			if err != nil {
				return nil //nolint:nilerr // a refused connection is counted by the gateway
			}
			mu.Lock()
			taken++
			mu.Unlock()
			select {
			case <-c.Done():
			case <-ctx.Done():
			}
			c.Close()
			return nil
		})
	}
	_ = group.Wait()
	return fmt.Sprintf("%d connections tried, %d got through the handshake", made, taken)
}

// invalidTokens makes 2,000 calls a second at most, each with another token that a key of the
// cluster seems to have signed.
func invalidTokens(ctx context.Context, t attacked) string {
	const batch, perSecond = 100, 2000
	encode := base64.RawURLEncoding.EncodeToString
	header := encode(fmt.Appendf(nil, `{"alg":"ES256","kid":%q,"typ":"JWT"}`, t.key))
	connections, calls := 0, 0
	for ; ctx.Err() == nil; pause(ctx, attackPause) {
		c, err := stranger(ctx, t)
		if err != nil {
			continue
		}
		connections++
		for closed := false; !closed && ctx.Err() == nil; pause(ctx, time.Second*batch/perSecond) {
			for range batch {
				calls++
				token := header + "." + encode(fmt.Appendf(nil, `{"sub":"system:serviceaccount:default:%d"}`, calls)) + "." + encode(make([]byte, 64))
				if _, err := c.Open(apiv1.ResourceService_Get_FullMethodName, "authorization", "Bearer "+token); err != nil {
					closed = true
					break
				}
			}
		}
		c.Close()
	}
	return fmt.Sprintf("%d calls on %d connections", calls, connections)
}
