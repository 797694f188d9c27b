// Package etcd holds the commands that manage etcd: members, snapshots, space.
package etcd

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/cli/command"
	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/cli/terminal"
	etcdv1 "github.com/xebec-project/xebec/proto/xebec/etcd/v1"
)

// Command returns the command etcd.
func Command(s *session.Session) *cobra.Command {
	c := command.Family("etcd", "Manage etcd: members, snapshots, space", statusCommand(s), membersCommand(s),
		snapshotCommand(s), restoreCommand(s), moveLeaderCommand(s), defragCommand(s), disarmCommand(s))
	c.Long = "Manage the etcd of the cluster through the gateway, without access to the hosts and certificates of etcd. Requires\n" +
		"membership of the group system:masters."
	return c
}

// etcdService connects to the gateway's EtcdService.
func etcdService(s *session.Session) etcdv1.EtcdServiceClient { return etcdv1.NewEtcdServiceClient(s) }

// etcdLimit is the longest time for a call that waits for members, unless --request-timeout names
// another.
const etcdLimit = 30 * time.Second

// etcdCall makes one call of the gateway's EtcdService, of a method such as
// etcdv1.EtcdServiceClient.Status.
func etcdCall[Req, Resp any](
	ctx context.Context,
	s *session.Session,
	method func(etcdv1.EtcdServiceClient, context.Context, Req, ...grpc.CallOption) (Resp, error),
	req Req,
) (Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(s.Timeout, etcdLimit))
	defer cancel()
	return method(etcdService(s), ctx, req)
}

func statusCommand(s *session.Session) *cobra.Command {
	var output printer.MessageOutput
	var check bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show the status of members: leader, size, raft, version, alarms",
		Example: "  xebec etcd status\n  xebec etcd status --check", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := output.Format()
			if err != nil {
				return err
			}
			resp, err := etcdCall(cmd.Context(), s, etcdv1.EtcdServiceClient.Status, &etcdv1.StatusRequest{})
			if err != nil {
				return err
			}
			if f.Structured() {
				if err := f.PrintMessage(s.Out, resp); err != nil {
					return err
				}
			} else {
				etcdStatus(s, resp.GetMembers())
			}
			for _, m := range resp.GetMembers() {
				if check && m.GetError() != "" {
					return &exit.Error{Code: exit.Failed}
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "exit with code 1 if a member is unhealthy")
	output.Flag(cmd)
	return cmd
}

func etcdStatus(s *session.Session, members []*etcdv1.MemberStatus) {
	t := &printer.Table{
		Heads: []string{"MEMBER", "ROLE", "DB SIZE", "IN USE", "QUOTA", "RAFT TERM", "RAFT INDEX", "APPLIED", "VERSION", "ALARMS", "ERROR"},
		Keep:  1,
	}
	for _, m := range members {
		quota := "-"
		if m.GetDbSizeQuotaBytes() > 0 {
			quota = printer.Bytes(m.GetDbSizeQuotaBytes())
		}
		t.Add(memberName(m.GetMember()), memberRole(m), printer.Bytes(m.GetDbSizeBytes()), printer.Bytes(m.GetDbSizeInUseBytes()), quota,
			fmt.Sprint(m.GetRaftTerm()), fmt.Sprint(m.GetRaftIndex()), fmt.Sprint(m.GetRaftAppliedIndex()), cmp.Or(m.GetVersion(), "-"),
			strings.Join(m.GetAlarms(), ","), terminal.OneLine(m.GetError()))
	}
	t.Print(s.Out)
}

func memberName(m *etcdv1.Member) string { return cmp.Or(m.GetName(), m.GetId()) }

func memberRole(m *etcdv1.MemberStatus) string {
	switch {
	case m.GetLeader():
		return "leader"
	case m.GetMember().GetLearner():
		return "learner"
	case m.GetError() != "" && m.GetRaftTerm() == 0:
		return ""
	}
	return "follower"
}

func membersCommand(s *session.Session) *cobra.Command {
	var output printer.MessageOutput
	list := func(cmd *cobra.Command, _ []string) error {
		f, err := output.Format()
		if err != nil {
			return err
		}
		resp, err := etcdCall(cmd.Context(), s, etcdv1.EtcdServiceClient.ListMembers, &etcdv1.ListMembersRequest{})
		if err != nil {
			return err
		}
		if f.Structured() {
			return f.PrintMessage(s.Out, resp)
		}
		t := &printer.Table{Heads: []string{"MEMBER", "ID", "VOTES", "PEER URLS", "CLIENT URLS"}, Keep: 2}
		for _, m := range resp.GetMembers() {
			votes := "yes"
			if m.GetLearner() {
				votes = "learner"
			}
			t.Add(
				cmp.Or(m.GetName(), "(not started)"),
				m.GetId(),
				votes,
				strings.Join(m.GetPeerUrls(), ","),
				cmp.Or(strings.Join(m.GetClientUrls(), ","), "-"),
			)
		}
		t.Print(s.Out)
		return nil
	}
	flags := func(c *cobra.Command) *cobra.Command {
		output.Flag(c)
		return c
	}
	lister := flags(
		&cobra.Command{Use: "list", Short: "List the members", Example: "  xebec etcd members list", Args: cobra.NoArgs, RunE: list},
	)
	c := command.Family(
		"members",
		"List, add, promote and remove members",
		lister,
		flags(addCommand(s, &output)),
		promoteCommand(s),
		removeCommand(s),
	)
	flags(c)
	help := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return list(cmd, args)
		}
		return help(cmd, args)
	}
	c.Example = "  xebec etcd members\n  xebec etcd members -o json"
	return c
}

