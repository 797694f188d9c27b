package etcd

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/xebec-project/xebec/internal/pki"
)

// MaxTxnOps is how many operations one transaction may hold, in place of etcd's own 128: a Transact
// of 500 writes has as many conditions, and as many reads for the case that one fails.
const MaxTxnOps = 10240

const (
	// An object of 1.5 MiB, in a transaction with a few more, fits well; larger ones the apiserver
	// refuses.
	maxRequestBytes = 4 << 20

	// What the raft log keeps in memory: so many entries before it is cut, and so many of them after.
	// etcd's own 10,000 and 5,000 hold tens of megabytes when objects are of some kilobytes. A
	// follower that is further behind gets a snapshot, which is small and fast for databases of this
	// size.
	snapshotEntries = 5000
	catchUpEntries  = 1000

	// Deleting old revisions in small steps keeps the writes in between fast.
	compactionBatch = 500
)

// tlsInfo demands a certificate of the other side as well. etcd reads the files again for every
// connection.
func tlsInfo(f pki.Files) transport.TLSInfo {
	if f.IsZero() {
		return transport.TLSInfo{}
	}
	return transport.TLSInfo{CertFile: f.Cert, KeyFile: f.Key, TrustedCAFile: f.CA, ClientCertAuth: true}
}

// peerTLSInfo demands a member's certificate of the other side: a member reads and writes
// everything.
func peerTLSInfo(f pki.Files) transport.TLSInfo {
	info := tlsInfo(f)
	if !f.IsZero() {
		info.AllowedCNs = []string{pki.ServiceUser(pki.EtcdMember)}
	}
	return info
}

// checkIdentity returns an error when an own certificate is not a member's: the other members would
// refuse it.
func (c *Config) checkIdentity() error {
	for key, f := range map[string]pki.Files{"peer": c.Peer, "client": c.Client} {
		if f.IsZero() {
			continue
		}
		source, err := pki.NewSource(f)
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		if got, want := source.Leaf().Subject.CommonName, pki.ServiceUser(pki.EtcdMember); got != want {
			return fmt.Errorf("%s.cert: %s belongs to %q, want %q: other members accept no other certificate", key, f.Cert, got, want)
		}
	}
	return nil
}

// Config configures a member. Start from DefaultConfig.
type Config struct {
	// Name is the member's name, one of those in InitialCluster.
	Name string `yaml:"name" help:"name of this member"`
	// DataDir holds the database and the log, and nothing else. It is made, readable by its owner
	// alone.
	DataDir string `yaml:"dataDir" help:"directory of the database"`
	// PeerURL is where the other members reach this one, ClientURL where clients do; ListenPeer and
	// ListenClient are what it listens at, by default the same.
	PeerURL      string `yaml:"peerURL" help:"URL at which the other members reach this one"`
	ClientURL    string `yaml:"clientURL" help:"URL at which clients reach this member"`
	ListenPeer   string `yaml:"listenPeer" help:"URL to listen at for members (default: --peer-url)"`
	ListenClient string `yaml:"listenClient" help:"URLs to listen at for clients, separated by commas (default: --client-url)"`
	// MetricsURL serves etcd's own /metrics and /health, to holders of certificates that `client.ca`
	// signed, as at `clientURL`. Empty serves them at `clientURL` alone, and gRPC there at twice the
	// processor time.
	MetricsURL string `yaml:"metricsURL" help:"URL for etcd's own /metrics and /health, to holders of client certificates"`
	// InitialCluster names all members of a new cluster, as name=peerURL. It counts until the member
	// has data.
	InitialCluster []string `yaml:"initialCluster" help:"all members, as name=peerURL"`
	// Join says that the cluster exists already and the member was added to it.
	Join bool `yaml:"join" help:"join a cluster that exists already"`
	// Token keeps clusters apart that were made from the same addresses.
	Token string `yaml:"token" help:"name of the cluster, the same for all members"`
	// Peer and Client are the identities toward members and clients, both xebec:etcd on etcd's
	// authority. Members accept no other certificate of a member. A client's certificate decides what
	// the client may do. Without files the connections are neither encrypted nor authenticated, which
	// is only for tests.
	Peer   pki.Files `yaml:"peer"`
	Client pki.Files `yaml:"client"`
	// QuotaBytes is the size of the database at which writes are refused.
	QuotaBytes int64 `yaml:"quotaBytes" help:"size of the database at which writes are refused"`
	// CompactAfter is how long old revisions are kept where no apiserver compacts them sooner, as its
	// storage.keepPast says.
	CompactAfter time.Duration `yaml:"compactAfter" help:"how long old revisions are kept if no apiserver compacts them sooner"`
	// Heartbeat and Election are the raft timings, which must be the same on all members.
	//
	// A leader that falls silent is replaced after one to two times Election. The defaults, 100 ms and
	// 500 ms, bring writes back within a second of a crash. A leader whose disk stalls for longer than
	// that loses its lead as well, and follows when the disk is back: with two healthy members left,
	// that is what it should do. Raise both when members are more than 20 ms apart or share processors
	// that are busy for half a second at a time.
	Heartbeat time.Duration `yaml:"heartbeat" help:"time between a leader's signs of life"`
	Election  time.Duration `yaml:"election" help:"silence after which a leader is replaced; at least five heartbeats"`
}

// DefaultConfig returns the defaults of what need not be given.
func DefaultConfig() Config {
	return Config{
		MetricsURL:   "https://127.0.0.1:2381",
		Token:        "xebec",
		QuotaBytes:   8 << 30,
		CompactAfter: 2 * time.Hour,
		Heartbeat:    100 * time.Millisecond,
		Election:     500 * time.Millisecond,
	}
}

