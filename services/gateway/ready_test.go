package gateway

import (
	"context"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/xebec-project/xebec/internal/pki"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// TestReady: once a gateway is ready, a first call through it reaches the apiserver.
func TestReady(t *testing.T) {
	f := newFixture(t, DefaultConfig())
	held := &backend{name: "master-1"}
	held.put("ConfigMap", "one", &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Name: "one"}})
	f.serve("apiserver", "master-1", held.register)
	select {
	case <-f.service.Ready():
	case <-f.ctx.Done():
		t.Fatal("it is not ready although there is an apiserver")
	}
	api := apiv1.NewResourceServiceClient(f.dial(pki.AdminRequest("alice")))
	if _, err := api.Get(f.ctx, &apiv1.GetRequest{Object: &apiv1.ObjectReference{Kind: "ConfigMap", Name: "one"}}); err != nil {
		t.Errorf("the first call: %v", err)
	}
}

// TestReadyWithoutAnAPIServer: what is wrong can be asked.
func TestReadyWithoutAnAPIServer(t *testing.T) {
	f := newFixture(t, DefaultConfig())
	began := time.Now()
	select {
	case <-f.service.Ready():
	case <-f.ctx.Done():
		t.Fatal("it is never ready without an apiserver")
	}
	if took := time.Since(began); took < readyLimit/2 {
		t.Errorf("it was ready after %s, without an apiserver", took)
	}
	// A gateway that is stopped meanwhile stops at once.
	service, err := New(DefaultConfig(), Deps{Log: zaptest.NewLogger(t), TLS: f.cluster.Service(t, "gateway"), Etcd: f.etcd, Directory: f.directory})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := service.Run(ctx); err != nil {
		t.Error(err)
	}
}
