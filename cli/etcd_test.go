package cli

import (
	"context"
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/internal/apierr"
	etcdv1 "github.com/xebec-project/xebec/proto/xebec/etcd/v1"
)

// fakeEtcd has the members that a test sets, and a snapshot.
type fakeEtcd struct {
	etcdv1.UnimplementedEtcdServiceServer
	members  []*etcdv1.MemberStatus
	snapshot []byte
	calls    []string
}

func (e *fakeEtcd) list() []*etcdv1.Member {
	var out []*etcdv1.Member
	for _, m := range e.members {
		out = append(out, m.GetMember())
	}
	return out
}

func (e *fakeEtcd) Status(context.Context, *etcdv1.StatusRequest) (*etcdv1.StatusResponse, error) {
	return &etcdv1.StatusResponse{Members: e.members}, nil
}

func (e *fakeEtcd) ListMembers(context.Context, *etcdv1.ListMembersRequest) (*etcdv1.ListMembersResponse, error) {
	return &etcdv1.ListMembersResponse{Members: e.list()}, nil
}

func (e *fakeEtcd) AddMember(_ context.Context, req *etcdv1.AddMemberRequest) (*etcdv1.AddMemberResponse, error) {
	added := &etcdv1.Member{Id: "dd", PeerUrls: req.GetPeerUrls(), Learner: req.GetLearner()}
	return &etcdv1.AddMemberResponse{Member: added, Members: append(e.list(), added)}, nil
}

func (e *fakeEtcd) PromoteMember(context.Context, *etcdv1.PromoteMemberRequest) (*etcdv1.PromoteMemberResponse, error) {
	return nil, apierr.FailedPrecondition("ETCD_STATE", "etcd", "it has not caught up yet")
}

func (e *fakeEtcd) RemoveMember(_ context.Context, req *etcdv1.RemoveMemberRequest) (*etcdv1.RemoveMemberResponse, error) {
	left := slices.DeleteFunc(e.list(), func(m *etcdv1.Member) bool { return m.GetName() == req.GetMember() })
	return &etcdv1.RemoveMemberResponse{Members: left}, nil
}

func (e *fakeEtcd) Defragment(_ context.Context, req *etcdv1.DefragmentRequest) (*etcdv1.DefragmentResponse, error) {
	e.calls = append(e.calls, req.GetMember())
	return &etcdv1.DefragmentResponse{BeforeBytes: 3 << 20, AfterBytes: 1 << 20}, nil
}

func (e *fakeEtcd) Snapshot(_ *etcdv1.SnapshotRequest, stream grpc.ServerStreamingServer[etcdv1.SnapshotResponse]) error {
	if e.snapshot == nil {
		return apierr.New(codes.PermissionDenied, apierr.ReasonForbidden, "not for you")
	}
	header := &etcdv1.SnapshotHeader{Member: "master-2", ExpectedBytes: int64(len(e.snapshot)), Version: "3.7.3"}
	if err := stream.Send(&etcdv1.SnapshotResponse{Part: &etcdv1.SnapshotResponse_Header{Header: header}}); err != nil {
		return err
	}
	// Parts of odd sizes, some shorter than the sum.
	for chunk := range slices.Chunk(e.snapshot, 17) {
		if err := stream.Send(&etcdv1.SnapshotResponse{Part: &etcdv1.SnapshotResponse_Chunk{Chunk: chunk}}); err != nil {
			return err
		}
	}
	return nil
}

func withEtcd(t *testing.T) *fakeCluster {
	c := startCluster(t)
	member := func(id, name string) *etcdv1.Member {
		return &etcdv1.Member{Id: id, Name: name, PeerUrls: []string{"https://" + name + ":2380"}, ClientUrls: []string{"https://" + name + ":2379"}}
	}
	c.etcd.members = []*etcdv1.MemberStatus{
		{Member: member("aa", "master-1"), Leader: true, DbSizeBytes: 3 << 20, DbSizeInUseBytes: 1 << 20, DbSizeQuotaBytes: 8 << 30, RaftTerm: 4, RaftIndex: 120, RaftAppliedIndex: 120, Version: "3.7.3"},
		{Member: member("bb", "master-2"), DbSizeBytes: 3 << 20, RaftTerm: 4, RaftIndex: 120, RaftAppliedIndex: 119, Version: "3.7.3", Alarms: []string{"NOSPACE"}, Error: "alarm NOSPACE"},
		{Member: &etcdv1.Member{Id: "cc", PeerUrls: []string{"https://master-3:2380"}, Learner: true}, Error: "it has not started yet"},
	}
	return c
}

