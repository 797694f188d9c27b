package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	miekg "github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

const (
	// attemptTimeout is for one query to one resolver.
	attemptTimeout = 2 * time.Second
	// forwardTimeout is for all attempts; stub resolvers wait for five seconds.
	forwardTimeout = 4 * time.Second
	// maxForwards is the maximum number of upstream queries in flight.
	maxForwards = 512
	// bufferSize is the largest answer taken and given by UDP without fragments.
	bufferSize = 1232
)

var errNoUpstream = errors.New("no upstream resolver")

// forwarder forwards queries for names outside the cluster to the node's resolvers.
type forwarder struct {
	upstreams []netip.AddrPort
	metrics   *Metrics
	// preferred is the index of the resolver that answered last.
	preferred atomic.Int32
	slots     chan struct{}
	// Equal queries share one exchange. This also breaks loops: a query that a resolver sends back to
	// this server joins the original one.
	flights singleflight.Group
}

func newForwarder(upstreams []netip.AddrPort, m *Metrics) *forwarder {
	return &forwarder{upstreams: upstreams, metrics: m, slots: make(chan struct{}, maxForwards)}
}

// exchange returns the answer to a question.
func (f *forwarder) exchange(ctx context.Context, req *miekg.Msg) (*miekg.Msg, error) {
	if len(f.upstreams) == 0 {
		return nil, errNoUpstream
	}
	q := req.Question[0]
	dnssec := false
	if opt := req.IsEdns0(); opt != nil {
		dnssec = opt.Do()
	}
	id := fmt.Sprintf("%s/%d/%d/%t/%t", strings.ToLower(q.Name), q.Qtype, q.Qclass, dnssec, req.CheckingDisabled)
	result := f.flights.DoChan(id, func() (any, error) {
		select {
		case f.slots <- struct{}{}:
			defer func() { <-f.slots }()
		default:
			return nil, errors.New("too many queries in flight")
		}
		// The first caller may leave while others still wait for the response.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forwardTimeout)
		defer cancel()
		return f.ask(ctx, q, dnssec, req.CheckingDisabled)
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-result:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*miekg.Msg).Copy(), nil // each caller packs its own
	}
}

// ask tries the resolvers one after the other, the last that responded first.
func (f *forwarder) ask(ctx context.Context, q miekg.Question, dnssec, checkingDisabled bool) (*miekg.Msg, error) {
	msg := new(miekg.Msg)
	msg.SetQuestion(q.Name, q.Qtype)
	msg.Question[0].Qclass = q.Qclass
	msg.CheckingDisabled = checkingDisabled
	msg.SetEdns0(bufferSize, dnssec)

	first := int(f.preferred.Load())
	var errs []error
	for i := range f.upstreams {
		index := (first + i) % len(f.upstreams)
		began := time.Now()
		resp, err := attempt(ctx, msg, f.upstreams[index])
		if err == nil && (resp.Rcode == miekg.RcodeServerFailure || resp.Rcode == miekg.RcodeRefused) {
			err = fmt.Errorf("answered %s", miekg.RcodeToString[resp.Rcode])
		}
		f.metrics.asked(began, err)
		if err == nil {
			f.preferred.Store(int32(index))
			return resp, nil
		}
		errs = append(errs, fmt.Errorf("resolver %v: %w", f.upstreams[index], err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func attempt(ctx context.Context, msg *miekg.Msg, upstream netip.AddrPort) (*miekg.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	resp, err := exchangeBy(ctx, "udp", msg, upstream)
	if err == nil && resp.Truncated {
		return exchangeBy(ctx, "tcp", msg, upstream)
	}
	return resp, err
}

// exchangeBy queries from a new socket, with a random port and ID: responses are hard to forge.
func exchangeBy(ctx context.Context, network string, msg *miekg.Msg, upstream netip.AddrPort) (*miekg.Msg, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, upstream.String())
	if err != nil {
		return nil, err
	}
	msg = msg.Copy()
	msg.Id = miekg.Id()
	client := miekg.Client{Net: network, UDPSize: bufferSize}
	c := &miekg.Conn{Conn: conn, UDPSize: bufferSize}
	defer c.Close()
	resp, _, err := client.ExchangeWithConnContext(ctx, msg, c)
	if err != nil {
		return nil, err
	}
	if len(resp.Question) != 1 || !strings.EqualFold(resp.Question[0].Name, msg.Question[0].Name) ||
		resp.Question[0].Qtype != msg.Question[0].Qtype {
		return nil, errors.New("response does not match the query")
	}
	return resp, nil
}
