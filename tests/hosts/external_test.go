package hosts

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/xebec-project/xebec/tests/guests"
)

// theirEtcd configures a member of etcd that no role installs.
const theirEtcd = `
name: theirs
dataDir: /srv/etcd/data
peerURL: https://%[1]s:2380
clientURL: https://%[1]s:2379
initialCluster: [theirs=https://%[1]s:2380]
peer: {ca: /srv/etcd/ca.crt, cert: /srv/etcd/tls.crt, key: /srv/etcd/tls.key}
client: {ca: /srv/etcd/ca.crt, cert: /srv/etcd/tls.crt, key: /srv/etcd/tls.key}
`

// checkExternalEtcd installs a control plane on the masters, which are bare, beside an etcd that is
// external: another authority, a host that is not in the inventory, a program that no role has
// brought there.
func (c *installed) checkExternalEtcd() {
	c.t.Helper()
	h, theirs := c.host("etcd-1"), filepath.Join(c.dir, "theirs")
	c.mustXebec(callLimit, "pki", "init", "--dir", theirs, "--cluster", "theirs")
	c.mustXebec(callLimit, "pki", "issue", "--dir", theirs, "--etcd", "member="+h.addr.String(), "--master", "client=10.91.7.1")
	for name, from := range map[string]string{
		"ca.crt": filepath.Join(theirs, "hosts/member/etcd/ca.crt"), "tls.crt": filepath.Join(theirs, "hosts/member/etcd/tls.crt"),
		"tls.key": filepath.Join(theirs, "hosts/member/etcd/tls.key"), "xebecd": filepath.Join(c.binaries, "xebecd"),
	} {
		content, err := os.ReadFile(from)
		if err != nil {
			c.t.Fatal(err)
		}
		c.put(h, "srv/etcd/"+name, content)
	}
	c.put(h, "srv/etcd/config.yaml", fmt.Appendf(nil, theirEtcd, h.addr))
	const start = "systemd-run --quiet --collect --unit=their-etcd /srv/etcd/xebecd etcd --config /srv/etcd/config.yaml"
	c.ssh(h.name, start)
	c.until(time.Minute, "their etcd serves", func() bool {
		_, err := c.handshake(h.addr.String() + ":2379")
		return err == nil
	})

	// Each service has a certificate of its own, and a role by it; what is there for all of them is
	// cloud's.
	client := filepath.Join(theirs, "hosts/client")
	pair := func(service string) map[string]any {
		return map[string]any{"cert": filepath.Join(client, service, "etcd.crt"), "key": filepath.Join(client, service, "etcd.key")}
	}
	external := pair("cloud")
	external["endpoints"], external["ca"] = []string{fmt.Sprintf("https://%s:2379", h.addr)}, filepath.Join(client, "cloud", "etcd-ca.crt")
	services := map[string]any{}
	for _, service := range []string{"apiserver", "auth", "gateway", "scheduler", "workloads", "nodes", "endpoints", "collector"} {
		services[service] = pair(service)
	}
	external["services"] = services
	c.writeExternalInventory(external)
	wrong := fmt.Sprintf(`{"xebec_etcd_external": {"endpoints": ["http://10.91.7.31"], "ca": "/nowhere/ca.crt", "cert": "%s/cloud/etcd.key",
		"services": {"unknown": {"cert": "%[1]s/cloud/etcd.crt"}, "auth": {"cert": "/nowhere/auth.crt", "key": "%[1]s/auth/etcd.key"}}}}`, client)
	out, err := c.playbook("site.yml", "-e", wrong)
	for _, want := range []string{
		"it needs endpoints, ca, cert and key", "must be addresses such as https://192.0.2.31:2379: http://10.91.7.31",
		"there is no file /nowhere/ca.crt on the control host", "etcd.key holds no certificate in PEM",
		"xebec_etcd_external.services has unknown", "every entry of xebec_etcd_external.services needs cert and key",
		"services.auth.cert: there is no file /nowhere/auth.crt",
	} {
		if err == nil || !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			c.t.Errorf("a wrong xebec_etcd_external is not refused with %q: %v\n%s", want, err, guests.LastLines([]byte(out), 60))
		}
	}

	c.mustPlaybook("site.yml")
	for _, p := range c.services() {
		if p.service == "etcd" {
			c.t.Errorf("an etcd of the roles runs on %s", p.host)
		}
	}
	for _, service := range []string{"cloud", "auth"} {
		want, err := os.ReadFile(filepath.Join(client, service, "etcd.crt"))
		if have := c.ssh("master-1", "cat /etc/xebec/"+service+"/etcd.crt"); err != nil || strings.TrimSpace(have) != strings.TrimSpace(string(want)) {
			c.t.Errorf("the certificate of %s for the external etcd: %v\n%s", service, err, have)
		}
	}
	if members := c.mustXebec(callLimit, "etcd", "status", "--check"); !strings.Contains(members, "theirs") {
		c.t.Errorf("the members of the external etcd:\n%s", members)
	}
	c.mustXebec(callLimit, "label", "namespace/default", "kept=elsewhere")
	c.checkUnchanged("master-1", "master-2")

	lived := c.services()
	c.ssh(h.name, "systemctl stop their-etcd")
	if out, err := c.xebec(callLimit, "label", "--overwrite", "namespace/default", "kept=nowhere", "--request-timeout", "3s"); err == nil {
		c.t.Errorf("without etcd this was written: %s", out)
	}
	c.ssh(h.name, start)
	c.until(2*time.Minute, "all of it is well when their etcd is back", func() bool {
		_, err := c.xebec(callLimit, "cluster", "status", "--check", "--request-timeout", "5s")
		return err == nil
	})
	c.mustXebec(callLimit, "label", "--overwrite", "namespace/default", "kept=again")
	if now := c.services(); !slices.Equal(now, lived) {
		c.t.Errorf("services were restarted because their etcd was away:\n%v\nwere\n%v", now, lived)
	}
	c.mustPlaybook("backup.yml")
	if backups, err := filepath.Glob(filepath.Join(c.state, "backups", "*.db")); err != nil || len(backups) != 1 {
		c.t.Errorf("backups through the gateway: %v, %v", backups, err)
	}
	if out, err := c.playbook("restore.yml", "-e", "snapshot=any"); err == nil || !strings.Contains(out, "etcd is external") {
		c.t.Errorf("a restore of an external etcd: %v\n%s", err, guests.LastLines([]byte(out), 20))
	}
}

// writeExternalInventory writes another inventory of the masters alone, without a load balancer.
func (c *installed) writeExternalInventory(etcd map[string]any) {
	c.t.Helper()
	content, err := os.ReadFile(c.inventory)
	if err != nil {
		c.t.Fatal(err)
	}
	var inventory struct {
		All struct {
			Vars     map[string]any `json:"vars"`
			Children map[string]any `json:"children"`
		} `json:"all"`
	}
	if err := json.Unmarshal(content, &inventory); err != nil {
		c.t.Fatal(err)
	}
	inventory.All.Vars["xebec_vip"], inventory.All.Vars["xebec_etcd_external"] = "", etcd
	inventory.All.Children = map[string]any{"masters": inventory.All.Children["masters"]}
	if content, err = json.MarshalIndent(inventory, "", "  "); err != nil {
		c.t.Fatal(err)
	}
	c.inventory = filepath.Join(c.dir, "external.json")
	if err := os.WriteFile(c.inventory, content, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// put writes a file that may be run onto a host's disk.
func (c *installed) put(h *host, path string, content []byte) {
	c.t.Helper()
	file := filepath.Join(h.dir, "root", path)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(file, content, 0o700); err != nil {
		c.t.Fatal(err)
	}
}
