package net

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/cli/printer"
	"github.com/xebec-project/xebec/cli/session"
	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/condition"
	"github.com/xebec-project/xebec/internal/kinds/core"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	nodev1 "github.com/xebec-project/xebec/proto/xebec/node/v1"
)

type traceOptions struct {
	protocol, node, output string
	check                  bool
}

func traceCommand(s *session.Session) *cobra.Command {
	var o traceOptions
	cmd := &cobra.Command{
		Use:   "trace FROM TO[:PORT]",
		Short: "Trace the path and verdict of a connection",
		Long: "Trace a connection through the maps, routes and policies of the node where it starts or arrives, and show the rule or\n" +
			"endpoint that decides its verdict. No packet is sent.\n\n" +
			"FROM is a pod (NAME, NAMESPACE/NAME or pod/NAME), a node (NAME or node/NAME) or an address; an address of no pod or\n" +
			"node is an external client. TO is a service (NAME, NAMESPACE/NAME, service/NAME or a DNS name), a pod (pod/NAME) or an\n" +
			"address. PORT is a number or the name of a service port; it is optional if the service has a single port.",
		Example: "  xebec net trace client echo\n" +
			"  xebec net trace client echo.default.svc.cluster.local:80\n" +
			"  xebec net trace node-1 10.96.0.12:80\n" +
			"  xebec net trace 2001:db8::7 [2001:db8::101]:80\n" +
			"  xebec net trace 192.0.2.7 service/echo -o json",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return netTrace(cmd.Context(), s, args[0], args[1], o) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.protocol, "protocol", "", "TCP or UDP (default: protocol of the service port, or TCP)")
	flags.StringVar(&o.node, "node", "", "node at which an external client arrives (default: the node that owns or announces the address)")
	flags.StringVarP(&o.output, "output", "o", "", "output format: json, yaml or jsonpath=TEMPLATE")
	flags.BoolVar(&o.check, "check", false, "exit with code 1 unless the connection would be forwarded")
	return cmd
}

// tracer finds out what the ends of a connection are.
type tracer struct {
	cl        *client.Client
	namespace string
	nodes     []*corev1.Node
}

// origin is where a connection begins.
type origin struct {
	text    string   // for people
	node    string   // where it begins, or arrives; empty: not known yet
	addrs   []string // one of a family; none: the node itself
	family  string   // that of the address by which it was named; empty: either will do
	outside bool
}

// toward chooses the address from which the connection goes to another; empty: the node itself.
func (o *origin) toward(to netip.Addr) (string, error) {
	if len(o.addrs) == 0 {
		return "", nil
	}
	family := core.FamilyOf(to.String())
	from := ofFamily(family, o.addrs)
	if from == "" {
		return "", fmt.Errorf("%s has no %s address from which to reach %v", o.text, family, to)
	}
	if !o.outside {
		o.text += " (" + from + ")"
	}
	return from, nil
}

// ofFamily returns the first address of a family, or of any when it is empty; empty: there is none.
func ofFamily(family string, addrs []string) string {
	for _, a := range addrs {
		if a != "" && (family == "" || core.FamilyOf(a) == family) {
			return a
		}
	}
	return ""
}

// traceGoal is where a connection is to go.
type traceGoal struct {
	text     string
	addr     netip.AddrPort
	protocol string
}

// tracedNode is what a node said.
type tracedNode struct {
	Node     string                 `json:"node"`
	Steps    []*nodev1.TraceStep    `json:"steps"`
	Backends []*nodev1.TraceBackend `json:"backends,omitempty"`
	Verdict  string                 `json:"verdict"`
	Decides  string                 `json:"decides"`
}

// maxTraced bounds how many nodes a trace goes by: the one that is asked, and the one that answers
// for an address.
const maxTraced = 3

