package hosts

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// walkVariable has TestWalk boot hosts for a person to install a cluster on by hand.
const walkVariable = "XEBEC_HOSTS_WALK"

// TestWalk boots five hosts and two spare ones, of which none is in the inventory, says how to get
// at them, and keeps them until a file is removed. What docs/operations tells to do is tried on
// them as it is written.
func TestWalk(t *testing.T) {
	if os.Getenv(walkVariable) == "" {
		t.Skip("is for people: run with " + walkVariable + "=1")
	}
	needHosts(t)
	c := bareHosts(t, group{"masters", "master", 3, 11}, group{"nodes", "node", 2, 101})
	for i, name := range []string{"spare-1", "spare-2"} {
		if err := c.add(name, netip.MustParseAddr(fmt.Sprint("10.91.7.", 51+i))).boot(); err != nil {
			t.Fatal(err)
		}
	}
	hold := filepath.Join(c.dir, "hold")
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fmt.Printf(`
The control host:  nsenter --net=/run/netns/%[1]s-wire
A host:            ssh -i %[3]s root@10.91.7.11, there; 12 and 13, the nodes 101 and 102, spare ones 51 and 52
The inventory:     %[2]s/inventory.json
Programs:          %[4]s
The end of it:     rm %[2]s/hold
`, c.prefix, c.dir, c.sshKey, c.binaries)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for range ticker.C {
		if _, err := os.Stat(hold); err != nil {
			return
		}
	}
}