func TestEtcdMembers(t *testing.T) {
	c := withEtcd(t)
	c.run(t, "etcd", "status").golden(t, "etcd-status")
	c.run(t, "etcd", "members").golden(t, "etcd-members")
	if r := c.run(t, "etcd", "status", "--check"); r.code != exit.Failed {
		t.Errorf("check ended with %d", r.code)
	}
	c.run(t, "etcd", "members", "list", "-o", "jsonpath={.members[2].learner}").want(t, exit.OK, "true")
	c.run(t, "etcd", "members", "add", "master-3", "--peer-url=https://10.0.0.13:2380", "--learner").golden(t, "etcd-members-add")
	c.run(t, "etcd", "members", "add", "master-3", "--peer-url=https://10.0.0.13:2380", "-o", "jsonpath={.initialCluster[0]} {.initialCluster[3]}").
		want(t, exit.OK, "master-1=https://master-1:2380 master-3=https://10.0.0.13:2380")
	c.run(t, "etcd", "members", "promote", "master-3").want(t, exit.Failed, "", "has not caught up")
	c.run(t, "etcd", "members", "remove", "master-2").want(t, exit.OK, "member master-2 removed, 2 remain\n")
	c.run(t, "etcd", "members", "drop").want(t, exit.Usage, "", "unknown command")
	c.run(t, "etcd", "defrag").want(t, exit.Usage, "", "--all")
	c.run(t, "etcd", "defrag", "--all").want(t, exit.OK, "master-2: 3.0 MiB before, 1.0 MiB after\nmaster-1: 3.0 MiB before, 1.0 MiB after\n")
	if !slices.Equal(c.etcd.calls, []string{"master-2", "master-1"}) {
		t.Errorf("defragmented %v, want the leader last", c.etcd.calls)
	}
}

func TestEtcdSnapshot(t *testing.T) {
	c := withEtcd(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "backup.db")
	c.run(t, "etcd", "snapshot", file).want(t, exit.Failed, "", "not for you")

	data := []byte(strings.Repeat("etcd", 1024))
	sum := sha256.Sum256(data)
	c.etcd.snapshot = append(data, sum[:]...)
	c.run(t, "etcd", "snapshot", file).want(t, exit.OK, file+": 4.0 KiB from member master-2, etcd 3.7.3, checksum verified\n")
	got, err := os.ReadFile(file)
	if err != nil || !slices.Equal(got, c.etcd.snapshot) {
		t.Fatalf("%d bytes saved, %v", len(got), err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others can read it: %v, %v", info.Mode(), err)
	}
	c.run(t, "etcd", "snapshot", file).want(t, exit.Failed, "", "--overwrite")
	c.run(t, "etcd", "snapshot", file, "--overwrite").want(t, exit.OK, file+": 4.0 KiB from member master-2, etcd 3.7.3, checksum verified\n")
	if r := c.run(t, "etcd", "restore", file); r.code != exit.OK || !strings.Contains(r.out, "checksum verified") {
		t.Errorf("restore: %+v", r)
	}

	for name, spoil := range map[string]func([]byte) []byte{
		"cut":                func(b []byte) []byte { return b[:len(b)-512] },
		"changed":            func(b []byte) []byte { b[100]++; return b },
		"empty":              func([]byte) []byte { return []byte{} },
		"without a checksum": func(b []byte) []byte { return b[:len(b)-32] },
	} {
		t.Run(name, func(t *testing.T) {
			spoilt := spoil(slices.Clone(c.etcd.snapshot))
			if r := c.run(t, "etcd", "restore", writeFile(t, "spoilt.db", string(spoilt))); r.code != exit.Failed || !strings.Contains(r.err, "not a complete etcd snapshot") {
				t.Errorf("restore: %+v", r)
			}
			whole := c.etcd.snapshot
			c.etcd.snapshot = spoilt
			defer func() { c.etcd.snapshot = whole }()
			if r := c.run(t, "etcd", "snapshot", filepath.Join(dir, "new.db")); r.code != exit.Failed {
				t.Errorf("snapshot: %+v", r)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Errorf("files stay behind: %v, %v", entries, err)
			}
		})
	}
}
