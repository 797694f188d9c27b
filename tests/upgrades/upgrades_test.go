// Package upgrades_test reads data of earlier versions with the programs of this source tree:
// snapshots of etcd that control planes of those versions wrote, restored as restore.yml restores
// them. testdata has a directory per version, with the snapshot, the objects as that version's
// apiserver returned them, and the names of the keys that signed tokens. hack/upgrade-data.sh adds
// one.
package upgrades_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kind"
	"github.com/xebec-project/xebec/internal/manifest"
	"github.com/xebec-project/xebec/internal/pki"
	authv1 "github.com/xebec-project/xebec/proto/xebec/auth/v1"
	"github.com/xebec-project/xebec/services/etcd"
	"github.com/xebec-project/xebec/tests/cluster"
)

var makeVersion = flag.String("make", "", "write the data of this version, by the programs in XEBEC_BIN, instead of reading any")

const (
	limit = 3 * time.Minute
	// manifests are what the data of every version is made of.
	manifests = "testdata/objects.yaml"

	snapshotFile, objectsFile, keysFile = "etcd.db.gz", "objects.json", "token-keys.json"
)

// start runs a control plane without controllers, which would change what is compared.
func start(t *testing.T, settings func(service string, settings map[string]any)) *cluster.Cluster {
	t.Helper()
	binaries, remove, err := cluster.Build(t.Context(), "xebecd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Config{Binaries: binaries, Services: []string{"etcd", "apiserver", "auth"}, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func dial(t *testing.T, c *cluster.Cluster) (*client.Client, authv1.TokenServiceClient) {
	t.Helper()
	apiserver, err := c.Dial("apiserver")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { apiserver.Close() })
	auth, err := c.Dial("auth")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { auth.Close() })
	return client.New(apiserver, client.WithFieldManager("upgrades")), authv1.NewTokenServiceClient(auth)
}

// objects returns all objects that the apiserver has, by kind, namespace and name, but those that
// tell of the running processes.
func objects(ctx context.Context, t *testing.T, c *client.Client) map[string]kind.Object {
	t.Helper()
	all := make(map[string]kind.Object)
	for _, k := range kind.All() {
		list, _, err := client.ListKind(ctx, c, k, client.ListOptions{})
		if err != nil {
			t.Fatalf("list %s: %v", k.Plural, err)
		}
		for _, object := range list {
			if key := client.KeyOf(object); !(key.Namespace == "default" && key.Name == "kubernetes") {
				all[fmt.Sprint(k.Name, " ", key)] = object
			}
		}
	}
	return all
}

// keys returns the names of the keys that tokens are checked with.
func keys(ctx context.Context, t *testing.T, auth authv1.TokenServiceClient) []string {
	t.Helper()
	resp, err := auth.ListKeys(ctx, &authv1.ListKeysRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Keys []struct {
			ID string `json:"kid"`
		} `json:"keys"`
	}
	if err := json.Unmarshal([]byte(resp.GetJwks()), &set); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, k := range set.Keys {
		names = append(names, k.ID)
	}
	return names
}

// TestDataOfEarlierVersions restores each snapshot and compares every object with what its own
// version returned.
func TestDataOfEarlierVersions(t *testing.T) {
	if *makeVersion != "" {
		write(t, *makeVersion)
		return
	}
	versions, err := filepath.Glob("testdata/*/" + snapshotFile)
	if err != nil || len(versions) == 0 {
		t.Fatalf("no data of earlier versions: %v", err)
	}
	for _, snapshot := range versions {
		t.Run(filepath.Base(filepath.Dir(snapshot)), func(t *testing.T) { read(t, filepath.Dir(snapshot)) })
	}
}

