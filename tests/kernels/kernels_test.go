package kernels

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// kernelsVariable names the kernels to be tried, by their versions, with spaces between them.
const kernelsVariable = "XEBEC_KERNELS"

// Agents load and attach every program.
func TestPrograms(t *testing.T) {
	try(t, 10*time.Minute, "bpf")
}

// The packages that load them do their work, by their own tests.
func TestPackages(t *testing.T) {
	try(t, 40*time.Minute, "datapath", "policy", "podnet")
}

// notOn are tests of what a kernel has not.
var notOn = map[string][]string{
	"5.10": {
		// From 5.18 on, programs choose the error by which a service without endpoints refuses.
		"TestRecreatedCgroup", "TestIPv6", "TestRepairs", "TestNoEndpoint", "TestRemove", "TestTwoNodes",
		// From 5.14 on, a process can read its network namespace's cookie.
		"TestLoopbackIsTheNodes",
		// Debian 11 has no MPTCP.
		"TestTCP",
	},
}

// try runs the tests of the agent's packages on each kernel.
func try(t *testing.T, limit time.Duration, packages ...string) {
	wanted := strings.Fields(os.Getenv(kernelsVariable))
	if len(wanted) == 0 {
		t.Skipf("boots machines that are emulated: name kernels in %s, as make test-kernels does", kernelsVariable)
	}
	b := newBuilder(t)
	for _, name := range packages {
		b.compile("test", name, "../../agent/"+name)
	}
	for _, linux := range wanted {
		t.Run(linux, func(t *testing.T) {
			suite := suites[linux]
			if suite == "" {
				t.Fatalf("of Linux %s no package is known; there are: %v", linux, suites)
			}
			var tests []Test
			for _, name := range packages {
				args := []string{"-test.v", "-test.timeout", (limit - time.Minute).String()}
				if skip := notOn[linux]; skip != nil {
					args = append(args, "-test.skip", "^("+strings.Join(skip, "|")+")$")
				}
				tests = append(tests, Test{Name: name, Path: "/tests/" + name, Args: args})
			}
			said := b.boot(t, kernel(t, suite), limit, tests)
			for _, name := range packages {
				before, after, ok := strings.Cut(said, "\n"+name+Passed+"\n")
				if !ok {
					before, after, _ = strings.Cut(said, "\n"+name+Failed+"\n")
				}
				report(t, name, before, ok)
				said = after
			}
		})
	}
}

// verdict is a line of a test program's.
var verdict = regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): (\S+) \((.*)\)$`)

// report tells of each test of a package how it went.
func report(t *testing.T, name, said string, passed bool) {
	t.Run(name, func(t *testing.T) {
		t.Log("\n" + said)
		if !passed || !verdict.MatchString(said) {
			t.Fail()
		}
	})
}
