package etcdadmin_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap/zaptest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/etcdadmin"
	"github.com/xebec-project/xebec/internal/etcdtest"
	etcdv1 "github.com/xebec-project/xebec/proto/xebec/etcd/v1"
)

// serve returns a client of the service over a loopback connection.
func serve(t *testing.T, client *clientv3.Client) etcdv1.EtcdServiceClient {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	etcdv1.RegisterEtcdServiceServer(server, etcdadmin.New(client))
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-done })
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return etcdv1.NewEtcdServiceClient(conn)
}

func wantRefusal(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	if apierr.Code(err) != code || apierr.Reason(err) != reason {
		t.Errorf("got %v (reason %q), want %v with %s", err, apierr.Reason(err), code, reason)
	}
}

func leader(t *testing.T, ctx context.Context, service etcdv1.EtcdServiceClient) *etcdv1.MemberStatus {
	t.Helper()
	for {
		status, err := service.Status(ctx, &etcdv1.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.IndexFunc(status.GetMembers(), (*etcdv1.MemberStatus).GetLeader); i >= 0 {
			return status.GetMembers()[i]
		}
		if ctx.Err() != nil {
			t.Fatalf("no member leads: %v", status)
		}
	}
}

func TestMembers(t *testing.T) {
	cluster := etcdtest.New(t, 3)
	service := serve(t, cluster.Client())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	status, err := service.Status(ctx, &etcdv1.StatusRequest{})
	if err != nil || len(status.GetMembers()) != 3 {
		t.Fatalf("got %v, %v", status, err)
	}
	for _, m := range status.GetMembers() {
		if m.GetError() != "" || m.GetDbSizeBytes() == 0 || m.GetVersion() == "" || m.GetRaftAppliedIndex() == 0 || m.GetMember().GetLearner() {
			t.Errorf("status %v", m)
		}
	}
	was := leader(t, ctx, service)
	moved, err := service.MoveLeader(ctx, &etcdv1.MoveLeaderRequest{})
	if err != nil || moved.GetLeader().GetId() == was.GetMember().GetId() {
		t.Fatalf("leadership of %v went to %v, %v", was, moved, err)
	}
	if now := leader(t, ctx, service); now.GetMember().GetId() != moved.GetLeader().GetId() {
		t.Errorf("%v leads, want %v", now, moved)
	}
	again, err := service.MoveLeader(ctx, &etcdv1.MoveLeaderRequest{Member: was.GetMember().GetId()})
	if err != nil || again.GetLeader().GetName() != was.GetMember().GetName() {
		t.Errorf("moved to %v, %v", again, err)
	}
	if resp, err := service.Defragment(ctx, &etcdv1.DefragmentRequest{Member: was.GetMember().GetName()}); err != nil || resp.GetAfterBytes() == 0 {
		t.Errorf("defragment: %v, %v", resp, err)
	}

	t.Run("nonsense", func(t *testing.T) {
		_, err := service.RemoveMember(ctx, &etcdv1.RemoveMemberRequest{})
		wantRefusal(t, err, codes.InvalidArgument, apierr.ReasonBadRequest)
		_, err = service.RemoveMember(ctx, &etcdv1.RemoveMemberRequest{Member: "unknown"})
		wantRefusal(t, err, codes.NotFound, apierr.ReasonNotFound)
		_, err = service.MoveLeader(ctx, &etcdv1.MoveLeaderRequest{Member: "unknown"})
		wantRefusal(t, err, codes.NotFound, apierr.ReasonNotFound)
		for _, urls := range [][]string{nil, {"10.0.0.1:2380"}, {"https://10.0.0.1"}, {"https://10.0.0.1:2380/x"}} {
			_, err = service.AddMember(ctx, &etcdv1.AddMemberRequest{PeerUrls: urls})
			wantRefusal(t, err, codes.InvalidArgument, apierr.ReasonBadRequest)
		}
		_, err = service.AddMember(ctx, &etcdv1.AddMemberRequest{PeerUrls: status.GetMembers()[0].GetMember().GetPeerUrls()})
		wantRefusal(t, err, codes.AlreadyExists, apierr.ReasonAlreadyExists)
		_, err = service.PromoteMember(ctx, &etcdv1.PromoteMemberRequest{Member: was.GetMember().GetName()})
		wantRefusal(t, err, codes.FailedPrecondition, etcdadmin.ReasonEtcd)
	})

	t.Run("a lost member is removed and a learner added", func(t *testing.T) {
		lost := cluster.Members()[2]
		lost.Kill()
		// Another one gone would leave no quorum.
		_, err := service.RemoveMember(ctx, &etcdv1.RemoveMemberRequest{Member: cluster.Members()[0].Name()})
		wantRefusal(t, err, codes.FailedPrecondition, etcdadmin.ReasonEtcd)
		var left *etcdv1.RemoveMemberResponse
		for {
			// Its own leader may be elected first.
			if left, err = service.RemoveMember(ctx, &etcdv1.RemoveMemberRequest{Member: lost.Name()}); err == nil || ctx.Err() != nil {
				break
			}
		}
		if err != nil || len(left.GetMembers()) != 2 {
			t.Fatalf("left %v, %v", left, err)
		}
		added, err := service.AddMember(ctx, &etcdv1.AddMemberRequest{PeerUrls: []string{"http://127.0.0.1:1"}, Learner: true})
		if err != nil || !added.GetMember().GetLearner() || len(added.GetMembers()) != 3 {
			t.Fatalf("added %v, %v", added, err)
		}
		_, err = service.PromoteMember(ctx, &etcdv1.PromoteMemberRequest{Member: added.GetMember().GetId()})
		wantRefusal(t, err, codes.FailedPrecondition, etcdadmin.ReasonEtcd)
		members, err := service.ListMembers(ctx, &etcdv1.ListMembersRequest{})
		if err != nil || !slices.ContainsFunc(members.GetMembers(), func(m *etcdv1.Member) bool { return m.GetLearner() && m.GetName() == "" }) {
			t.Errorf("members %v, %v", members, err)
		}
	})
}

func TestSnapshot(t *testing.T) {
	cluster := etcdtest.New(t, 1)
	client := cluster.Client()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, key := range []string{"a", "b", "c"} {
		if _, err := client.Put(ctx, key, string(make([]byte, 200<<10))); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := serve(t, client).Snapshot(ctx, &etcdv1.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || first.GetHeader().GetMember() == "" || first.GetHeader().GetExpectedBytes() == 0 {
		t.Fatalf("header %v, %v", first, err)
	}
	name := filepath.Join(t.TempDir(), "snapshot.db")
	var all []byte
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, part.GetChunk()...)
	}
	if err := os.WriteFile(name, all, 0o600); err != nil {
		t.Fatal(err)
	}
	status, err := snapshot.NewV3(zaptest.NewLogger(t)).Status(name)
	if err != nil || status.TotalKey < 3 {
		t.Errorf("the snapshot holds %+v, %v", status, err)
	}
}

func TestAlarm(t *testing.T) {
	cluster := etcdtest.New(t, 1, etcdtest.Quota(1<<20))
	client := cluster.Client()
	service := serve(t, client)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		if _, err := client.Put(ctx, "k", string(make([]byte, 500<<10))); err != nil {
			break
		}
	}
	status, err := service.Status(ctx, &etcdv1.StatusRequest{})
	if err != nil || !slices.Equal(status.GetMembers()[0].GetAlarms(), []string{"NOSPACE"}) || status.GetMembers()[0].GetError() == "" {
		t.Fatalf("status %v, %v", status, err)
	}
	cluster.Compact()
	if _, err := service.Defragment(ctx, &etcdv1.DefragmentRequest{Member: status.GetMembers()[0].GetMember().GetName()}); err != nil {
		t.Fatal(err)
	}
	disarmed, err := service.DisarmAlarms(ctx, &etcdv1.DisarmAlarmsRequest{})
	if err != nil || len(disarmed.GetDisarmed()) != 1 {
		t.Fatalf("disarmed %v, %v", disarmed, err)
	}
	if _, err := client.Put(ctx, "k", "v"); err != nil {
		t.Errorf("writes are not back: %v", err)
	}
}
