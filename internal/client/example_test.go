package client_test

import (
	"context"
	"fmt"
	"time"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// connect returns a client of an API server in memory. Programs pass a gRPC connection to a gateway
// or an apiserver to client.New.
func connect() (c *client.Client, stop func()) {
	conn, stop, err := clienttest.Connect(clienttest.NewServer())
	if err != nil {
		panic(err)
	}
	return client.New(conn, client.WithFieldManager("example")), stop
}

// An update that is based on an old version is refused. It is repeated on the stored version.
func ExampleUpdate() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()
	created, err := client.Create(ctx, c, configMap("settings", "a"))
	if err != nil {
		fmt.Println(err)
		return
	}
	changed := client.Clone(created)
	changed.Data["key"] = "b"
	if _, err := client.Update(ctx, c, changed); err != nil {
		fmt.Println(err)
		return
	}
	stale := client.Clone(created)
	stale.Data["key"] = "c"
	_, err = client.Update(ctx, c, stale)
	for apierr.IsConflict(err) {
		fmt.Println("the ConfigMap has changed, trying again")
		var stored *corev1.ConfigMap
		if stored, err = client.Get[*corev1.ConfigMap](ctx, c, "default", "settings"); err == nil {
			stored.Data["key"] = "c"
			stored, err = client.Update(ctx, c, stored)
			fmt.Println("key:", stored.GetData()["key"])
		}
	}
	// Output:
	// the ConfigMap has changed, trying again
	// key: c
}

// A list is a snapshot at one revision. A watch from that revision yields every later change.
func ExampleWatch() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()
	if _, err := client.Create(ctx, c, configMap("a", "1")); err != nil {
		fmt.Println(err)
		return
	}
	maps, revision, err := client.List[*corev1.ConfigMap](ctx, c, client.ListOptions{Namespace: "default"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(maps), "listed")
	for _, name := range []string{"b", "c"} {
		if _, err := client.Create(ctx, c, configMap(name, "2")); err != nil {
			fmt.Println(err)
			return
		}
	}
	seen := 0
	for event, err := range client.Watch[*corev1.ConfigMap](ctx, c, client.WatchOptions{Namespace: "default", ResourceVersion: revision}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		if event.Type == apiv1.EventType_EVENT_TYPE_BOOKMARK {
			continue
		}
		fmt.Println(event.Type, event.Object.GetMetadata().GetName())
		if seen++; seen == 2 {
			break
		}
	}
	// Output:
	// 1 listed
	// EVENT_TYPE_ADDED b
	// EVENT_TYPE_ADDED c
}

// An informer keeps a copy of the objects current. Its objects are shared and must not be changed.
func ExampleNewInformer() {
	c, stop := connect()
	defer stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	maps := client.NewInformer(c, client.InformerOptions[*corev1.ConfigMap]{Namespace: "default"})
	added := make(chan string, 1)
	maps.OnChange(func(_, now *corev1.ConfigMap) {
		if now != nil {
			added <- now.GetMetadata().GetName()
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = maps.Run(ctx) // It ends with ctx.
	}()
	if _, err := client.Create(ctx, c, configMap("settings", "a")); err != nil {
		fmt.Println(err)
		return
	}
	name := <-added
	m, found := maps.Get("default", name)
	fmt.Println(name, found, m.GetData()["key"])
	cancel()
	<-done
	// Output: settings true a
}

// The operations of a transaction are stored together, or none of them is.
func ExampleTransact() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()
	if _, err := client.Create(ctx, c, configMap("b", "1")); err != nil {
		fmt.Println(err)
		return
	}
	_, err := client.Transact(ctx, c, client.OpCreate(configMap("a", "1")), client.OpCreate(configMap("b", "1")))
	fmt.Println(apierr.IsAlreadyExists(err))
	_, err = client.Get[*corev1.ConfigMap](ctx, c, "default", "a")
	fmt.Println(apierr.IsNotFound(err))
	// Output:
	// true
	// true
}

// An object that is created under a lease is deleted when the lease ends.
func ExampleKeepLease() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()
	lease, err := client.KeepLease(ctx, c, 10*time.Second, func(err error) { fmt.Println("lost:", err) })
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := client.Create(ctx, c, configMap("presence", "here"), client.UnderLease(lease.ID())); err != nil {
		fmt.Println(err)
		return
	}
	if err := lease.Revoke(ctx); err != nil {
		fmt.Println(err)
		return
	}
	_, err = client.Get[*corev1.ConfigMap](ctx, c, "default", "presence")
	fmt.Println(apierr.IsNotFound(err))
	// Output: true
}
