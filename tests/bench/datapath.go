package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// figures are what a benchmark of Go's reports, by unit.
type figures map[string]float64

// datapath measures by one of the datapath's own benchmarks, which need root.
func datapath(benchmark string, figure func(figures) (string, bool)) func(context.Context, *bench) (result, error) {
	return benchmarkOf("agent/datapath", benchmark, "2s", figure)
}

// once is datapath for a benchmark that makes as many calls as its figures need each time it runs.
func once(benchmark string, figure func(figures) (string, bool)) func(context.Context, *bench) (result, error) {
	return benchmarkOf("agent/datapath", benchmark, "1x", figure)
}

// benchmarkOf measures by a benchmark of a package that runs for a time, or as often as "1x" says.
func benchmarkOf(of, benchmark, length string, figure func(figures) (string, bool)) func(context.Context, *bench) (result, error) {
	return func(ctx context.Context, _ *bench) (result, error) {
		pattern := "^" + strings.ReplaceAll(benchmark, "/", "$/^") + "$"
		// The benchmark ends by itself before it is killed, which would leave its child running.
		timeout := limit - 10*time.Second
		if end, ok := ctx.Deadline(); ok {
			timeout = max(time.Until(end)-10*time.Second, time.Second)
		}
		cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", pattern, "-benchtime", length, "-count", "1",
			"-timeout", timeout.String(), "github.com/xebec-project/xebec/"+of)
		cmd.WaitDelay = 5 * time.Second
		output, err := cmd.CombinedOutput()
		if err != nil {
			return result{}, fmt.Errorf("%s: %w\n%s", benchmark, err, output)
		}
		line, measured := parse(benchmark, output)
		text, ok := figure(measured)
		if !ok {
			return result{}, fmt.Errorf("%s reported no figure:\n%s", benchmark, output)
		}
		notes := []string{line}
		for line := range strings.Lines(string(output)) {
			if _, log, ok := strings.Cut(line, "_test.go:"); ok {
				_, log, _ = strings.Cut(log, ": ")
				notes = append(notes, log)
			}
		}
		return result{figure: text, notes: notes}, nil
	}
}

// parse finds a benchmark's line in go test's output.
func parse(benchmark string, output []byte) (string, figures) {
	for line := range bytes.Lines(output) {
		fields := strings.Fields(string(line))
		if len(fields) < 4 || !strings.HasPrefix(fields[0], benchmark) {
			continue
		}
		measured := make(figures)
		for i := 2; i+1 < len(fields); i += 2 {
			if value, err := strconv.ParseFloat(fields[i], 64); err == nil {
				measured[fields[i+1]] = value
			}
		}
		return strings.Join(fields, " "), measured
	}
	return "", nil
}

func wallTime(f figures) (string, bool) {
	ns, ok := f["ns/op"]
	return milliseconds(time.Duration(ns)), ok
}

func metric(unit string) func(figures) (string, bool) {
	return func(f figures) (string, bool) {
		value, ok := f[unit]
		return fmt.Sprintf("%.2f", value), ok
	}
}

// ways prints calls or connections per second, and their 99th percentile, by each of some ways that
// was measured.
func ways(names ...string) func(figures) (string, bool) {
	return func(f figures) (string, bool) {
		var parts []string
		for _, way := range names {
			if rate, ok := f[way+"/s"]; ok {
				parts = append(parts, fmt.Sprintf("%s %.0f/s, %.0f us", strings.ReplaceAll(way, "-", " "), rate, f[way+"-p99-us"]))
			}
		}
		return strings.Join(parts, "; "), len(parts) > 1
	}
}

var (
	connectWays  = ways("direct", "cluster-ip", "iptables", "nft")
	nodePortWays = ways("direct", "maps-local", "maps-remote", "iptables-local", "iptables-remote", "nft-local", "nft-remote")
)