func addCommand(s *session.Session, output *printer.MessageOutput) *cobra.Command {
	var req etcdv1.AddMemberRequest
	cmd := &cobra.Command{
		Use: "add NAME --peer-url URL", Short: "Add a member and print its start configuration",
		Long: "Add a member to etcd and print the configuration with which to start 'xebecd etcd' on the new host. A learner receives\n" +
			"the log but has no vote until it is promoted.",
		Example: "  xebec etcd members add master-3 --peer-url https://10.0.0.13:2380 --learner", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := output.Format()
			if err != nil {
				return err
			}
			resp, err := etcdCall(cmd.Context(), s, etcdv1.EtcdServiceClient.AddMember, &req)
			if err != nil {
				return err
			}
			added := struct {
				ID             string   `json:"id"`
				Name           string   `json:"name"`
				Learner        bool     `json:"learner"`
				Join           bool     `json:"join"`
				InitialCluster []string `json:"initialCluster"`
			}{ID: resp.GetMember().GetId(), Name: args[0], Learner: resp.GetMember().GetLearner(), Join: true}
			for _, m := range resp.GetMembers() {
				name := m.GetName()
				if m.GetId() == added.ID {
					name = args[0]
				}
				for _, u := range m.GetPeerUrls() {
					added.InitialCluster = append(added.InitialCluster, cmp.Or(name, m.GetId())+"="+u)
				}
			}
			if f.Structured() {
				return f.PrintValue(s.Out, added)
			}
			s.Printf("member %s added with ID %s. Start it with:\n\n  name: %s\n  join: true\n  initialCluster: [%s]\n",
				args[0], added.ID, args[0], strings.Join(added.InitialCluster, ", "))
			if added.Learner {
				s.Printf("\nWhen it runs, promote it: xebec etcd members promote %s\n", args[0])
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&req.PeerUrls, "peer-url", nil, "URL at which the other members reach it, such as https://10.0.0.13:2380")
	cmd.Flags().BoolVar(&req.Learner, "learner", false, "add the member as a learner, without a vote until it is promoted")
	return cmd
}

func promoteCommand(s *session.Session) *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "promote MEMBER", Short: "Promote a learner to a voting member", Args: cobra.ExactArgs(1),
		Example: "  xebec etcd members promote master-3 --wait 1m",
		RunE: func(cmd *cobra.Command, args []string) error {
			deadline := s.Now().Add(wait)
			for {
				_, err := etcdCall(cmd.Context(), s, etcdv1.EtcdServiceClient.PromoteMember, &etcdv1.PromoteMemberRequest{Member: args[0]})
				if err == nil {
					s.Printf("member %s promoted\n", args[0])
					return nil
				}
				if cmd.Context().Err() != nil || !s.Now().Before(deadline) {
					return err
				}
				select {
				case <-cmd.Context().Done():
					return err
				case <-time.After(time.Second):
				}
			}
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to retry while the learner is behind the leader")
	return cmd
}

func removeCommand(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "remove MEMBER", Short: "Remove a member permanently", Args: cobra.ExactArgs(1),
		Long: "Remove a member from etcd, by name or ID. Its data becomes unusable: a host that returns must be added as a new member\n" +
			"with an empty data directory. Refused if the remaining members would have no quorum.",
		Example: "  xebec etcd members remove master-3",
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := etcdCall(cmd.Context(), s, etcdv1.EtcdServiceClient.RemoveMember, &etcdv1.RemoveMemberRequest{Member: args[0]})
			if err != nil {
				return err
			}
			s.Printf("member %s removed, %d remain\n", args[0], len(resp.GetMembers()))
			return nil
		},
	}
}

