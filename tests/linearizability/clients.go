package linearizability

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/client"
	apiv1 "github.com/xebec-project/xebec/proto/xebec/api/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// namespace is where the objects are.
const namespace = "default"

// valueKey is the key of a config map that holds the object's value.
const valueKey = "value"

func nameOf(key int) string { return "register-" + strconv.Itoa(key) }

// keyOf returns the key of an object's name, false for objects that are not the test's.
func keyOf(name string) (int, bool) {
	for key := range keys {
		if nameOf(key) == name {
			return key, true
		}
	}
	return 0, false
}

func configMap(key int, value, resourceVersion string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		Metadata: &metav1.ObjectMeta{Namespace: namespace, Name: nameOf(key), ResourceVersion: resourceVersion},
		Data:     map[string]string{valueKey: value},
	}
}

func versionOf(m *corev1.ConfigMap) (object, error) {
	revision, err := strconv.ParseInt(m.GetMetadata().GetResourceVersion(), 10, 64)
	return object{m.GetData()[valueKey], revision}, err
}

// operation is one call of a client.
type operation struct {
	client    int
	in        request
	out       response
	call, end time.Duration // since the history began
}

// history collects operations.
type history struct {
	began time.Time

	mu         sync.Mutex
	operations []operation
}

func (h *history) now() time.Duration { return time.Since(h.began) }

func (h *history) add(o operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations = append(h.operations, o)
}

// unread is an object of which a caller knows no more than that it exists.
var unread = object{value: "?"}

// caller is one client: it makes operations one after another, each through an apiserver of its
// choice.
type caller struct {
	id       int
	replicas []*client.Client
	history  *history
	random   *rand.Rand
	pace     *rate.Limiter
	// known is what the caller last saw of each object.
	known [keys]object
	count int
}

