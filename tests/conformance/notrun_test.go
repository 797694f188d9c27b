package conformance_test

import (
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// examined are the directories of the documentation's examples of which every file is run or said
// not to be.
var examined = []string{"pods", "service", "policy"}

// notRun says of examples, by pattern, why there is no trial of them. The first pattern that
// matches counts.
var notRun = []struct{ pattern, why string }{
	{"pods/pod-*-affinity.yaml", "affinity has no effect yet, which a warning tells"},
	{"pods/topology-spread-constraints/*.yaml", "topology spread constraints have no effect yet, which a warning tells"},
	{"pods/storage/pv-*.yaml", "there are no persistent volumes yet"},
	{"pods/security/seccomp/kind.yaml", "the configuration of another program"},
	{"pods/security/seccomp/profiles/*.json", "no objects: files for the nodes"},
	{"pods/security/seccomp/alpha/*.yaml", "by annotations that Kubernetes removed; a warning names the field"},
	{"pods/security/seccomp/ga/*.yaml", "needs filters of its own on the nodes: agent/pods tests pods with such"},
	{"service/networking/dual-stack-ipv6-svc.yaml", "by a field that Kubernetes removed; the error names the one of today"},
	{"policy/*psp.yaml", "PodSecurityPolicy is not served, nor by Kubernetes any more"},
	{"policy/priority-class-resourcequota.yaml", "ResourceQuota is not served"},
}

// left is the table of what is not run.
func left() [][]string {
	var rows [][]string
	for _, n := range notRun {
		rows = append(rows, []string{"`" + n.pattern + "`", n.why})
	}
	return rows
}

// TestEveryExampleIsRunOrExplained looks through the corpus for examples without a trial or a
// reason, and for reasons that nothing needs.
func TestEveryExampleIsRunOrExplained(t *testing.T) {
	root := filepath.Join(corpus(t), "kubernetes-website")
	tried := map[string]bool{}
	for _, trial := range allTrials() {
		for _, file := range trial.files {
			tried[file] = true
		}
	}
	used := map[string]bool{}
	for _, dir := range examined {
		err := filepath.WalkDir(filepath.Join(root, dir), func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)) {
				return err
			}
			file, err := filepath.Rel(root, name)
			if err != nil || tried[file] {
				return err
			}
			for _, n := range notRun {
				if ok, err := path.Match(n.pattern, file); err != nil {
					return err
				} else if ok {
					used[n.pattern] = true
					return nil
				}
			}
			t.Errorf("%s is neither run nor is it said why not", file)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range notRun {
		if !used[n.pattern] {
			t.Errorf("no file that is not run is %s: is %q true still?", n.pattern, n.why)
		}
		if strings.TrimSpace(n.why) == "" {
			t.Errorf("%s: no reason", n.pattern)
		}
	}
}
