package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/resolver"

	"github.com/xebec-project/xebec/internal/metrics"
)

// Directory follows the instances of all services. It resolves gRPC targets such as
// "xebec:///apiserver". While etcd can't be reached, and when the last instance of a service goes,
// the addresses known last stay in use: to try them costs little, and to forget them would turn an
// outage of etcd into one of everything.
//
// It is safe for concurrent use. Nothing runs before the first target is resolved.
type Directory struct {
	client *clientv3.Client
	log    *zap.Logger

	start  sync.Once
	cancel context.CancelFunc
	ctx    context.Context
	done   chan struct{}

	mu        sync.Mutex
	instances map[string]Instance // by key
	lapsed    map[string]Lapsed   // by key
	revision  int64               // etcd's, of which instances are
	listed    bool                // whether instances was read at least once
	err       error               // why the last read failed
	followers map[*follower]struct{}
}

// New returns a directory that reads through client. Close releases it.
func New(client *clientv3.Client, log *zap.Logger) *Directory {
	ctx, cancel := context.WithCancel(context.Background())
	return &Directory{
		client:    client,
		log:       log,
		ctx:       ctx,
		cancel:    cancel,
		done:      make(chan struct{}),
		instances: make(map[string]Instance),
		lapsed:    make(map[string]Lapsed),
		followers: make(map[*follower]struct{}),
	}
}

// Close ends the watch and waits for it. Connections keep the addresses they have.
func (d *Directory) Close() {
	d.cancel()
	d.start.Do(func() { close(d.done) })
	<-d.done
}

// Instances reads the instances of all services from etcd, by service and host. Targets that are
// resolved later know at least these.
func (d *Directory) Instances(ctx context.Context) ([]Instance, error) {
	bounded, cancel := context.WithTimeout(ctx, instancesTimeout)
	defer cancel()
	instances, revision, err := d.read(bounded)
	if err != nil {
		return nil, err
	}
	list := sorted(instances)
	d.mu.Lock()
	defer d.mu.Unlock()
	if revision > d.revision {
		d.replace(instances, revision)
	}
	return list, nil
}

// lapsedFor is how long instances are remembered that are listed no more.
const lapsedFor = 10 * time.Minute

// Lapsed is an instance that was listed and is no more: it has stopped, or etcd has not heard from
// it.
type Lapsed struct {
	Instance
	// Since is when that was noticed.
	Since time.Time
}

// lapse remembers an instance that is about to be forgotten. Callers hold d.mu.
func (d *Directory) lapse(key string) {
	if instance, ok := d.instances[key]; ok {
		d.lapsed[key] = Lapsed{instance, time.Now()}
	}
}

// Lapsed returns the instances that were listed within the last ten minutes and are no more, by
// service and host.
func (d *Directory) Lapsed() []Lapsed {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []Lapsed
	for key, l := range d.lapsed {
		if time.Since(l.Since) > lapsedFor {
			delete(d.lapsed, key)
			continue
		}
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b Lapsed) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Host, b.Host))
	})
	return list
}

// Hosts returns on which hosts each service has an instance, as it is known without asking etcd;
// nil while what is known may be out of date.
func (d *Directory) Hosts() map[string][]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.listed || d.err != nil {
		return nil
	}
	hosts := map[string][]string{}
	for _, instance := range sorted(d.instances) {
		hosts[instance.Service] = append(hosts[instance.Service], instance.Host)
	}
	return hosts
}

func sorted(instances map[string]Instance) []Instance {
	list := make([]Instance, 0, len(instances))
	for _, instance := range instances {
		list = append(list, instance)
	}
	slices.SortFunc(list, func(a, b Instance) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Host, b.Host))
	})
	return list
}

func (d *Directory) read(ctx context.Context) (map[string]Instance, int64, error) {
	resp, err := d.client.Get(ctx, Prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, 0, fmt.Errorf("list the instances of services in etcd: %w", err)
	}
	instances := make(map[string]Instance, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		d.put(instances, kv.Key, kv.Value)
	}
	return instances, resp.Header.Revision, nil
}

func (d *Directory) put(instances map[string]Instance, key, value []byte) {
	instance, err := decode(key, value)
	if err != nil {
		d.log.Warn("Ignored an unreadable registration", zap.ByteString(metrics.KeyKey, key), zap.Error(err))
		return
	}
	instances[string(key)] = instance
}

// follow keeps instances up to date until Close.
func (d *Directory) follow() {
	defer close(d.done)
	pauses, limit := newBackoff(), timeout(0)
	for d.ctx.Err() == nil {
		short, end := limit.with(d.ctx)
		instances, revision, err := d.read(short)
		end()
		if err == nil {
			// Whatever was known before: etcd may have gone back to a backup, and its revisions with it.
			d.mu.Lock()
			d.replace(instances, revision)
			d.mu.Unlock()
			pauses.Reset()
			limit.reset()
			err = d.watch(revision + 1)
		}
		if d.ctx.Err() != nil {
			return
		}
		d.log.Info("Service discovery is interrupted; the instances known last stay in use", zap.Error(err))
		d.fail(err)
		_ = pauses.Wait(d.ctx, err) // the loop sees that d.ctx has ended
	}
}