func moveLeaderCommand(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "move-leader [MEMBER]", Short: "Transfer leadership to another member", Args: cobra.MaximumNArgs(1),
		Example: "  xebec etcd move-leader\n  xebec etcd move-leader master-2",
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := etcdCall(cmd.Context(), s, etcdv1.EtcdServiceClient.MoveLeader, &etcdv1.MoveLeaderRequest{Member: strings.Join(args, "")})
			if err != nil {
				return err
			}
			s.Printf("leader is now %s\n", memberName(resp.GetLeader()))
			return nil
		},
	}
}

func defragCommand(s *session.Session) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "defrag [MEMBER...]", Short: "Defragment the databases of members, one at a time",
		Long: "Return the space of compacted revisions to the file system. A member serves no requests while it defragments. With\n" +
			"--all, the leader is last.",
		Example: "  xebec etcd defrag --all",
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return exit.Usagef("members or --all are required, not both")
			}
			service := etcdService(s)
			if all {
				var err error
				if args, err = etcdLeaderLast(cmd.Context(), service); err != nil {
					return err
				}
			}
			for _, member := range args {
				ctx, cancel := context.WithTimeout(cmd.Context(), max(s.Timeout, 10*time.Minute))
				resp, err := service.Defragment(ctx, &etcdv1.DefragmentRequest{Member: member})
				cancel()
				if err != nil {
					return err
				}
				s.Printf("%s: %s before, %s after\n", member, printer.Bytes(resp.GetBeforeBytes()), printer.Bytes(resp.GetAfterBytes()))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all members")
	return cmd
}

// etcdLeaderLast names all members.
func etcdLeaderLast(ctx context.Context, service etcdv1.EtcdServiceClient) ([]string, error) {
	status, err := service.Status(ctx, &etcdv1.StatusRequest{})
	if err != nil {
		return nil, err
	}
	var members, leader []string
	for _, m := range status.GetMembers() {
		switch {
		case len(m.GetMember().GetClientUrls()) == 0:
		case m.GetLeader():
			leader = append(leader, memberName(m.GetMember()))
		default:
			members = append(members, memberName(m.GetMember()))
		}
	}
	return append(members, leader...), nil
}

func disarmCommand(s *session.Session) *cobra.Command {
	return &cobra.Command{
		Use: "disarm", Short: "Disarm alarms after their cause is resolved", Args: cobra.NoArgs,
		Example: "  xebec etcd defrag --all && xebec etcd disarm",
		RunE: func(cmd *cobra.Command, _ []string) error {
			resp, err := etcdCall(cmd.Context(), s, etcdv1.EtcdServiceClient.DisarmAlarms, &etcdv1.DisarmAlarmsRequest{})
			switch {
			case err != nil:
				return err
			case len(resp.GetDisarmed()) == 0:
				s.Printf("no active alarms\n")
			}
			for _, alarm := range resp.GetDisarmed() {
				s.Printf("disarmed %s\n", alarm)
			}
			return nil
		},
	}
}
