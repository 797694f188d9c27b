// Command client is the lab's sample client, for calling services from inside a pod.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const usage = `usage:
  client get URL [--count N] [--interval D] [--timeout D]    print what the URL answers, on a connection of its own each time
  client load URL [--workers N] [--for D] [--keep]           call the URL as fast as it goes and print a summary
  client storm IP:PORT [--tcp N] [--keep=N] [--udp N] [--hold N] [--for D] [--timeout D]
                                                             count every failure of so many workers of each kind
  client names IP:PORT [--for D] [--interval D]              tell when each pod behind the address answered first and last
  client stop                                                end what the container runs
  client udp HOST:PORT TEXT [--timeout D]                    send a datagram and print the answer
  client dns NAME                                            print a name's addresses, or an address's names
  client whoami [HOST:PORT] [--timeout D]                    print whose token the pod has, as the cluster at the address tells
  client health ADDR [--after D] [--until D]                 serve gRPC health: good after D, for the whole and service "client", until D
  client sleep                                               do nothing until stopped
`

// maxBody bounds what is read of an answer.
const maxBody = 1 << 20

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// keepFlag is --keep for one of something, or --keep=N.
type keepFlag int

func (k *keepFlag) String() string   { return "" }
func (k *keepFlag) IsBoolFlag() bool { return true }

// Set takes a number, or true for 1.
func (k *keepFlag) Set(text string) error {
	n, err := strconv.Atoi(text)
	if text == "true" {
		n, err = 1, nil
	}
	*k = keepFlag(n)
	return err
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return flag.ErrHelp
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.Usage = func() {}
	flags.SetOutput(io.Discard)
	count := flags.Int("count", 1, "")
	interval := flags.Duration("interval", time.Second, "")
	timeout := flags.Duration("timeout", 5*time.Second, "")
	workers := flags.Int("workers", 8, "")
	duration := flags.Duration("for", 10*time.Second, "")
	after, until := flags.Duration("after", 0, ""), flags.Duration("until", 0, "")
	tcp, kept := flags.Int("tcp", 0, ""), new(keepFlag)
	flags.Var(kept, "keep", "")
	datagrams, hold := flags.Int("udp", 0, ""), flags.Int("hold", 0, "")
	// Flags may stand before, between and after the arguments.
	var rest []string
	for left := args[1:]; ; {
		if err := flags.Parse(left); err != nil {
			return fmt.Errorf("%w\n%s", err, usage)
		}
		if flags.NArg() == 0 {
			break
		}
		rest, left = append(rest, flags.Arg(0)), flags.Args()[1:]
	}
	switch {
	case args[0] == "get" && len(rest) == 1:
		return get(ctx, out, rest[0], *count, *interval, *timeout)
	case args[0] == "load" && len(rest) == 1 && *workers > 0 && *duration > 0:
		return load(ctx, out, rest[0], *workers, *duration, *timeout, *kept > 0)
	case args[0] == "storm" && len(rest) == 1 && *duration > 0:
		address, err := netip.ParseAddrPort(rest[0])
		if err != nil || !address.Addr().Is4() {
			return fmt.Errorf("invalid address %q: want an IPv4 address and a port", rest[0])
		}
		ctx, cancel := context.WithTimeout(ctx, *duration)
		defer cancel()
		s := &storm{address: address, tcp: *tcp, keep: int(*kept), udp: *datagrams, hold: *hold, timeout: *timeout}
		return s.run(ctx, out)
	case args[0] == "names" && len(rest) == 1 && *duration > 0:
		address, err := netip.ParseAddrPort(rest[0])
		if err != nil {
			return fmt.Errorf("invalid address %q: want an IP address and a port", rest[0])
		}
		ctx, cancel := context.WithTimeout(ctx, *duration)
		defer cancel()
		return names(ctx, out, address, *interval, *timeout)
	case args[0] == "stop" && len(rest) == 0:
		return stop()
	case args[0] == "udp" && len(rest) == 2:
		return udp(ctx, out, rest[0], rest[1], *timeout)
	case args[0] == "dns" && len(rest) == 1:
		return dns(ctx, out, rest[0])
	case args[0] == "whoami" && len(rest) <= 1:
		address := "kubernetes.default.svc:443"
		if len(rest) == 1 {
			address = rest[0]
		}
		return whoami(ctx, out, address, accountDir, *timeout)
	case args[0] == "health" && len(rest) == 1:
		return serveHealth(ctx, out, rest[0], *after, *until)
	case args[0] == "sleep" && len(rest) == 0:
		<-ctx.Done()
		return nil
	}
	return flag.ErrHelp
}

// newClient returns a client that uses a new connection for every call unless keep is set, so that
// every call is balanced separately.
func newClient(timeout time.Duration, keep bool, conns int) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: !keep, MaxIdleConnsPerHost: conns}}
}

func call(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err == nil && response.StatusCode >= 400 {
		err = fmt.Errorf("%s: %s", url, response.Status)
	}
	return body, err
}

// get prints answers; the last failure is its error, so that a count of 1 tells whether the call
// worked.
func get(ctx context.Context, out io.Writer, url string, count int, interval, timeout time.Duration) error {
	client := newClient(timeout, false, 1)
	var last error
	for i := range count {
		if i > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(interval):
			}
		}
		body, err := call(ctx, client, url)
		last = err
		if err != nil && count > 1 {
			fmt.Fprintln(out, "error:", err)
			continue
		}
		if err == nil {
			fmt.Fprintln(out, strings.TrimSuffix(string(body), "\n"))
		}
	}
	return last
}

// load prints rates, latencies and every kind of failure. Failures make it fail: a rollout under
// load must cause none.
func load(ctx context.Context, out io.Writer, url string, workers int, duration, timeout time.Duration, keep bool) error {
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	client := newClient(timeout, keep, workers)
	var mu sync.Mutex
	var took []time.Duration
	failures := make(map[string]int)
	var group sync.WaitGroup
	began := time.Now()
	for range workers {
		group.Go(func() {
			// One at the least, however short the time.
			for first := true; first || ctx.Err() == nil; first = false {
				start := time.Now()
				// A call that was begun is finished beyond the end, else the end itself would look like a
				// failure.
				_, err := call(context.WithoutCancel(ctx), client, url)
				mu.Lock()
				if err != nil {
					failures[err.Error()]++
				} else {
					took = append(took, time.Since(start))
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	slices.Sort(took)
	failed := 0
	for _, n := range failures {
		failed += n
	}
	fmt.Fprintf(out, "%d calls in %.1f s, %.0f per second, %d failed\n", len(took)+failed, time.Since(began).Seconds(),
		float64(len(took)+failed)/time.Since(began).Seconds(), failed)
	if len(took) > 0 {
		at := func(q float64) time.Duration { return took[int(q*float64(len(took)-1))].Round(10 * time.Microsecond) }
		fmt.Fprintf(out, "latency p50 %s, p90 %s, p99 %s, max %s\n", at(.5), at(.9), at(.99), at(1))
	}
	kinds := make([]string, 0, len(failures))
	for kind := range failures {
		kinds = append(kinds, kind)
	}
	sort.Strings(kinds)
	for _, kind := range kinds {
		fmt.Fprintf(out, "%6d × %s\n", failures[kind], kind)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d calls failed", failed, len(took)+failed)
	}
	return nil
}

func udp(ctx context.Context, out io.Writer, target, text string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "udp", target)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	n, err := conn.Read(buf)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, string(buf[:n]))
	return nil
}

func dns(ctx context.Context, out io.Writer, name string) error {
	lookup := net.DefaultResolver.LookupHost
	if net.ParseIP(name) != nil {
		lookup = net.DefaultResolver.LookupAddr
	}
	answers, err := lookup(ctx, name)
	if err != nil {
		return err
	}
	slices.Sort(answers)
	for _, answer := range answers {
		fmt.Fprintln(out, answer)
	}
	return nil
}