// Validate returns all problems of the configuration, joined.
func (c *Config) Validate() error {
	var errs []error
	problem := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.Name == "" {
		problem("name", "must be given")
	}
	if !filepath.IsAbs(c.DataDir) {
		problem("dataDir", "must be an absolute path, is %q", c.DataDir)
	}
	for key, u := range map[string]struct {
		value    string
		optional bool
		files    *pki.Files
	}{
		"peerURL":      {c.PeerURL, false, &c.Peer},
		"clientURL":    {c.ClientURL, false, &c.Client},
		"listenPeer":   {c.ListenPeer, true, &c.Peer},
		"listenClient": {c.ListenClient, true, &c.Client},
		"metricsURL":   {c.MetricsURL, true, &c.Client},
	} {
		if u.value == "" {
			if !u.optional {
				problem(key, "must be given")
			}
			continue
		}
		parsed, err := parseURLs(u.value)
		if err != nil {
			problem(key, "%v", err)
			continue
		}
		for _, p := range parsed {
			switch {
			case !u.files.IsZero() && p.Scheme != "https":
				problem(key, "%s must be https, for certificates are given", &p)
			case u.files.IsZero() && p.Scheme == "https":
				problem(key, "%s needs certificates", &p)
			}
		}
	}
	for key, f := range map[string]pki.Files{"peer": c.Peer, "client": c.Client} {
		if !f.IsZero() && (f.Cert == "" || f.Key == "" || f.CA == "") {
			problem(key, "cert, key and ca must be given together")
		}
	}
	members := make(map[string]string)
	for _, m := range c.InitialCluster {
		name, peer, ok := strings.Cut(m, "=")
		if _, err := parseURLs(peer); !ok || name == "" || err != nil {
			problem("initialCluster", "%q is not name=peerURL", m)
			continue
		}
		if _, twice := members[name]; twice {
			problem("initialCluster", "%s occurs twice", name)
		}
		members[name] = peer
	}
	if peer, ok := members[c.Name]; c.Name != "" && !ok {
		problem("initialCluster", "does not have this member, %s", c.Name)
	} else if ok && peer != c.PeerURL {
		problem("initialCluster", "has %s at %s, peerURL is %s", c.Name, peer, c.PeerURL)
	}
	if c.QuotaBytes < 64<<20 {
		problem("quotaBytes", "must be 64 MiB at least, is %d", c.QuotaBytes)
	}
	if c.CompactAfter < time.Minute {
		problem("compactAfter", "must be a minute at least, is %s", c.CompactAfter)
	}
	if c.Heartbeat < 10*time.Millisecond || c.Election < 5*c.Heartbeat || c.Election > 50*time.Second {
		problem("heartbeat, election", "need a heartbeat of 10 ms at least and an election of five heartbeats to 50 s, are %s and %s",
			c.Heartbeat, c.Election)
	}
	return errors.Join(errs...)
}

// parseURLs parses URLs separated by commas.
func parseURLs(s string) ([]url.URL, error) {
	var out []url.URL
	for part := range strings.SplitSeq(s, ",") {
		u, err := url.Parse(part)
		switch {
		case err != nil:
			return nil, err
		case u.Scheme != "http" && u.Scheme != "https", u.Port() == "", u.Path != "":
			return nil, fmt.Errorf("%q is not http[s]://host:port", part)
		}
		out = append(out, *u)
	}
	return out, nil
}

// embedded translates the configuration, which must be valid, into etcd's.
func (c *Config) embedded(log *zap.Logger, options ...grpc.ServerOption) (*embed.Config, error) {
	cfg := embed.NewConfig()
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)
	cfg.Name, cfg.Dir = c.Name, c.DataDir
	for _, u := range []struct {
		to    *[]url.URL
		value string
	}{
		{&cfg.AdvertisePeerUrls, c.PeerURL},
		{&cfg.AdvertiseClientUrls, c.ClientURL},
		{&cfg.ListenPeerUrls, firstOf(c.ListenPeer, c.PeerURL)},
		{&cfg.ListenClientUrls, firstOf(c.ListenClient, c.ClientURL)},
		// A URL of its own for HTTP has a second use: without it gRPC over TLS is served by net/http's
		// HTTP/2 instead of gRPC's own, which costs twice the processor time.
		{&cfg.ListenClientHttpUrls, c.MetricsURL},
	} {
		*u.to = nil
		if u.value == "" {
			continue
		}
		var err error
		if *u.to, err = parseURLs(u.value); err != nil {
			return nil, err
		}
	}
	cfg.InitialCluster, cfg.InitialClusterToken = strings.Join(c.InitialCluster, ","), c.Token
	if c.Join {
		cfg.ClusterState = embed.ClusterStateFlagExisting
	}
	// etcd's JSON API would call with the member's own certificate whatever its callers show.
	cfg.EnableGRPCGateway = false
	cfg.PeerTLSInfo, cfg.ClientTLSInfo = peerTLSInfo(c.Peer), tlsInfo(c.Client)

	cfg.TickMs, cfg.ElectionMs = uint(c.Heartbeat.Milliseconds()), uint(c.Election.Milliseconds())
	cfg.PreVote = true // a member that comes back does not unseat the leader

	cfg.QuotaBackendBytes = c.QuotaBytes
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, c.CompactAfter.String()
	cfg.CompactionBatchLimit = compactionBatch
	cfg.MaxTxnOps, cfg.MaxRequestBytes = MaxTxnOps, maxRequestBytes
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = snapshotEntries, catchUpEntries
	cfg.GRPCAdditionalServerOptions = options
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(c.DataDir, 0o700); err != nil {
		return nil, err
	}
	return cfg, nil
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
