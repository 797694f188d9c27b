// Command bench measures a control plane and the datapath, and prints the figures beside those of
// Kubernetes and beside what Xebec aims at. It judges nothing: figures of a shared machine are
// noisy, which is why the processor time of each process is printed as well.
//
//	go run ./tests/bench              all figures but those that take long, such as crowd
//	go run ./tests/bench -run 'gets'  those whose names match
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/xebec-project/xebec/tests/cluster"
)

// row is one figure.
type row struct {
	// name selects the row on the command line.
	name string
	// title, kubernetes and aim are the first columns. Kubernetes' figures are of version 1.36 on a
	// machine of this kind, with etcd on tmpfs, mutual TLS, RBAC and one master.
	title, kubernetes, aim string
	measure                func(context.Context, *bench) (result, error)
	// limit, when not nil, says how long the row may take. Such a row is measured only when -run names
	// rows.
	limit func(*bench) time.Duration
}

// result is what was measured.
type result struct {
	// figure is the last column.
	figure string
	// notes are printed below the table, such as the processor time of each process.
	notes []string
}

// rows is the table.
var rows = []row{
	{"idle", "one master after 60 s idle, RSS with etcd; CPU", "494 MiB; 2.0 CPU-s/min", "200 MiB; 0.5", measureIdle, nil},
	{"start", "apiserver, exec to serving", "1.9 s", "0.3 s", measureStart, nil},
	{
		"creates",
		"1 KB object creates, 16 connections",
		"1,920/s, p99 22 ms, 0.85 CPU-ms each",
		"0.28 CPU-ms each, through the gateway",
		measureCreates,
		nil,
	},
	{"gets", "gets, 16 connections", "3,100/s, 0.48 CPU-ms each", "0.1 CPU-ms each, through the gateway", measureGets, nil},
	{"watch", "create to the last of 100 watchers", "p50 6.5, p99 15 ms", "p50 3, p99 8 ms", measureWatch, nil},
	{
		"deployment",
		"Deployment of 1,000 pods on 100 simulated nodes, all bound",
		"49.5 s by default; 2.7 s, 5.1 CPU-s with limits raised",
		"1 s, 1.5 CPU-s",
		measureDeployment,
		nil,
	},
	{
		"failover",
		"kill -9 of the etcd leader's master: longest gap in acknowledged writes",
		"1.05 s with client timeouts of 250 ms; 7 s with 30 s",
		"1 s whatever the timeout",
		measureFailover,
		nil,
	},
	{
		"silence",
		"the etcd leader's master loses its wire, or its power: longest gap in writes from a node; election timeout",
		"-",
		"2 x election timeout + 1 s",
		measureSilence,
		nil,
	},
	{"names", "100 kills of agents under 200 look-ups per second on each of two nodes, by UDP and TCP: failed", "-", "0", measureNames, nil},
	{
		"attack-requests",
		"a stranger leaves 150 requests of 4 MiB unfinished, again and again: gateway's memory, p99 of others",
		"-",
		"+64 MiB, twice the p99",
		attack(unfinishedRequests),
		nil,
	},
	{
		"attack-connections",
		"a stranger opens up to 3,000 TLS connections and leaves them idle",
		"-",
		"+64 MiB, twice the p99",
		attack(idleConnections),
		nil,
	},
	{"attack-tokens", "a stranger calls with 2,000 invalid tokens a second", "-", "+64 MiB, twice the p99", attack(invalidTokens), nil},
	{
		"program",
		"5,000 services x 2 endpoints programmed on a node",
		"3.6 s (nftables), 8.5 s (iptables)",
		"50 ms",
		datapath("BenchmarkProgram5000", wallTime),
		nil,
	},
	{
		"endpoint",
		"then one endpoint changes",
		"0.94 s (nftables), 0.29 s (iptables)",
		"20 ms",
		datapath("BenchmarkOneEndpoint", wallTime),
		nil,
	},
	{
		"connect",
		"new connection by cluster IP at 10,000 services, against direct",
		"0.46 (iptables-nft), 0.87 (nft)",
		"0.97",
		datapath("BenchmarkConnect", metric("direct/cluster-ip")),
		nil,
	},
	{
		"connect-10",
		"new connections per second and p99 among 10 services: direct, by cluster IP, by rules",
		"-",
		"-",
		once("BenchmarkConnectScale/services=10", connectWays),
		nil,
	},
	{"connect-1000", "the same among 1,000", "-", "-", once("BenchmarkConnectScale/services=1000", connectWays), nil},
	{"connect-10000", "the same among 10,000", "-", "-", once("BenchmarkConnectScale/services=10000", connectWays), nil},
	{
		"node-port-10",
		"calls per second and p99 from outside among 10 services: to the pod, by node port to a pod there and elsewhere, by rules",
		"-",
		"-",
		once("BenchmarkNodePortScale/services=10", nodePortWays),
		nil,
	},
	{"node-port-1000", "the same among 1,000", "-", "-", once("BenchmarkNodePortScale/services=1000", nodePortWays), nil},
	{"node-port-10000", "the same among 10,000", "-", "-", once("BenchmarkNodePortScale/services=10000", nodePortWays), nil},
	{
		"policy",
		"a packet of a pod that no policy selects; of a known flow, and judged, under 10 rules; under 1,000",
		"-",
		"-",
		benchmarkOf("agent/policy", "BenchmarkPacket", "2s", packets),
		nil,
	},
	{"pods", "bind to container running and ready, image present, one pod after the other", "-", "p50 150 ms", measurePods, nil},
	{"burst", "the same, 100 pods at 50 per second on one node", "-", "-", measureBurst, nil},
	{"full", "a node's agent with 110 pods: RSS; CPU while idle", "-", "60 MiB", measureFull, nil},
	{"reach", "pod ready to reached from every node; deleted to reached from none", "-", "p99 50 ms both", measureReach, nil},
	{"lost", "power off of a node: as many pods as before ready elsewhere", "350 s by default", "20 s", measureLost, nil},
	{
		"crowd",
		"thousands of nodes, each with its own connection, certificate and watches: " +
			"all Ready; not Ready meanwhile; an administrator's get; all connected again after kill -9 of a gateway",
		"-",
		"0 not Ready, get under 1 s, connected within 60 s",
		measureCrowd,
		crowdLimit,
	},
	{"jobs", "10,000 Jobs of one pod on 500 simulated nodes, all complete", "-", "-", measureJobs, jobsFor},
	{"cronjobs", "1,000 CronJobs due in one minute on 500 simulated nodes", "-", "-", measureCronJobs, jobsFor},
	{"up", "lab up from built binaries to all of 3 masters and 2 nodes ready", "-", "15 s", measureUp, nil},
}

