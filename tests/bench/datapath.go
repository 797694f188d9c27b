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
	return benchmarkOf("agent/datapath", benchmark, figure)
}

// benchmarkOf measures by a benchmark of a package.
func benchmarkOf(of, benchmark string, figure func(figures) (string, bool)) func(context.Context, *bench) (result, error) {
	return func(ctx context.Context, _ *bench) (result, error) {
		pattern := "^" + strings.ReplaceAll(benchmark, "/", "$/^") + "$"
		cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", pattern, "-benchtime", "2s", "-count", "1",
			"github.com/xebec-project/xebec/"+of)
		output, err := cmd.CombinedOutput()
		if err != nil {
			return result{}, fmt.Errorf("%s: %w\n%s", benchmark, err, output)
		}
		line, measured := parse(benchmark, output)
		text, ok := figure(measured)
		if !ok {
			return result{}, fmt.Errorf("%s reported no figure:\n%s", benchmark, output)
		}
		return result{figure: text, notes: []string{line}}, nil
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

// shapes prints connections per second and their 99th percentile by each way that was measured.
func shapes(f figures) (string, bool) {
	var parts []string
	for _, way := range []string{"direct", "cluster-ip", "iptables", "nft"} {
		if rate, ok := f[way+"/s"]; ok {
			parts = append(parts, fmt.Sprintf("%s %.0f/s, %.0f us", way, rate, f[way+"-p99-us"]))
		}
	}
	return strings.Join(parts, "; "), len(parts) > 1
}

func nodePorts(f figures) (string, bool) {
	_, ok := f["remote-us"]
	return fmt.Sprintf("%.0f us; %.0f us; %.0f us", f["direct-us"], f["local-us"], f["remote-us"]), ok
}
