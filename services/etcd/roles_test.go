package etcd

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/xebec-project/xebec/internal/edge"
	"github.com/xebec-project/xebec/internal/pki"
)

func service(name string) edge.Identity {
	return edge.Identity{User: pki.ServiceUser(name), Groups: []string{pki.GroupServices}}
}

func TestRolesOfCertificates(t *testing.T) {
	for _, tt := range []struct {
		id   edge.Identity
		all  bool // may do everything
		some bool // may do something
	}{
		{service("etcd"), true, true},
		{edge.Identity{User: "admin", Groups: []string{pki.GroupMasters}}, true, true},
		{service("apiserver"), false, true},
		{service("gateway"), false, true},
		{service("auth"), false, true},
		{service("cloud"), false, true},
		{service("a-service-of-tomorrow"), false, true},
		{edge.Identity{User: "xebec:etcd"}, false, false},
		{edge.Identity{User: "xebec:apiserver"}, false, false},
		{edge.Identity{User: "etcd", Groups: []string{pki.GroupServices}}, false, false},
		{edge.Identity{User: "system:node:node-1", Groups: []string{pki.GroupNodes}}, false, false},
		{service(""), false, false},
		{service("cloud/../apiserver"), false, false},
		{edge.Identity{}, false, false},
	} {
		r := roleOf(tt.id)
		if r.all != tt.all || (r.all || len(r.methods) > 0) != tt.some {
			t.Errorf("role of %+v is %+v", tt.id, r)
		}
		if err := r.mayCall(tt.id, pb.KV_Range_FullMethodName); (err == nil) != tt.some {
			t.Errorf("%+v may read: %v", tt.id, err)
		}
		if err := r.mayCall(tt.id, pb.KV_Compact_FullMethodName); (err == nil) != (tt.all || tt.id.User == pki.ServiceUser("apiserver") && tt.some) {
			t.Errorf("%+v may compact the past: %v", tt.id, err)
		}
		for _, method := range []string{
			pb.Lease_LeaseLeases_FullMethodName, pb.Cluster_MemberAdd_FullMethodName, pb.Maintenance_Snapshot_FullMethodName,
			pb.Maintenance_Defragment_FullMethodName, pb.Auth_AuthEnable_FullMethodName, pb.Auth_Authenticate_FullMethodName, "/v3lockpb.Lock/Lock",
			"/v3electionpb.Election/Campaign", "/no.such.Service/Method",
		} {
			if err := r.mayCall(tt.id, method); (err == nil) != tt.all {
				t.Errorf("%+v may call %s: %v", tt.id, method, err)
			}
		}
	}
}

