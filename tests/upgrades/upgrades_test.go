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
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/manifest"
	"github.com/xebec-project/xebec/internal/pki"
	"github.com/xebec-project/xebec/internal/scheme"
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

// own names the service of the apiserver itself and its endpoints.
var own = client.Key{Namespace: "default", Name: "kubernetes"}

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
func objects(ctx context.Context, t *testing.T, c *client.Client) map[string]scheme.Object {
	t.Helper()
	all := make(map[string]scheme.Object)
	for _, k := range kinds.All() {
		list, _, err := client.ListKind(ctx, c, k, client.ListOptions{})
		if err != nil {
			t.Fatalf("list %s: %v", k.Plural, err)
		}
		for _, object := range list {
			if key := client.KeyOf(object); key != own {
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

// TestDataOfEarlierVersions restores each snapshot, compares every object with what its own version
// returned, and then gets, watches, updates, patches and deletes objects of every kind.
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
		// The apiserver creates these.
		if !regexp.MustCompile("^(PriorityClass system-|(FlowSchema|PriorityLevelConfiguration) (exempt|catch-all)$)").MatchString(name) {
			t.Errorf("%s was not there", name)
		}
	}
	for _, k := range kinds.All() {
		if seen[k.Name] {
			t.Run(k.Name, func(t *testing.T) { use(ctx, t, api, k) })
		}
	}
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

// touched is the annotation that use adds.
const touched = "upgrades.test/touched"

// use gets, watches, updates and patches every object of a kind, as clients do after an upgrade.
func use(ctx context.Context, t *testing.T, api *client.Client, k *scheme.Kind) {
	list, revision, err := client.ListKind(ctx, api, k, client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(map[client.Key]bool)
	for _, object := range list {
		key := client.KeyOf(object)
		if key == own {
			continue // The apiserver writes it.
		}
		got, err := client.GetKind(ctx, api, k, key.Namespace, key.Name)
		if err != nil || !proto.Equal(got, object) {
			t.Fatalf("get %s: %v\n%s\nwant\n%s", key, err, prototext.Format(got), prototext.Format(object))
		}
		updated, err := client.Update(ctx, api, annotated(object, "by update"))
		if err != nil {
			t.Errorf("update %s: %v", key, err)
			continue
		}
		if updated.GetMetadata().GetUid() != object.GetMetadata().GetUid() {
			t.Errorf("update of %s changed its uid", key)
		}
		patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:"by patch"}}}`, touched)
		patched, err := client.PatchKind(ctx, api, k, key.Namespace, key.Name, []byte(patch))
		if err != nil {
			t.Errorf("patch %s: %v", key, err)
			continue
		}
		// Nothing else of the object has changed by either.
		want := annotated(object, "by patch")
		k.Default(want) // An update adds the defaults that are newer than the stored object.
		for _, o := range []scheme.Object{patched, want} {
			o.GetMetadata().ResourceVersion, o.GetMetadata().ManagedFields = "", nil
		}
		if !proto.Equal(patched, want) {
			t.Errorf("%s is\n%s\nwant\n%s", key, prototext.Format(patched), prototext.Format(want))
		}
		waiting[key] = true
	}
	if len(waiting) == 0 {
		return
	}
	// A watch that begins before the changes reports them.
	for event, err := range client.WatchKind(ctx, api, k, client.WatchOptions{ResourceVersion: revision}) {
		if err != nil {
			t.Fatalf("watch: %v; not seen yet: %v", err, slices.Collect(maps.Keys(waiting)))
		}
		if event.Object != nil && event.Object.GetMetadata().GetAnnotations()[touched] == "by patch" {
			delete(waiting, client.KeyOf(event.Object))
		}
		if len(waiting) == 0 {
			break
		}
	}
}

// annotated returns a copy of an object with the annotation.
func annotated(object scheme.Object, value string) scheme.Object {
	o := proto.Clone(object).(scheme.Object)
	m := o.GetMetadata()
	if m.Annotations == nil {
		m.Annotations = make(map[string]string)
	}
	m.Annotations[touched] = value
	return o
}

// files reads a section of a configuration.
func files(section any) pki.Files {
	m := section.(map[string]any)
	return pki.Files{CA: m["ca"].(string), Cert: m["cert"].(string), Key: m["key"].(string)}
}

func mustKind(t *testing.T, name string) *scheme.Kind {
	t.Helper()
	for _, k := range kinds.All() {
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
		created, err := client.Create(ctx, api, proto.Clone(d.Object).(scheme.Object))
		if err != nil {
			t.Fatalf("%s:%d: %v", d.Source, d.Line, err)
		}
		withStatus := proto.Clone(d.Object).(scheme.Object)
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
	for _, k := range kinds.All() {
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