func read(t *testing.T, dir string) {
	file := unpack(t, filepath.Join(dir, snapshotFile))
	c := start(t, func(service string, settings map[string]any) {
		if service != "etcd" {
			return
		}
		cfg := etcd.DefaultConfig()
		cfg.Name, cfg.DataDir = settings["name"].(string), settings["dataDir"].(string)
		cfg.PeerURL, cfg.ClientURL = settings["peerURL"].(string), settings["clientURL"].(string)
		cfg.InitialCluster, cfg.Peer, cfg.Client = settings["initialCluster"].([]string), files(settings["peer"]), files(settings["client"])
		if err := etcd.Restore(cfg, file, 0, zap.NewNop()); err != nil {
			t.Fatal(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	api, auth := dial(t, c)
	got := objects(ctx, t, api)

	data, err := os.ReadFile(filepath.Join(dir, objectsFile))
	if err != nil {
		t.Fatal(err)
	}
	var stored map[string]json.RawMessage
	if err := json.Unmarshal(data, &stored); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for name, data := range stored {
		want, err := codec.Unmarshal(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		word, _, _ := strings.Cut(name, " ")
		seen[word] = true
		switch have, ok := got[name]; {
		case !ok:
			t.Errorf("%s is lost", name)
		case !proto.Equal(have, want):
			t.Errorf("%s is\n%s\nwant\n%s", name, prototext.Format(have), prototext.Format(want))
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%s was not there", name)
	}
	// The cluster goes on with it.
	for _, name := range []string{"settings", "fixed"} {
		if _, err := client.DeleteKind(ctx, api, mustKind(t, "ConfigMap"), "shop", name); err != nil {
			t.Errorf("delete what was restored: %v", err)
		}
	}
	t.Logf("%d objects of %d kinds", len(stored), len(seen))

	var names []string
	if data, err = os.ReadFile(filepath.Join(dir, keysFile)); err == nil {
		err = json.Unmarshal(data, &names)
	}
	if err != nil || len(names) == 0 {
		t.Fatalf("keys of tokens: %v, %v", names, err)
	}
	now := keys(ctx, t, auth)
	for _, name := range names {
		if !slices.Contains(now, name) {
			t.Errorf("the key %s of tokens is lost: there are %v", name, now)
		}
	}
}

// files reads a section of a configuration.
func files(section any) pki.Files {
	m := section.(map[string]any)
	return pki.Files{CA: m["ca"].(string), Cert: m["cert"].(string), Key: m["key"].(string)}
}

func mustKind(t *testing.T, name string) *kind.Kind {
	t.Helper()
	for _, k := range kind.All() {
		if k.Name == name {
			return k
		}
	}
	t.Fatalf("there is no kind %s", name)
	return nil
}

func unpack(t *testing.T, file string) string {
	t.Helper()
	packed, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	reader, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "etcd.db")
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

// write makes the data of a version, by its programs.
func write(t *testing.T, version string) {
	if os.Getenv("XEBEC_BIN") == "" {
		t.Fatal("-make needs XEBEC_BIN, a directory with the programs of that version; hack/upgrade-data.sh builds them")
	}
	documents, err := manifest.Load([]string{manifests}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	api, auth := dial(t, c)
	made := make(map[string]bool)
	for _, d := range documents {
		created, err := client.Create(ctx, api, proto.Clone(d.Object).(kind.Object))
		if err != nil {
			t.Fatalf("%s:%d: %v", d.Source, d.Line, err)
		}
		withStatus := proto.Clone(d.Object).(kind.Object)
		field := withStatus.ProtoReflect().Descriptor().Fields().ByName("status")
		if field != nil && withStatus.ProtoReflect().Has(field) {
			created.ProtoReflect().Set(field, withStatus.ProtoReflect().Get(field))
			if _, err := client.UpdateStatus(ctx, api, created); err != nil {
				t.Fatalf("status of %s:%d: %v", d.Source, d.Line, err)
			}
		}
	}
	all := objects(ctx, t, api)
	out := make(map[string]json.RawMessage)
	for name, object := range all {
		word, _, _ := strings.Cut(name, " ")
		made[word] = true
		if out[name], err = codec.Marshal(object); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range kind.All() {
		if !made[k.Name] {
			t.Errorf("there is no %s in %s", k.Name, manifests)
		}
	}

	dir := filepath.Join("testdata", version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	save := func(name string, value any) {
		t.Helper()
		data, err := json.MarshalIndent(value, "", " ")
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), append(data, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	save(objectsFile, out)
	save(keysFile, keys(ctx, t, auth))
	cli, err := c.Etcd()
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	snapshot, err := cli.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Close()
	var packed bytes.Buffer
	writer, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(writer, snapshot); err != nil {
		t.Fatal(err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, snapshotFile), packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d objects of kinds %v, %d bytes", len(out), slices.Sorted(maps.Keys(made)), packed.Len())
}