func TestRolesOnKeys(t *testing.T) {
	const secret, tokens = "/xebec/registry/core/Secret/default/a", "/xebec/auth/token-keys"
	get := func(key, end string) any { return &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)} }
	prefix := func(key string) any { return get(key, clientv3.GetPrefixRangeEnd(key)) }
	put := func(key string) any { return &pb.PutRequest{Key: []byte(key)} }
	remove := func(key, end string) any { return &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)} }
	watch := func(key, end string) any {
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
	}
	op := func(m any) *pb.RequestOp {
		switch m := m.(type) {
		case *pb.RangeRequest:
			return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: m}}
		case *pb.PutRequest:
			return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: m}}
		case *pb.DeleteRangeRequest:
			return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: m}}
		default:
			return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: m.(*pb.TxnRequest)}}
		}
	}
	then := func(m any) any { return &pb.TxnRequest{Success: []*pb.RequestOp{op(m)}} }
	or := func(m any) any { return &pb.TxnRequest{Failure: []*pb.RequestOp{op(m)}} }
	when := func(key, end string) any {
		return &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte(key), RangeEnd: []byte(end)}}}
	}
	for name, tt := range map[string]struct {
		message any
		may     []string // of apiserver, auth, gateway, cloud
	}{
		"registrations":           {prefix("/xebec/services/"), []string{"apiserver", "auth", "gateway", "cloud"}},
		"one registration":        {get("/xebec/services/nodes/m", ""), []string{"apiserver", "auth", "gateway", "cloud"}},
		"watch registrations":     {watch("/xebec/services/", "/xebec/services0"), []string{"apiserver", "auth", "gateway", "cloud"}},
		"cancel a watch":          {&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{}}}, []string{"apiserver", "auth", "gateway", "cloud"}},
		"a secret":                {get(secret, ""), []string{"apiserver"}},
		"secrets":                 {prefix("/xebec/registry/core/Secret/"), []string{"apiserver"}},
		"all of Xebec":            {prefix("/xebec/"), []string{"apiserver"}},
		"watch all of Xebec":      {watch("/xebec/", "/xebec0"), []string{"apiserver"}},
		"all there is":            {get("\x00", "\x00"), nil},
		"from here on":            {get("/xebec/services/", "\x00"), nil},
		"watch from here on":      {watch("/xebec/services/", "\x00"), nil},
		"watch all there is":      {watch("", "\x00"), nil},
		"past the registrations":  {get("/xebec/services/", "/xebec/services1"), []string{"apiserver"}},
		"before registrations":    {get("/xebec/", "/xebec/services0"), []string{"apiserver"}},
		"an end before the key":   {get("/xebec/services/b", "/xebec/services/a"), nil},
		"beside Xebec":            {get("/other", ""), nil},
		"a name like the prefix":  {get("/xebec/services", ""), []string{"apiserver"}},
		"the keys of tokens":      {get(tokens, ""), []string{"apiserver", "auth"}},
		"watch keys of tokens":    {watch(tokens, ""), []string{"apiserver", "auth"}},
		"write the keys":          {put(tokens), []string{"auth"}},
		"compare and write them":  {&pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte(tokens)}}, Success: []*pb.RequestOp{op(put(tokens))}}, []string{"auth"}},
		"write a secret":          {put(secret), []string{"apiserver"}},
		"remove secrets":          {remove("/xebec/registry/core/Secret/", "/xebec/registry/core/Secret0"), []string{"apiserver"}},
		"remove all":              {remove("/xebec/", "/xebec0"), nil},
		"the epoch":               {put("/xebec/epoch"), []string{"apiserver"}},
		"beside the epoch":        {put("/xebec/epoch2"), nil},
		"a lease's owner":         {put("/xebec/leases/1f"), []string{"apiserver"}},
		"register cloud":          {put("/xebec/services/cloud/m"), []string{"cloud"}},
		"register the apiserver":  {put("/xebec/services/apiserver/m"), []string{"apiserver"}},
		"register like cloud":     {put("/xebec/services/cloud2/m"), nil},
		"take off cloud":          {remove("/xebec/services/cloud/m", ""), []string{"cloud"}},
		"take off all":            {remove("/xebec/services/", "/xebec/services0"), nil},
		"a secret, in a txn":      {then(get(secret, "")), []string{"apiserver"}},
		"a secret, otherwise":     {or(get(secret, "")), []string{"apiserver"}},
		"a secret, deep in a txn": {then(or(then(get(secret, "")))), []string{"apiserver"}},
		"compare a secret":        {when(secret, ""), []string{"apiserver"}},
		"compare all":             {when("/xebec/services/", "\x00"), nil},
		"write, in a txn":         {or(then(put(secret))), []string{"apiserver"}},
		"remove, in a txn":        {then(remove(secret, "")), []string{"apiserver"}},
		"an empty operation":      {&pb.TxnRequest{Success: []*pb.RequestOp{{}}}, []string{"apiserver", "auth", "gateway", "cloud"}},
	} {
		for _, name2 := range []string{"apiserver", "auth", "gateway", "cloud"} {
			id, want := service(name2), false
			for _, may := range tt.may {
				want = want || may == name2
			}
			if err := roleOf(id).mayAsk(id, tt.message); (err == nil) != want {
				t.Errorf("%s by %s: %v", name, name2, err)
			}
		}
	}
}

func TestLeasesOfMessages(t *testing.T) {
	put := func(lease int64) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Lease: lease}}}
	}
	nested := &pb.TxnRequest{Success: []*pb.RequestOp{put(3), {Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Failure: []*pb.RequestOp{put(2), put(3), put(0)}}}}}}
	if got := leasesOf(nested); len(got) != 2 || got[0] != 2 || got[1] != 3 {
		t.Errorf("leases %v", got)
	}
	if got := leasesOf(&pb.LeaseGrantRequest{ID: 1}); got != nil {
		t.Errorf("leases of a grant: %v", got)
	}
}

// BenchmarkGuard is what looking at a full group commit of the apiserver costs: 64 transactions of
// nine operations.
func BenchmarkGuard(b *testing.B) {
	key := []byte("/xebec/registry/core/Pod/default/web-7d9c5b8f6d-x2x4z")
	get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key}}}
	compare := &pb.Compare{Key: key}
	group := &pb.TxnRequest{}
	for range 64 {
		group.Success = append(group.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{
			Compare: []*pb.Compare{compare, compare, compare}, Success: []*pb.RequestOp{put, put, put}, Failure: []*pb.RequestOp{get, get, get}}}})
	}
	id := service("apiserver")
	for b.Loop() {
		if err := roleOf(id).mayAsk(id, group); err != nil {
			b.Fatal(err)
		}
	}
}
