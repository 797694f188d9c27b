package controller_test

import (
	"context"
	"fmt"

	"github.com/xebec-project/xebec/internal/client"
	"github.com/xebec-project/xebec/internal/client/clienttest"
	"github.com/xebec-project/xebec/internal/controller"
	"github.com/xebec-project/xebec/internal/kinds"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// connect serves an API server in memory and returns a client of it.
func connect(api *clienttest.Server) (c *client.Client, stop func()) {
	conn, stop, err := clienttest.Connect(api)
	if err != nil {
		panic(err)
	}
	return client.New(conn), stop
}

// A controller copies the key "want" of every config map to "have". It is level-triggered: a
// reconcile compares what is with what should be, and does not ask what happened.
func ExampleTerm() {
	api := clienttest.NewServer()
	c, disconnect := connect(api)
	defer disconnect()
	clienttest.Seed(api, &corev1.ConfigMap{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "greeting"},
		Data:     map[string]string{"want": "hello"},
	})

	ctx, stop := context.WithCancel(context.Background())
	term := controller.NewTerm(ctx, c, nil, controller.NewMetrics(nil))
	maps := controller.Informer(term, client.InformerOptions[*corev1.ConfigMap]{})
	reconcile := func(ctx context.Context, key controller.Key) (controller.Result, error) {
		m, ok := maps.Get(key.Namespace, key.Name)
		if !ok {
			return controller.Result{}, nil
		}
		if m.Data["have"] == m.Data["want"] {
			fmt.Printf("%s has %q\n", key, m.Data["have"])
			stop()
			return controller.Result{}, nil
		}
		m = client.Clone(m) // An informer's objects must not be changed.
		m.Data["have"] = m.Data["want"]
		_, err := client.Update(ctx, term.Client(), m)
		return controller.Result{}, err
	}
	controller.For(term.Controller("copy", 1, reconcile), maps)
	fmt.Println("the term ended:", term.Run())
	// Output:
	// default/greeting has "hello"
	// the term ended: context canceled
}

// A controller keeps as many pods as a ReplicaSet asks for. It adopts the pod that matches already
// and creates the others; no pod is created twice, although the informer lags behind the writes.
func ExampleDependents() {
	api := clienttest.NewServer()
	c, disconnect := connect(api)
	defer disconnect()
	replicas := int32(3)
	template := &corev1.PodSpec{Containers: []*corev1.Container{{Name: "web", Image: "example/echo:1"}}}
	labels := map[string]string{"app": "web"}
	orphan := client.Clone(&corev1.Pod{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "orphan", Labels: labels}, Spec: template,
	})
	kinds.Of(orphan).Default(orphan)
	clienttest.Seed(api, orphan)
	clienttest.Seed(api, &appsv1.ReplicaSet{
		Metadata: &metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec:     &appsv1.ReplicaSetSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}},
	})

	ctx, stop := context.WithCancel(context.Background())
	term := controller.NewTerm(ctx, c, nil, controller.NewMetrics(nil))
	sets := controller.Informer(term, client.InformerOptions[*appsv1.ReplicaSet]{})
	pods := controller.NewDependents(controller.DependentsConfig[*appsv1.ReplicaSet, *corev1.Pod]{
		Client: term.Client(), Owners: sets,
		Dependents: controller.Informer(term, client.InformerOptions[*corev1.Pod]{Indexers: controller.ByController[*corev1.Pod]()}),
		Selector:   func(rs *appsv1.ReplicaSet) *metav1.LabelSelector { return rs.GetSpec().GetSelector() },
	})
	reconcile := func(ctx context.Context, key controller.Key) (controller.Result, error) {
		rs, ok := sets.Get(key.Namespace, key.Name)
		if !ok {
			pods.Forget(key)
			return controller.Result{}, nil
		}
		owned, wait, err := pods.Claim(ctx, rs)
		if wait > 0 || err != nil {
			return controller.Result{RequeueAfter: wait}, err
		}
		missing := int(rs.GetSpec().GetReplicas()) - len(owned)
		if missing <= 0 {
			fmt.Println(key, "has", len(owned), "pods")
			stop()
			return controller.Result{}, nil
		}
		created, err := pods.Create(ctx, rs, missing, func(int) *corev1.Pod {
			return client.Clone(&corev1.Pod{
				Metadata: &metav1.ObjectMeta{Namespace: key.Namespace, GenerateName: key.Name + "-", Labels: labels},
				Spec:     template,
			})
		})
		fmt.Println("created", len(created), "pods")
		return controller.Result{}, err
	}
	loop := term.Controller("replicas", 1, reconcile)
	controller.For(loop, sets)
	pods.Watch(loop)
	_ = term.Run()
	// Output:
	// created 2 pods
	// default/web has 3 pods
}
