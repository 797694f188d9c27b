package cli

import (
	"strings"
	"testing"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

func settings(name, value string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\ndata: {mode: " + value + "}\n---\n"
}

func TestReplace(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, &corev1.ConfigMap{Metadata: meta("a"), Data: map[string]string{"mode": "slow", "old": "x"}})
	c.run(t, "replace").want(t, exit.Usage, "", "-f is required")
	c.runInput(t, settings("a", "fast"), "replace", "-f", "-", "--dry-run=server").want(t, exit.OK, "configmap/a replaced (server dry run)\n")
	c.runInput(t, settings("a", "fast")+settings("b", "fast"), "replace", "-f", "-").
		want(t, exit.Failed, "configmap/a replaced\n", "error: stdin:6: ", `"b" not found`)
	c.run(t, "get", "cm", "a", "-o", "jsonpath={.data}").want(t, exit.OK, `{"mode":"fast"}`)
	c.runInput(t, settings("a", "faster"), "replace", "-f", "-", "--atomic").want(t, exit.OK, "configmap/a replaced\n")
	c.run(t, "get", "cm", "a", "-o", "jsonpath={.data.mode}").want(t, exit.OK, "faster")
}

func TestDiff(t *testing.T) {
	t.Setenv("XEBEC_EXTERNAL_DIFF", "")
	t.Setenv("KUBECTL_EXTERNAL_DIFF", "")
	c := startCluster(t)
	c.run(t, "diff").want(t, exit.Usage, "", "-f is required")
	c.runInput(t, settings("a", "fast"), "apply", "-f", "-").want(t, exit.OK, "configmap/a created\n")
	c.runInput(t, settings("a", "fast"), "diff", "-f", "-").want(t, exit.OK, "")
	r := c.runInput(t, settings("a", "slow")+settings("b", "new"), "diff", "-f", "-")
	for _, line := range []string{"--- LIVE/.v1.ConfigMap.default.a", "+++ MERGED/.v1.ConfigMap.default.a", "-  mode: fast", "+  mode: slow", "+  mode: new"} {
		if r.code != exit.Failed || !strings.Contains(r.out, line) {
			t.Errorf("code %d, %q is missing in\n%s%s", r.code, line, r.out, r.err)
		}
	}
	c.run(t, "get", "cm", "-o", "name").want(t, exit.OK, "configmap/a\n")
	c.runInput(t, strings.Replace(settings("a", "slow"), "\ndata", "\ndta", 1), "diff", "-f", "-").
		want(t, 2, "", "error: stdin:4: dta: unknown field, did you mean data?")

	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: b25l, b: dHdv}\n"
	c.runInput(t, strings.Replace(secret, "dHdv", "dGhyZWU=", 1), "apply", "-f", "-").want(t, exit.OK, "secret/s created\n")
	r = c.runInput(t, secret, "diff", "-f", "-")
	for _, hidden := range []string{"b25l", "dHdv", "dGhyZWU="} {
		if strings.Contains(r.out, hidden) {
			t.Errorf("a value of a secret is shown:\n%s", r.out)
		}
	}
	if r.code != exit.Failed || !strings.Contains(r.out, "+  b: '*** (after)'") || !strings.Contains(r.out, "   a: '***'") {
		t.Errorf("code %d, the difference of a secret is\n%s%s", r.code, r.out, r.err)
	}
	t.Setenv("KUBECTL_EXTERNAL_DIFF", "echo compare")
	c.runInput(t, settings("a", "slow"), "diff", "-f", "-").want(t, exit.OK, "compare LIVE MERGED\n")
}

func TestEdit(t *testing.T) {
	c := startCluster(t)
	clienttest.Seed(c.Server, &corev1.ConfigMap{Metadata: meta("a"), Data: map[string]string{"mode": "slow", "old": "x"}})
	editor := func(script string) { t.Setenv("XEBEC_EDITOR", script) }
	editor("true")
	c.run(t, "edit", "cm", "a").want(t, exit.OK, "configmap/a not changed\n")
	editor("sed -i -e s/slow/fast/ -e /old:/d")
	c.run(t, "edit", "cm/a", "--dry-run=server").want(t, exit.OK, "configmap/a edited (server dry run)\n")
	c.run(t, "edit", "cm/a").want(t, exit.OK, "configmap/a edited\n")
	c.run(t, "get", "cm", "a", "-o", "jsonpath={.data}").want(t, exit.OK, `{"mode":"fast"}`)
	// An error is shown in the file, and ends the command if the file is left as it is.
	editor("sed -i s/^data:/dta:/")
	c.run(t, "edit", "cm/a").want(t, exit.Failed, "", "still invalid", "# dta: unknown field, did you mean data?")
	editor("sed -i -e s/^dta:/data:/ -e t -e s/^data:/dta:/ -e s/fast/last/")
	c.run(t, "edit", "cm/a").want(t, exit.OK, "configmap/a edited\n")
	c.run(t, "get", "cm", "a", "-o", "jsonpath={.data.mode}").want(t, exit.OK, "last")
	editor(`sed -i "s/^  name: a/  name: b/"`)
	c.run(t, "edit", "cm/a").want(t, exit.Failed, "", "kind, namespace and name cannot be edited")
	editor("false")
	c.run(t, "edit", "cm/a").want(t, exit.Failed, "", `run editor "false"`)
	c.run(t, "edit", "cm").want(t, exit.Usage, "", "are required to select configmaps")
}
