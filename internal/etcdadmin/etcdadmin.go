// Package etcdadmin implements EtcdService, by which an administrator inspects and changes the
// members of etcd, on a client of etcd. The members serve it to the gateways. With an external
// etcd, which does not, a gateway serves it with its own client. It needs no apiserver. An error of
// etcd keeps etcd's own text and gets a hint what to do.
package etcdadmin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/xebec-project/xebec/internal/apierr"
	etcdv1 "github.com/xebec-project/xebec/proto/xebec/etcd/v1"
)

// ReasonEtcd, in the ErrorInfo of a FailedPrecondition error: etcd refuses to change its members in
// the state it is in.
const ReasonEtcd = "ETCD_STATE"

const (
	// askTimeout bounds a question to one member.
	askTimeout = 3 * time.Second
	// changeTimeout bounds a change of the members, which needs a quorum.
	changeTimeout = 15 * time.Second
	// settleTime is how long a change waits for etcd to find its members healthy: each has to have
	// been connected to the others for 5 s, which members are not that were just started.
	settleTime = 8 * time.Second
	// settleRetry is how long after a refusal for that the change is tried again.
	settleRetry = 500 * time.Millisecond
	// chunkBytes is the size of a snapshot's messages.
	chunkBytes = 256 << 10
)

// Service implements EtcdService.
type Service struct {
	etcdv1.UnimplementedEtcdServiceServer
	client *clientv3.Client
}

// New returns a service on a client of all members, which stays the caller's to close.
func New(client *clientv3.Client) *Service { return &Service{client: client} }

// members lists the members. Linearizable lists need a quorum; without one, the
// answer is what any member knows.
func (s *Service) members(ctx context.Context) ([]*pb.Member, error) {
	short, cancel := context.WithTimeout(ctx, askTimeout)
	list, err := s.client.MemberList(short)
	cancel()
	if err != nil && ctx.Err() == nil {
		short, cancel = context.WithTimeout(ctx, askTimeout)
		list, err = s.client.MemberList(short, clientv3.WithSerializable())
		cancel()
	}
	if err != nil {
		return nil, explain("list the members of etcd", err)
	}
	slices.SortFunc(list.Members, func(a, b *pb.Member) int {
		return cmp.Or(cmp.Compare(a.GetName(), b.GetName()), cmp.Compare(a.GetID(), b.GetID()))
	})
	return list.Members, nil
}