func allRows() []row { return append(slices.Clip(rows), schedulerPerfRows()...) }

// bench is what the measurements share.
type bench struct {
	binaries string
	length   time.Duration
	idle     time.Duration
	attack   time.Duration
	profiles string
	crowd    crowdOptions
}

func main() {
	run := flag.String("run", "", "regular expression: measure the rows whose names match")
	length := flag.Duration("length", 8*time.Second, "how long to make calls for a figure")
	idle := flag.Duration("idle", time.Minute, "how long to be idle for a figure")
	attackFor := flag.Duration("attack", time.Minute, "how long an attack lasts")
	profiles := flag.String(
		"profiles",
		"",
		"directory for CPU profiles of the services during idle, creates, gets, deployment and crowd, "+
			"whose logs are kept there too; none when empty",
	)
	crowd := crowdOptions{}
	flag.IntVar(&crowd.nodes, "crowd", 5000, "how many simulated nodes make a crowd")
	flag.IntVar(&crowd.masters, "crowd-masters", 1, "how many masters a crowd has, 1 or 3")
	flag.DurationVar(&crowd.hold, "crowd-hold", 10*time.Minute, "how long a crowd is watched")
	flag.Float64Var(&crowd.rate, "crowd-rate", 100, "how many nodes of a crowd start in a second")
	list := flag.Bool("list", false, "print the names of the rows")
	flag.Parse()
	if *list {
		for _, r := range allRows() {
			title := r.title
			if r.limit != nil {
				title += " (only when -run names it)"
			}
			fmt.Printf("%-12s %s\n", r.name, title)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, *run, bench{length: *length, idle: *idle, attack: *attackFor, profiles: *profiles, crowd: crowd}); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

const (
	// limit bounds one row, allLimit all of them: a row that has no time left says so.
	limit    = 2 * time.Minute
	allLimit = 22 * time.Minute
)

// measure measures the selected rows, tells of each as it ends, and prints the table. A row that
// fails says so in the table and the others go on.
func measure(ctx context.Context, run string, b bench) error {
	selected, err := regexp.Compile(run)
	if err != nil {
		return err
	}
	binaries, remove, err := cluster.Build(ctx, "xebec", "xebecd", "xebec-agent")
	if err != nil {
		return err
	}
	defer remove()
	b.binaries = binaries
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\tKUBERNETES 1.36\tAIM\tMEASURED")
	var notes strings.Builder
	rowsCtx, cancel := context.WithTimeout(ctx, allLimit)
	defer cancel()
	for _, r := range allRows() {
		if !selected.MatchString(r.name) || ctx.Err() != nil || r.limit != nil && run == "" {
			continue
		}
		fmt.Fprintf(os.Stderr, "measuring %s ...\n", r.name)
		began := time.Now()
		rowCtx, cancel := context.WithTimeout(rowsCtx, limit)
		if r.limit != nil {
			cancel()
			rowCtx, cancel = context.WithTimeout(ctx, r.limit(&b))
		}
		result, err := r.measure(rowCtx, &b)
		cancel()
		if err != nil {
			result.figure = "not measured"
			result.notes = append(result.notes, err.Error())
		}
		fmt.Fprintf(os.Stderr, "  %.0f s: %s\n", time.Since(began).Seconds(), result.figure)
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", r.title, r.kubernetes, r.aim, result.figure)
		for i, note := range result.notes {
			if i == 0 {
				fmt.Fprintf(&notes, "\n%s:\n", r.name)
			}
			fmt.Fprintf(&notes, "  %s\n", strings.ReplaceAll(strings.TrimSpace(note), "\n", "\n  "))
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Print(notes.String())
	return ctx.Err()
}
