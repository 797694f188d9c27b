package etcd

import (
	"bytes"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/discovery"
	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/pki"
	etcdv1 "github.com/xebec-project/xebec/proto/xebec/etcd/v1"
)

// The keys in etcd that roles are about. docs/storage.md lists all keys.
const (
	root         = "/xebec/"
	registryKeys = root + "registry/"
	leaseKeys    = root + "leases/"
	epochKey     = root + "epoch"
	clockKey     = root + "clock"
	authKeys     = root + "auth/"
)

// role is what a client of etcd may do. The zero role is that of a client that may do nothing.
type role struct {
	// all allows everything.
	all bool
	// read and write hold what may be read and written: prefixes, which end in a slash, and single
	// keys.
	read, write []string
	// leases allows every lease to be renewed and revoked. Without it those are allowed whose keys the
	// client may write.
	leases bool
	// methods are the calls that are allowed, by full name. What those of keys, watches and leases are
	// about is checked besides.
	methods []string
}

// keyMethods are what every role has.
var keyMethods = []string{
	pb.KV_Range_FullMethodName, pb.KV_RangeStream_FullMethodName, pb.KV_Put_FullMethodName, pb.KV_DeleteRange_FullMethodName,
	pb.KV_Txn_FullMethodName, pb.Watch_Watch_FullMethodName,
	pb.Lease_LeaseGrant_FullMethodName, pb.Lease_LeaseRevoke_FullMethodName, pb.Lease_LeaseKeepAlive_FullMethodName,
	healthpb.Health_Check_FullMethodName, healthpb.Health_Watch_FullMethodName,
}

// adminPrefix begins the methods that a member answers for a gateway, on behalf of an
// administrator.
const adminPrefix = "/xebec.etcd.v1.EtcdService/"

// roleOf returns the role of the holder of a certificate of etcd's authority. Every service may
// register itself and find the others; the apiserver, auth and the gateway may do more. Everything
// is allowed to etcd's members, and to a certificate of the group system:masters, which an
// administrator can make in an emergency.
func roleOf(id edge.Identity) role {
	if id.User == pki.ServiceUser(pki.EtcdMember) && id.Member(pki.GroupServices) || id.Member(pki.GroupMasters) {
		return role{all: true}
	}
	service, ok := strings.CutPrefix(id.User, pki.ServiceUserPrefix)
	if !ok || service == "" || strings.Contains(service, "/") || !id.Member(pki.GroupServices) {
		return role{}
	}
	r := role{read: []string{discovery.Prefix}, write: []string{discovery.Prefix + service + "/"}, methods: keyMethods}
	switch service {
	case "apiserver":
		// One watch on all keys fills its cache.
		r.read = []string{root}
		r.write = append(r.write, registryKeys, leaseKeys, epochKey, clockKey)
		r.leases = true
		// It compacts the past, after a look at how much etcd uses.
		r.methods = append(slices.Clone(keyMethods), pb.Lease_LeaseTimeToLive_FullMethodName,
			pb.KV_Compact_FullMethodName, pb.Maintenance_Status_FullMethodName)
	case "auth":
		r.read, r.write = append(r.read, authKeys), append(r.write, authKeys)
	case "gateway":
		r.methods = append(slices.Clone(keyMethods), pb.Cluster_MemberList_FullMethodName, pb.Maintenance_Status_FullMethodName)
		for _, m := range etcdv1.EtcdService_ServiceDesc.Methods {
			r.methods = append(r.methods, adminPrefix+m.MethodName)
		}
		for _, m := range etcdv1.EtcdService_ServiceDesc.Streams {
			r.methods = append(r.methods, adminPrefix+m.StreamName)
		}
	}
	return r
}

// mayCall returns an error unless the role allows the method.
func (r role) mayCall(id edge.Identity, method string) error {
	if r.all || slices.Contains(r.methods, method) {
		return nil
	}
	return apierr.Denied("etcd: %q may not call %s", id.User, method)
}

// mayAsk returns an error unless the role allows what a message of a call asks for. It does not
// check leases.
func (r role) mayAsk(id edge.Identity, message any) error {
	if r.all {
		return nil
	}
	reads := func(key, end []byte) error { return permit(id, "read", r.read, key, end) }
	writes := func(key, end []byte, previous bool) error {
		if previous {
			if err := reads(key, end); err != nil {
				return err
			}
		}
		return permit(id, "write", r.write, key, end)
	}
	switch m := message.(type) {
	case *pb.RangeRequest:
		return reads(m.GetKey(), m.GetRangeEnd())
	case *pb.PutRequest:
		return writes(m.GetKey(), nil, m.GetPrevKv())
	case *pb.DeleteRangeRequest:
		return writes(m.GetKey(), m.GetRangeEnd(), m.GetPrevKv())
	case *pb.WatchRequest:
		if create := m.GetCreateRequest(); create != nil {
			return reads(create.GetKey(), create.GetRangeEnd())
		}
	case *pb.TxnRequest:
		for _, c := range m.GetCompare() {
			if err := reads(c.GetKey(), c.GetRangeEnd()); err != nil {
				return err
			}
		}
		for _, ops := range [][]*pb.RequestOp{m.GetSuccess(), m.GetFailure()} {
			for _, op := range ops {
				if err := r.mayAsk(id, operation(op)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// leasesOf returns the leases that a message renews, revokes or puts keys under.
func leasesOf(message any) []int64 {
	switch m := message.(type) {
	case *pb.LeaseRevokeRequest:
		return []int64{m.GetID()}
	case *pb.LeaseKeepAliveRequest:
		return []int64{m.GetID()}
	case *pb.PutRequest:
		if m.GetLease() != 0 {
			return []int64{m.GetLease()}
		}
	case *pb.TxnRequest:
		var leases []int64
		for _, op := range slices.Concat(m.GetSuccess(), m.GetFailure()) {
			leases = append(leases, leasesOf(operation(op))...)
		}
		slices.Sort(leases)
		return slices.Compact(leases)
	}
	return nil
}

// operation returns the request inside an operation of a transaction, nil when there is none.
func operation(op *pb.RequestOp) any {
	switch o := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return o.RequestRange
	case *pb.RequestOp_RequestPut:
		return o.RequestPut
	case *pb.RequestOp_RequestDeleteRange:
		return o.RequestDeleteRange
	case *pb.RequestOp_RequestTxn:
		return o.RequestTxn
	}
	return nil
}

// permit returns an error unless one of allowed holds all keys from key up to end, or key alone
// when end is empty.
func permit(id edge.Identity, what string, allowed []string, key, end []byte) error {
	for _, a := range allowed {
		if covers(a, key, end) {
			return nil
		}
	}
	to := ""
	if len(end) > 0 {
		to = " and the keys after it"
	}
	return apierr.Denied("etcd: %q may not %s %.200q%s", id.User, what, key, to)
}

// covers says whether a prefix that ends in a slash, or a single key, holds all keys from key up to
// end.
func covers(allowed string, key, end []byte) bool {
	if !strings.HasSuffix(allowed, "/") {
		return string(key) == allowed && len(end) == 0
	}
	if !bytes.HasPrefix(key, []byte(allowed)) {
		return false
	}
	// 0 follows the slash in ASCII, so this is the first key past the prefix. An end before the key,
	// such as "\x00", means all keys or none to etcd.
	past := append([]byte(allowed[:len(allowed)-1]), '0')
	return len(end) == 0 || bytes.Compare(key, end) < 0 && bytes.Compare(end, past) <= 0
}