func netTrace(ctx context.Context, s *session.Session, from, to string, o traceOptions) error {
	f, err := printer.ParseFormat(o.output)
	if err != nil {
		return err
	}
	o.protocol = strings.ToUpper(o.protocol)
	if o.protocol != "" && o.protocol != core.ProtocolTCP && o.protocol != core.ProtocolUDP {
		return exit.Usagef("invalid --protocol value %q: want TCP or UDP", o.protocol)
	}
	cl := s.Client()
	t := &tracer{cl: cl}
	if t.namespace, err = s.DefaultNamespace(); err != nil {
		return err
	}
	if t.nodes, _, err = client.List[*corev1.Node](ctx, cl, client.ListOptions{}); err != nil {
		return err
	}
	begin, err := t.origin(ctx, from)
	if err != nil {
		return err
	}
	end, err := t.goal(ctx, to, o.protocol, begin)
	if err != nil {
		return err
	}
	source, err := begin.toward(end.addr.Addr())
	if err != nil {
		return err
	}
	if begin.outside {
		if begin.node, err = t.arrival(ctx, end.addr.Addr(), o.node); err != nil {
			return err
		}
	}
	var traced []tracedNode
	for node := begin.node; node != "" && len(traced) < maxTraced; {
		resp, err := nodev1.NewNodeServiceClient(s).TraceConnection(ctx, &nodev1.TraceConnectionRequest{
			Target: &nodev1.Target{Node: node}, Source: source, Outside: begin.outside, Destination: end.addr.String(), Protocol: end.protocol,
		})
		if err != nil {
			return err
		}
		traced = append(traced, tracedNode{node, resp.GetSteps(), resp.GetBackends(), resp.GetVerdict(), resp.GetDecides()})
		node = resp.GetNextNode()
	}
	last := traced[len(traced)-1]
	if f.Structured() {
		err = f.PrintValue(s.Out, map[string]any{
			"from": begin.text, "to": end.text, "destination": end.addr.String(), "protocol": end.protocol,
			"nodes": traced, "verdict": last.Verdict, "decides": last.Decides,
		})
	} else {
		printTrace(s, begin, end, traced)
	}
	if err == nil && o.check && last.Verdict != "forwarded" {
		return exit.Some
	}
	return err
}

func printTrace(s *session.Session, begin origin, end traceGoal, traced []tracedNode) {
	fmt.Fprintf(s.Out, "%s to %s, %v/%s\n", begin.text, end.text, end.addr, end.protocol)
	for _, n := range traced {
		fmt.Fprintf(s.Out, "\nOn node %s:\n", n.Node)
		for _, step := range n.Steps {
			fmt.Fprintf(s.Out, "  %-12s %s\n", step.GetStage(), step.GetFinding())
		}
		if len(n.Backends) == 0 {
			continue
		}
		fmt.Fprintln(s.Out)
		t := &printer.Table{Heads: []string{"ENDPOINT", "SHARE", "VERDICT", "PLACE", "TRANSLATION", "WHY"}, Keep: 3}
		for _, b := range n.Backends {
			t.Add(b.GetAddress(), fmt.Sprintf("%.1f%%", 100*b.GetShare()), b.GetVerdict(), b.GetPlace(), b.GetTranslation(), b.GetReason())
		}
		t.Print(s.Out)
	}
	last := traced[len(traced)-1]
	fmt.Fprintf(s.Out, "\n%s: %s\n", strings.ToUpper(last.Verdict[:1])+last.Verdict[1:], last.Decides)
}

// origin finds out who begins the connection.
func (t *tracer) origin(ctx context.Context, text string) (origin, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		o, err := t.originAt(ctx, addr)
		o.family = core.FamilyOf(text)
		return o, err
	}
	namespace, name := t.namespace, text
	if before, after, ok := strings.Cut(text, "/"); ok {
		switch before {
		case "node", "nodes", "no":
			return t.originNode(after)
		case "pod", "pods", "po":
			name = after
		default:
			namespace, name = before, after
		}
	}
	pod, err := client.Get[*corev1.Pod](ctx, t.cl, namespace, name)
	switch {
	case err == nil:
		return originPod(pod)
	case !apierr.IsNotFound(err):
		return origin{}, err
	case name == text:
		if o, err := t.originNode(text); err == nil {
			return o, nil
		}
		return origin{}, fmt.Errorf("no pod %s/%s and no node %s found; for an external client, give its address", namespace, name, text)
	}
	return origin{}, err
}

func (t *tracer) originNode(name string) (origin, error) {
	if !slices.ContainsFunc(t.nodes, func(n *corev1.Node) bool { return n.GetMetadata().GetName() == name }) {
		return origin{}, fmt.Errorf("node %q not found", name)
	}
	return origin{text: "node " + name, node: name}, nil
}

func originPod(pod *corev1.Pod) (origin, error) {
	name := pod.GetMetadata().GetNamespace() + "/" + pod.GetMetadata().GetName()
	if pod.GetSpec().GetHostNetwork() {
		return origin{text: "pod " + name + " in the host network", node: pod.GetSpec().GetNodeName()}, nil
	}
	addrs := core.PodAddresses(pod)
	if len(addrs) == 0 {
		return origin{}, fmt.Errorf("pod %s has no address (phase %s)", name, cmp.Or(pod.GetStatus().GetPhase(), "new"))
	}
	return origin{text: "pod " + name, node: pod.GetSpec().GetNodeName(), addrs: addrs}, nil
}