// run makes operations until ctx ends. It returns an error that no operation should ever have.
func (c *caller) run(ctx context.Context) error {
	for c.pace.Wait(ctx) == nil {
		if err := c.once(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}
	return nil
}

func (c *caller) once(ctx context.Context) error {
	in := c.choose()
	// Impatient callers leave more operations without an answer.
	timeout := []time.Duration{200 * time.Millisecond, time.Second, 5 * time.Second}[c.random.IntN(3)]
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	replica := c.replicas[c.random.IntN(len(c.replicas))]
	o := operation{client: c.id, in: in, call: c.history.now()}
	out, err := c.do(ctx, replica, in)
	o.end = c.history.now()
	if out.outcome, err = classify(err); err != nil {
		return fmt.Errorf("%v: %w", in, err)
	}
	if out.outcome == unknown && in.read != "" {
		return nil // a read without an answer tells nothing and changes nothing
	}
	if out.outcome == conflict && !in.conditional() {
		return nil // the apiserver gave up among too many other writers
	}
	o.out = out
	c.learn(in, out)
	c.history.add(o)
	return nil
}

// conditional tells whether one of the writes names the version to change.
func (r request) conditional() bool {
	return slices.ContainsFunc(r.writes, func(w write) bool { return w.expect != "" })
}

// choose picks what to do next.
func (c *caller) choose() request {
	key := c.random.IntN(keys)
	expect := ""
	if now := c.known[key]; now.revision != 0 && c.random.IntN(2) == 0 {
		expect = now.value
	}
	switch n := c.random.IntN(100); {
	case n < 25:
		return request{read: get, key: key}
	case n < 35:
		return request{read: list}
	case n < 80:
		return request{writes: []write{c.put(key, expect)}}
	case n < 90:
		return request{writes: []write{{verb: remove, key: key, expect: expect}}}
	}
	other := (key + 1 + c.random.IntN(keys-1)) % keys
	return request{writes: []write{c.put(key, expect), c.put(other, "")}}
}

// put writes a value that no client wrote before: by create when the object is thought to be
// absent, or else by update.
func (c *caller) put(key int, expect string) write {
	c.count++
	w := write{verb: update, key: key, value: fmt.Sprintf("%d.%d", c.id, c.count), expect: expect}
	if c.known[key].value == "" {
		w.verb, w.expect = create, ""
	}
	return w
}

// learn keeps what an operation tells about the objects.
func (c *caller) learn(in request, out response) {
	switch {
	case in.read == list:
		c.known = out.objects
	case in.read == get:
		c.known[in.key] = out.objects[in.key]
	}
	for _, w := range in.writes {
		switch {
		case out.outcome == absent, out.outcome == done && w.verb == remove:
			c.known[w.key] = object{}
		case out.outcome == done:
			c.known[w.key] = object{w.value, out.revision}
		case out.outcome == exists, out.outcome == conflict:
			c.known[w.key] = unread
		}
	}
}

// version is the resourceVersion that stands for the value which a write expects.
func (c *caller) version(w write) string {
	if w.expect == "" {
		return ""
	}
	return strconv.FormatInt(c.known[w.key].revision, 10)
}

// do makes the call. The response holds the result of a call without error.
func (c *caller) do(ctx context.Context, api *client.Client, in request) (response, error) {
	var out response
	var err error
	switch {
	case in.read == get:
		var m *corev1.ConfigMap
		if m, err = client.Get[*corev1.ConfigMap](ctx, api, namespace, nameOf(in.key)); err == nil {
			out.objects[in.key], err = versionOf(m)
		}
		return out, err
	case in.read == list:
		return c.list(ctx, api)
	case len(in.writes) > 1:
		var operations []client.Operation
		for _, w := range in.writes {
			if w.verb == create {
				operations = append(operations, client.OpCreate(configMap(w.key, w.value, "")))
			} else {
				operations = append(operations, client.OpUpdate(configMap(w.key, w.value, c.version(w))))
			}
		}
		result, err := client.Transact(ctx, api, operations...)
		if err != nil {
			return out, err
		}
		out.revision, err = strconv.ParseInt(result.Revision, 10, 64)
		return out, err
	}
	var m *corev1.ConfigMap
	switch w := in.writes[0]; w.verb {
	case create:
		m, err = client.Create(ctx, api, configMap(w.key, w.value, ""))
	case update:
		m, err = client.Update(ctx, api, configMap(w.key, w.value, c.version(w)))
	case remove:
		m, err = c.remove(ctx, api, w)
	}
	if err != nil {
		return out, err
	}
	o, err := versionOf(m)
	out.revision = o.revision
	return out, err
}

// remove deletes an object and returns its last state, whose resourceVersion is the deletion's.
func (c *caller) remove(ctx context.Context, api *client.Client, w write) (*corev1.ConfigMap, error) {
	resp, err := api.Resources().Delete(ctx, &apiv1.DeleteRequest{
		Object:          &apiv1.ObjectReference{Kind: "ConfigMap", Namespace: namespace, Name: nameOf(w.key)},
		ResourceVersion: c.version(w),
	})
	if err != nil {
		return nil, err
	}
	m := new(corev1.ConfigMap)
	return m, resp.GetObject().UnmarshalTo(m)
}

func (c *caller) list(ctx context.Context, api *client.Client) (response, error) {
	var out response
	objects, revision, err := client.List[*corev1.ConfigMap](ctx, api, client.ListOptions{Namespace: namespace})
	if err != nil {
		return out, err
	}
	if out.revision, err = strconv.ParseInt(revision, 10, 64); err != nil {
		return out, err
	}
	for _, m := range objects {
		if key, ok := keyOf(m.GetMetadata().GetName()); ok {
			if out.objects[key], err = versionOf(m); err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

// classify turns a call's error into an outcome. The error it returns is one that no call should
// have.
func classify(err error) (outcome, error) {
	switch {
	case err == nil:
		return done, nil
	case apierr.IsNotFound(err):
		return absent, nil
	case apierr.IsAlreadyExists(err):
		return exists, nil
	case apierr.IsConflict(err):
		return conflict, nil
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return unknown, nil
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return unknown, nil
	}
	return "", err
}
