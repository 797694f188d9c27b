package hosts

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/rpc"
	clusterv1 "github.com/xebec-project/xebec/proto/xebec/cluster/v1"
)

// checkTokens makes tokens through the virtual IP, by one instance of auth after the other, and has
// each recognised by another gateway: all know one another's. So is the token of the first call,
// whatever became of the masters since.
func (c *installed) checkTokens() {
	c.t.Helper()
	masters := c.named("master")
	endpoints := []string{virtualIP + ":6443"}
	for _, h := range masters {
		endpoints = append(endpoints, h.addr.String()+":6443")
	}
	if c.token == "" {
		c.token = c.createToken()
	}
	for _, endpoint := range endpoints {
		c.recognised(endpoint, c.token)
	}
	for i := range 2 * len(masters) {
		c.recognised(endpoints[i%len(endpoints)], c.createToken())
	}
}

func (c *installed) createToken() string {
	c.t.Helper()
	return strings.TrimSpace(c.mustXebec(callLimit, "create", "token", "default", "--duration", "3h"))
}

// recognised calls a gateway with nothing but a token of the default account.
func (c *installed) recognised(endpoint, token string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), callLimit)
	defer cancel()
	trusted, err := os.ReadFile(filepath.Join(c.state, "pki/admins/admin/ca.crt"))
	if err != nil {
		c.t.Fatal(err)
	}
	trust, err := pki.NewTrustSource(trusted)
	if err != nil {
		c.t.Fatal(err)
	}
	conn, err := rpc.Dial(endpoint, rpc.ClientConfig{TLS: trust, Options: []grpc.DialOption{
		grpc.WithPerRPCCredentials(rpc.Bearer(token)), grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return c.wire.Dial(ctx, netip.MustParseAddrPort(address))
		}),
	}})
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close()
	who, err := clusterv1.NewClusterServiceClient(conn).WhoAmI(ctx, &clusterv1.WhoAmIRequest{}, grpc.WaitForReady(true))
	if err != nil {
		c.t.Errorf("%s does not take a token: %v", endpoint, err)
	} else if want := "system:serviceaccount:default:default"; who.GetUser() != want {
		c.t.Errorf("%s takes the token of %s for %s's", endpoint, want, who.GetUser())
	}
}