// watch applies changes until it fails.
func (d *Directory) watch(revision int64) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(d.ctx))
	defer cancel()
	for resp := range d.client.Watch(ctx, Prefix, clientv3.WithPrefix(), clientv3.WithRev(revision)) {
		if err := resp.Err(); err != nil {
			return fmt.Errorf("watch the instances of services in etcd: %w", err)
		}
		d.mu.Lock()
		for _, event := range resp.Events {
			if event.Kv.ModRevision <= d.revision {
				continue
			}
			key := string(event.Kv.Key)
			if event.Type == clientv3.EventTypeDelete {
				d.lapse(key)
				delete(d.instances, key)
			} else {
				d.put(d.instances, event.Kv.Key, event.Kv.Value)
				delete(d.lapsed, key)
			}
		}
		if n := len(resp.Events); n > 0 {
			d.revision = max(d.revision, resp.Events[n-1].Kv.ModRevision)
		}
		d.tellAll()
		d.mu.Unlock()
	}
	return errors.New("watch the instances of services in etcd: the watch ended")
}

// replace makes instances, as they were at a revision of etcd, the ones that are known. Callers
// hold d.mu.
func (d *Directory) replace(instances map[string]Instance, revision int64) {
	for key := range d.instances {
		if _, still := instances[key]; !still {
			d.lapse(key)
		}
	}
	for key := range instances {
		delete(d.lapsed, key)
	}
	d.instances, d.revision, d.listed, d.err = instances, revision, true, nil
	d.tellAll()
}

func (d *Directory) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
	d.tellAll()
}

func (d *Directory) tellAll() {
	for f := range d.followers {
		d.tell(f)
	}
}

// tell hands a follower the addresses of its service. Callers hold d.mu, which puts the updates in
// order.
func (d *Directory) tell(f *follower) {
	var addresses []string
	for _, instance := range d.instances {
		if instance.Service == f.service {
			addresses = append(addresses, instance.Addr)
		}
	}
	slices.Sort(addresses)
	switch {
	case len(addresses) > 0:
		if slices.Equal(addresses, f.addresses) {
			return
		}
		f.addresses = addresses
		f.found(addresses)
	case len(f.addresses) > 0:
		// The addresses known last stay.
	case d.err != nil:
		f.failed(d.err)
	case d.listed:
		f.failed(fmt.Errorf("no instance of service %q is registered", f.service))
	}
}

// Scheme returns "xebec"; with Build it makes a Directory a gRPC resolver.Builder.
func (d *Directory) Scheme() string { return "xebec" }

// Build begins to resolve a target of the form "xebec:///service".
func (d *Directory) Build(target resolver.Target, conn resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	service := target.Endpoint()
	if service == "" || strings.Contains(service, "/") {
		return nil, fmt.Errorf("target %q does not name a service as xebec:///service does", target.URL.String())
	}
	found := func(addresses []string) {
		state := resolver.State{Endpoints: make([]resolver.Endpoint, len(addresses))}
		for i, address := range addresses {
			state.Endpoints[i].Addresses = []resolver.Address{{Addr: address}}
		}
		// The balancer's complaint shows in the calls; there is nothing to do about it here.
		_ = conn.UpdateState(state)
	}
	return d.add(&follower{directory: d, service: service, found: found, failed: conn.ReportError}), nil
}

// Follow calls found with the addresses of a service's instances, sorted, when they are known and
// whenever they change, until ctx ends. The calls come one after the other; found must not block,
// nor call the directory.
func (d *Directory) Follow(ctx context.Context, service string, found func(addresses []string)) {
	f := d.add(&follower{directory: d, service: service, found: found, failed: func(error) {}})
	<-ctx.Done()
	f.Close()
}

func (d *Directory) add(f *follower) *follower {
	d.mu.Lock()
	d.followers[f] = struct{}{}
	d.tell(f)
	d.mu.Unlock()
	d.start.Do(func() { go d.follow() })
	return f
}

// follower receives the instances of one service. It is the resolver of one connection, or a call
// of Follow.
type follower struct {
	directory *Directory
	service   string
	found     func(addresses []string)
	failed    func(error)
	addresses []string // received last; guarded by directory.mu
}

// ResolveNow has nothing to do: the directory watches for changes.
func (f *follower) ResolveNow(resolver.ResolveNowOptions) {}

func (f *follower) Close() {
	f.directory.mu.Lock()
	defer f.directory.mu.Unlock()
	delete(f.directory.followers, f)
}