// nodeAddresses are those at which others reach a node.
func nodeAddresses(n *corev1.Node) []string {
	var out []string
	for _, a := range n.GetStatus().GetAddresses() {
		if a.GetType() == core.NodeInternalIP {
			out = append(out, a.GetAddress())
		}
	}
	return out
}

// originAt finds out whose an address is.
func (t *tracer) originAt(ctx context.Context, addr netip.Addr) (origin, error) {
	for _, n := range t.nodes {
		if slices.Contains(nodeAddresses(n), addr.String()) {
			return t.originNode(n.GetMetadata().GetName())
		}
	}
	pod, err := t.podAt(ctx, addr)
	if err != nil {
		return origin{}, err
	}
	if pod != nil {
		return originPod(pod)
	}
	return origin{text: fmt.Sprintf("external client %v", addr), addrs: []string{addr.String()}, outside: true}, nil
}

// podAt returns the pod that has an address, nil when none has.
func (t *tracer) podAt(ctx context.Context, addr netip.Addr) (*corev1.Pod, error) {
	pods, _, err := client.List[*corev1.Pod](ctx, t.cl, client.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, p := range pods {
		if slices.Contains(core.PodAddresses(p), addr.String()) && !p.GetSpec().GetHostNetwork() && p.GetStatus().GetPhase() == "Running" {
			return p, nil
		}
	}
	return nil, nil
}

// arrival is the node at which a client outside reaches an address.
func (t *tracer) arrival(ctx context.Context, addr netip.Addr, named string) (string, error) {
	if named != "" {
		_, err := t.originNode(named)
		return named, err
	}
	for _, n := range t.nodes {
		if slices.Contains(nodeAddresses(n), addr.String()) {
			return n.GetMetadata().GetName(), nil
		}
	}
	pod, err := t.podAt(ctx, addr)
	if err != nil {
		return "", err
	}
	if pod != nil {
		return pod.GetSpec().GetNodeName(), nil
	}
	// Any node knows who answers for a load balancer's address.
	for _, n := range t.nodes {
		if core.NodeCondition(n, core.NodeReady).GetStatus() == condition.True {
			return n.GetMetadata().GetName(), nil
		}
	}
	return "", errors.New("no ready node: --node is required")
}

// goal finds out where the connection is to go.
func (t *tracer) goal(ctx context.Context, text, protocol string, begin origin) (traceGoal, error) {
	if to, err := netip.ParseAddrPort(text); err == nil && to.Port() > 0 {
		return traceGoal{text: to.Addr().String(), addr: to, protocol: cmp.Or(protocol, core.ProtocolTCP)}, nil
	}
	name, port := text, ""
	if i := strings.LastIndex(text, ":"); i >= 0 {
		name, port = text[:i], text[i+1:]
	}
	for _, only := range []string{strings.Trim(text, "[]"), strings.Trim(name, "[]")} {
		if addr, err := netip.ParseAddr(only); err == nil {
			return traceGoal{}, exit.Usagef(
				"invalid destination %q: an address requires a port number, as in %v",
				text,
				netip.AddrPortFrom(addr, 80),
			)
		}
	}
	namespace := t.namespace
	if before, after, ok := strings.Cut(name, "/"); ok {
		switch before {
		case "pod", "pods", "po":
			return t.podGoal(ctx, namespace, after, port, protocol, begin)
		case "service", "services", "svc":
			name = after
		default:
			namespace, name = before, after
		}
	} else if labels := strings.Split(strings.TrimSuffix(name, "."), "."); len(labels) > 1 {
		if len(labels) > 2 && labels[2] != "svc" {
			return traceGoal{}, exit.Usagef("invalid destination %q: not a name in the cluster domain; give an address instead", name)
		}
		name, namespace = labels[0], labels[1]
	}
	svc, err := client.Get[*corev1.Service](ctx, t.cl, namespace, name)
	if apierr.IsNotFound(err) {
		if g, podErr := t.podGoal(ctx, namespace, name, port, protocol, begin); podErr == nil {
			return g, nil
		}
		return traceGoal{}, fmt.Errorf("no service %s/%s and no pod of that name with that port found", namespace, name)
	}
	if err != nil {
		return traceGoal{}, err
	}
	return t.serviceGoal(svc, port, protocol, begin)
}

func (t *tracer) serviceGoal(svc *corev1.Service, port, protocol string, begin origin) (traceGoal, error) {
	spec := svc.GetSpec()
	name := svc.GetMetadata().GetNamespace() + "/" + svc.GetMetadata().GetName()
	switch {
	case spec.GetType() == core.ServiceExternalName:
		return traceGoal{}, fmt.Errorf("service %s is an ExternalName for %s: trace that name instead", name, spec.GetExternalName())
	case core.IsHeadless(svc):
		return traceGoal{}, fmt.Errorf("service %s is headless: trace one of its pods instead", name)
	}
	matches := slices.DeleteFunc(slices.Clone(spec.GetPorts()), func(p *corev1.ServicePort) bool {
		return port != "" && port != p.GetName() && port != strconv.Itoa(int(p.GetPort())) || protocol != "" && protocol != p.GetProtocol()
	})
	if len(matches) == 0 {
		return traceGoal{}, fmt.Errorf(
			"service %s has no port %s: want one of %s",
			name,
			strings.Trim(port+"/"+protocol, "/"),
			portsText(spec.GetPorts()),
		)
	}
	p := matches[0]
	if len(matches) > 1 && port == "" {
		return traceGoal{}, exit.Usagef("service %s has several ports: want one of %s", name, portsText(matches))
	}
	g := traceGoal{text: fmt.Sprintf("service %s", name), protocol: p.GetProtocol()}
	text, number := ofFamily(begin.family, append(slices.Clone(spec.GetClusterIps()), spec.GetClusterIp())), p.GetPort()
	if begin.outside {
		var given, nodes []string
		for _, in := range svc.GetStatus().GetLoadBalancer().GetIngress() {
			given = append(given, in.GetIp())
		}
		if text = ofFamily(begin.family, append(given, spec.GetExternalIps()...)); text == "" && p.GetNodePort() > 0 {
			for _, n := range t.nodes {
				nodes = append(nodes, nodeAddresses(n)...)
			}
			text, number = ofFamily(begin.family, nodes), p.GetNodePort()
		}
		if text == "" {
			return traceGoal{}, fmt.Errorf(
				"service %s has no %s address for external clients: no load balancer, node port or external IP",
				name,
				begin.family,
			)
		}
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return traceGoal{}, fmt.Errorf("service %s has no %s address", name, begin.family)
	}
	g.addr = netip.AddrPortFrom(addr, uint16(number))
	return g, nil
}

func (t *tracer) podGoal(ctx context.Context, namespace, name, port, protocol string, begin origin) (traceGoal, error) {
	pod, err := client.Get[*corev1.Pod](ctx, t.cl, namespace, name)
	if err != nil {
		return traceGoal{}, err
	}
	if len(core.PodAddresses(pod)) == 0 {
		return traceGoal{}, fmt.Errorf("pod %s/%s has no address (phase %s)", namespace, name, cmp.Or(pod.GetStatus().GetPhase(), "new"))
	}
	addr, err := netip.ParseAddr(ofFamily(begin.family, core.PodAddresses(pod)))
	if err != nil {
		return traceGoal{}, fmt.Errorf("pod %s/%s has no %s address", namespace, name, begin.family)
	}
	var found []*corev1.ContainerPort
	for _, c := range pod.GetSpec().GetContainers() {
		for _, p := range c.GetPorts() {
			if (port == "" || port == p.GetName() || port == strconv.Itoa(int(p.GetContainerPort()))) &&
				(protocol == "" || protocol == p.GetProtocol()) {
				found = append(found, p)
			}
		}
	}
	g := traceGoal{text: "pod " + namespace + "/" + name, protocol: cmp.Or(protocol, core.ProtocolTCP)}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case len(found) == 1 || len(found) > 1 && port != "":
		g.addr, g.protocol = netip.AddrPortFrom(addr, uint16(found[0].GetContainerPort())), cmp.Or(found[0].GetProtocol(), core.ProtocolTCP)
	case err == nil && n > 0: // a port that the pod's spec does not name
		g.addr = netip.AddrPortFrom(addr, uint16(n))
	default:
		return traceGoal{}, exit.Usagef("pod %s/%s: name a port by its number, as in pod/%s:80", namespace, name, name)
	}
	return g, nil
}

func portsText(ports []*corev1.ServicePort) string {
	var out []string
	for _, p := range ports {
		text := fmt.Sprintf("%d/%s", p.GetPort(), p.GetProtocol())
		if p.GetName() != "" {
			text = p.GetName() + " (" + text + ")"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}