// find returns the member that a request names.
func (s *Service) find(ctx context.Context, name string) (*pb.Member, error) {
	if name == "" {
		return nil, apierr.BadField("member", "required: a member's name or id")
	}
	all, err := s.members(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range all {
		if m.GetName() == name || idText(m.GetID()) == strings.TrimPrefix(name, "0x") {
			return m, nil
		}
		names = append(names, cmp.Or(m.GetName(), idText(m.GetID())))
	}
	return nil, apierr.New(
		codes.NotFound,
		apierr.ReasonNotFound,
		"etcd has no member "+strconv.Quote(name)+"; it has "+strings.Join(names, ", "),
	)
}

func idText(id uint64) string { return strconv.FormatUint(id, 16) }

func message(m *pb.Member) *etcdv1.Member {
	return &etcdv1.Member{
		Id:         idText(m.GetID()),
		Name:       m.GetName(),
		PeerUrls:   m.GetPeerURLs(),
		ClientUrls: m.GetClientURLs(),
		Learner:    m.GetIsLearner(),
	}
}

func messages(members []*pb.Member) []*etcdv1.Member {
	out := make([]*etcdv1.Member, len(members))
	for i, m := range members {
		out[i] = message(m)
	}
	return out
}

// ListMembers returns the members as etcd has them.
func (s *Service) ListMembers(ctx context.Context, _ *etcdv1.ListMembersRequest) (*etcdv1.ListMembersResponse, error) {
	all, err := s.members(ctx)
	if err != nil {
		return nil, err
	}
	return &etcdv1.ListMembersResponse{Members: messages(all)}, nil
}

// Status asks all members at once.
func (s *Service) Status(ctx context.Context, _ *etcdv1.StatusRequest) (*etcdv1.StatusResponse, error) {
	all, err := s.members(ctx)
	if err != nil {
		return nil, err
	}
	resp := &etcdv1.StatusResponse{Members: make([]*etcdv1.MemberStatus, len(all))}
	var group errgroup.Group
	for i, m := range all {
		group.Go(func() error {
			resp.Members[i] = s.ask(ctx, m)
			return nil
		})
	}
	_ = group.Wait()
	return resp, nil
}

// ask returns how a member is. What is wrong with it is part of the answer.
func (s *Service) ask(ctx context.Context, m *pb.Member) *etcdv1.MemberStatus {
	status := &etcdv1.MemberStatus{Member: message(m)}
	if len(m.GetClientURLs()) == 0 {
		status.Error = "it has not started yet"
		return status
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	st, err := s.client.Status(ctx, m.GetClientURLs()[0])
	if err != nil {
		status.Error = apierr.Message(err)
		return status
	}
	status.Leader = st.Leader == m.GetID()
	status.DbSizeBytes, status.DbSizeInUseBytes, status.DbSizeQuotaBytes = st.DbSize, st.DbSizeInUse, st.DbSizeQuota
	status.RaftIndex, status.RaftAppliedIndex, status.RaftTerm = st.RaftIndex, st.RaftAppliedIndex, st.RaftTerm
	status.Version = st.Version
	for _, e := range st.Errors {
		// etcd lists the alarms of all members at each, as memberID:X alarm:Y.
		if alarm, ok := alarmOf(e, m.GetID()); ok {
			if alarm != "" {
				status.Alarms = append(status.Alarms, alarm)
			}
			continue
		}
		status.Error = e
	}
	switch {
	case len(status.Alarms) > 0:
		status.Error = "alarm " + strings.Join(status.Alarms, ", ")
	case st.Leader == 0 && status.Error == "":
		status.Error = "it knows no leader"
	}
	return status
}

// alarmOf reads an alarm in the text form of its protobuf message. The alarm is empty when it is
// another member's.
func alarmOf(text string, member uint64) (alarm string, ok bool) {
	id, name, ok := strings.Cut(strings.Join(strings.Fields(text), " "), " alarm:")
	if !ok || !strings.HasPrefix(id, "memberID:") {
		return "", false
	}
	if strings.TrimPrefix(id, "memberID:") != strconv.FormatUint(member, 10) {
		return "", true
	}
	return strings.TrimSpace(name), true
}

// settled makes a change of the members, again while etcd does not find them healthy yet.
func settled(ctx context.Context, change func() error) error {
	deadline := time.Now().Add(settleTime)
	for {
		err := change()
		if !errors.Is(err, rpctypes.ErrUnhealthy) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(settleRetry):
		}
	}
}

// AddMember adds a member; etcd itself refuses it while a quorum could be lost by it.
func (s *Service) AddMember(ctx context.Context, req *etcdv1.AddMemberRequest) (*etcdv1.AddMemberResponse, error) {
	if len(req.GetPeerUrls()) == 0 {
		return nil, apierr.BadField("peer_urls", "required: where the other members will reach it, such as https://10.0.0.13:2380")
	}
	for i, u := range req.GetPeerUrls() {
		if err := checkURL(u); err != nil {
			return nil, apierr.BadField("peer_urls["+strconv.Itoa(i)+"]", "%v", err)
		}
	}
	all, err := s.members(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		for _, u := range req.GetPeerUrls() {
			if slices.Contains(m.GetPeerURLs(), u) {
				return nil, apierr.New(codes.AlreadyExists, apierr.ReasonAlreadyExists,
					"member "+cmp.Or(m.GetName(), idText(m.GetID()))+" is at "+u+" already; remove it first when it is gone for good")
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	add := s.client.MemberAdd
	if req.GetLearner() {
		add = s.client.MemberAddAsLearner
	}
	var added *clientv3.MemberAddResponse
	err = settled(ctx, func() (err error) {
		added, err = add(ctx, req.GetPeerUrls())
		return err
	})
	if err != nil {
		return nil, explain("add a member to etcd", err)
	}
	return &etcdv1.AddMemberResponse{Member: message(added.Member), Members: messages(added.Members)}, nil
}

// PromoteMember gives a learner its vote.
func (s *Service) PromoteMember(ctx context.Context, req *etcdv1.PromoteMemberRequest) (*etcdv1.PromoteMemberResponse, error) {
	m, err := s.find(ctx, req.GetMember())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if _, err := s.client.MemberPromote(ctx, m.GetID()); err != nil {
		return nil, explain("promote "+cmp.Or(m.GetName(), idText(m.GetID())), err)
	}
	return &etcdv1.PromoteMemberResponse{}, nil
}

// RemoveMember takes a member out; etcd itself refuses it when the rest would have no quorum.
func (s *Service) RemoveMember(ctx context.Context, req *etcdv1.RemoveMemberRequest) (*etcdv1.RemoveMemberResponse, error) {
	m, err := s.find(ctx, req.GetMember())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	var left *clientv3.MemberRemoveResponse
	err = settled(ctx, func() (err error) {
		left, err = s.client.MemberRemove(ctx, m.GetID())
		return err
	})
	if err != nil {
		return nil, explain("remove "+cmp.Or(m.GetName(), idText(m.GetID())), err)
	}
	return &etcdv1.RemoveMemberResponse{Members: messages(left.Members)}, nil
}

// MoveLeader asks the leader, which alone can, to hand over.
func (s *Service) MoveLeader(ctx context.Context, req *etcdv1.MoveLeaderRequest) (*etcdv1.MoveLeaderResponse, error) {
	status, err := s.Status(ctx, nil)
	if err != nil {
		return nil, err
	}
	var leader, next *etcdv1.MemberStatus
	for _, m := range status.GetMembers() {
		named := m.GetMember().GetName() == req.GetMember() || m.GetMember().GetId() == strings.TrimPrefix(req.GetMember(), "0x")
		switch {
		case m.GetLeader() && req.GetMember() != "" && named:
			return &etcdv1.MoveLeaderResponse{Leader: m.GetMember()}, nil
		case m.GetLeader():
			leader = m
		case named, req.GetMember() == "" && next == nil && m.GetError() == "" && !m.GetMember().GetLearner():
			next = m
		}
	}
	if leader == nil {
		return nil, apierr.FailedPrecondition(ReasonEtcd, "etcd", "no member of etcd leads: there is nothing to hand over")
	}
	if next == nil && req.GetMember() != "" {
		_, err := s.find(ctx, req.GetMember())
		return nil, err
	}
	if next == nil {
		return nil, apierr.FailedPrecondition(ReasonEtcd, "etcd", "no other voting member of etcd is well: name one to try it")
	}
	id, err := strconv.ParseUint(next.GetMember().GetId(), 16, 64)
	if err != nil {
		return nil, apierr.Internal("id of member: %v", err)
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	err = s.at(leader.GetMember(), func(m clientv3.Maintenance) error {
		_, err := m.MoveLeader(ctx, id)
		return err
	})
	if err != nil {
		return nil, explain("hand the leadership to "+next.GetMember().GetName(), err)
	}
	return &etcdv1.MoveLeaderResponse{Leader: next.GetMember()}, nil
}

// at calls one member, over a connection of its own.
func (s *Service) at(m *etcdv1.Member, call func(clientv3.Maintenance) error) error {
	if len(m.GetClientUrls()) == 0 {
		return apierr.FailedPrecondition(ReasonEtcd, m.GetId(), "member %s has not started yet", m.GetId())
	}
	conn, err := s.client.Dial(m.GetClientUrls()[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	return call(clientv3.NewMaintenanceFromMaintenanceClient(clientv3.RetryMaintenanceClient(s.client, conn), s.client))
}

// Defragment defragments one member.
func (s *Service) Defragment(ctx context.Context, req *etcdv1.DefragmentRequest) (*etcdv1.DefragmentResponse, error) {
	m, err := s.find(ctx, req.GetMember())
	if err != nil {
		return nil, err
	}
	before := s.ask(ctx, m)
	if len(m.GetClientURLs()) == 0 {
		return nil, apierr.FailedPrecondition(ReasonEtcd, req.GetMember(), "%s", before.GetError())
	}
	if _, err := s.client.Defragment(ctx, m.GetClientURLs()[0]); err != nil {
		return nil, explain("defragment "+m.GetName(), err)
	}
	return &etcdv1.DefragmentResponse{BeforeBytes: before.GetDbSizeBytes(), AfterBytes: s.ask(ctx, m).GetDbSizeBytes()}, nil
}

// DisarmAlarms ends all alarms.
func (s *Service) DisarmAlarms(ctx context.Context, _ *etcdv1.DisarmAlarmsRequest) (*etcdv1.DisarmAlarmsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	all, err := s.members(ctx)
	if err != nil {
		return nil, err
	}
	on, err := s.client.AlarmList(ctx)
	if err != nil {
		return nil, explain("list the alarms of etcd", err)
	}
	resp := &etcdv1.DisarmAlarmsResponse{}
	for _, alarm := range on.Alarms {
		if _, err := s.client.AlarmDisarm(ctx, (*clientv3.AlarmMember)(alarm)); err != nil {
			return nil, explain("disarm the alarms of etcd", err)
		}
		name := idText(alarm.GetMemberID())
		for _, m := range all {
			if m.GetID() == alarm.GetMemberID() {
				name = cmp.Or(m.GetName(), name)
			}
		}
		resp.Disarmed = append(resp.Disarmed, name+": "+alarm.GetAlarm().String())
	}
	slices.Sort(resp.Disarmed)
	return resp, nil
}

// Snapshot copies one member, which the reading costs: a follower rather than the leader.
func (s *Service) Snapshot(req *etcdv1.SnapshotRequest, stream grpc.ServerStreamingServer[etcdv1.SnapshotResponse]) error {
	ctx := stream.Context()
	from, err := s.source(ctx, req.GetMember())
	if err != nil {
		return err
	}
	return s.at(from.GetMember(), func(m clientv3.Maintenance) error {
		snapshot, err := m.SnapshotWithVersion(ctx)
		if err != nil {
			return explain("copy the database of "+from.GetMember().GetName(), err)
		}
		defer snapshot.Snapshot.Close()
		header := &etcdv1.SnapshotHeader{
			Member:        from.GetMember().GetName(),
			ExpectedBytes: from.GetDbSizeBytes(),
			Version:       cmp.Or(snapshot.Version, from.GetVersion()),
		}
		if err := stream.Send(&etcdv1.SnapshotResponse{Part: &etcdv1.SnapshotResponse_Header{Header: header}}); err != nil {
			return err
		}
		for {
			// A buffer of its own for each message: gRPC may still hold the one before.
			chunk := make([]byte, chunkBytes)
			n, err := io.ReadFull(snapshot.Snapshot, chunk)
			if n > 0 {
				if err := stream.Send(&etcdv1.SnapshotResponse{Part: &etcdv1.SnapshotResponse_Chunk{Chunk: chunk[:n]}}); err != nil {
					return err
				}
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			if err != nil {
				return explain("copy the database of "+from.GetMember().GetName(), err)
			}
		}
	})
}

// source chooses the member to copy.
func (s *Service) source(ctx context.Context, name string) (*etcdv1.MemberStatus, error) {
	if name != "" {
		m, err := s.find(ctx, name)
		if err != nil {
			return nil, err
		}
		return s.ask(ctx, m), nil
	}
	status, err := s.Status(ctx, nil)
	if err != nil {
		return nil, err
	}
	var best *etcdv1.MemberStatus
	for _, m := range status.GetMembers() {
		if m.GetError() == "" && !m.GetMember().GetLearner() && (best == nil || best.GetLeader()) {
			best = m
		}
	}
	if best == nil {
		return nil, apierr.FailedPrecondition(ReasonEtcd, "etcd", "no voting member of etcd is well; name one to copy it all the same")
	}
	return best, nil
}

// explain adds to what etcd refuses what to do about it.
func explain(what string, err error) error {
	refuse := func(hint string) error {
		return apierr.FailedPrecondition(ReasonEtcd, "etcd", "%s: %s; %s", what, err.Error(), hint)
	}
	switch {
	case errors.Is(err, rpctypes.ErrMemberNotEnoughStarted), errors.Is(err, rpctypes.ErrUnhealthy):
		return refuse("a quorum could be lost by it: see by 'xebec etcd status' which member does not run, and start or remove that one first")
	case errors.Is(err, rpctypes.ErrMemberLearnerNotReady):
		return refuse("it has not caught up yet: try again in a moment")
	case errors.Is(err, rpctypes.ErrMemberNotLearner):
		return refuse("it votes already")
	case errors.Is(err, rpctypes.ErrTooManyLearners):
		return refuse("promote or remove the learner that there is")
	}
	switch apierr.Code(err) {
	case codes.DeadlineExceeded, codes.Unavailable:
		return apierr.Unavailable("%s: %s; a change needs a quorum of members: 'xebec etcd status' shows which answer", what, err.Error())
	case codes.OK, codes.Unknown, codes.FailedPrecondition:
		return apierr.FailedPrecondition(ReasonEtcd, "etcd", "%s: %s", what, err.Error())
	}
	return apierr.New(apierr.Code(err), apierr.Reason(apierr.From(err)), what+": "+err.Error())
}

// checkURL wants what etcd takes as a member's address.
func checkURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" || u.Path != "" {
		return fmt.Errorf("%q is not https://host:port", text)
	}
	return nil
}
