package codec_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/xebec-project/xebec/internal/codec"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
	appsv1 "github.com/xebec-project/xebec/proto/xebec/apps/v1"
	coordinationv1 "github.com/xebec-project/xebec/proto/xebec/coordination/v1"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

var stamp = timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))

// samples have one message per thing that JSON writes differently, in the one form that the codec
// writes.
var samples = []struct {
	name    string
	message proto.Message
	json    string
}{
	{
		name:    "an object starts with apiVersion, kind and metadata",
		message: &appsv1.Deployment{Metadata: &metav1.ObjectMeta{Name: "web"}, Spec: &appsv1.DeploymentSpec{Replicas: proto.Int32(0)}},
		json:    `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":0}}`,
	},
	{
		name:    "members are sorted and map keys too",
		message: &corev1.ConfigMap{Metadata: &metav1.ObjectMeta{Name: "c"}, Data: map[string]string{"b": "2", "a": "1"}, BinaryData: map[string][]byte{"x": {0, 255}}},
		json:    `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"binaryData":{"x":"AP8="},"data":{"a":"1","b":"2"}}`,
	},
	{
		name:    "zero values are left out with implicit presence and kept with explicit presence",
		message: &corev1.SecurityContext{Privileged: proto.Bool(false), Capabilities: &corev1.Capabilities{}},
		json:    `{"capabilities":{},"privileged":false}`,
	},
	{
		name:    "64-bit integers are numbers",
		message: &corev1.PodSecurityContext{RunAsUser: proto.Int64(9007199254740993)},
		json:    `{"runAsUser":9007199254740993}`,
	},
	{
		name: "inline messages",
		message: &corev1.Probe{Handler: &corev1.ProbeHandler{TcpSocket: &corev1.TCPSocketAction{
			Port: &metav1.IntOrString{IntVal: 80}}}, PeriodSeconds: 3},
		json: `{"periodSeconds":3,"tcpSocket":{"port":80}}`,
	},
	{
		name:    "int or string",
		message: &appsv1.RollingUpdateDeployment{MaxSurge: &metav1.IntOrString{Type: 1, StrVal: "25%"}, MaxUnavailable: &metav1.IntOrString{}},
		json:    `{"maxSurge":"25%","maxUnavailable":0}`,
	},
	{
		name:    "quantities",
		message: &corev1.ResourceRequirements{Limits: map[string]*metav1.Quantity{"cpu": {String_: "500m"}, "memory": {String_: "1Gi"}}},
		json:    `{"limits":{"cpu":"500m","memory":"1Gi"}}`,
	},
	{
		name: "times have seconds or six decimals",
		message: &coordinationv1.LeaseSpec{
			RenewTime: timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC))},
		json: `{"renewTime":"2026-01-02T03:04:05.000006Z"}`,
	},
	{
		name:    "whole times",
		message: &metav1.ObjectMeta{CreationTimestamp: stamp},
		json:    `{"creationTimestamp":"2026-01-02T03:04:05Z"}`,
	},
	{
		name:    "raw values keep their order and numbers",
		message: &metav1.ManagedFieldsEntry{FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:b":{"f:a":{}},"a":[1.50,null]}`)}},
		json:    `{"fieldsV1":{"f:b":{"f:a":{}},"a":[1.50,null]}}`,
	},
	{
		name:    "names with capitals",
		message: &corev1.NodeDaemonEndpoints{KubeletEndpoint: &corev1.DaemonEndpoint{Port: 10250}},
		json:    `{"kubeletEndpoint":{"Port":10250}}`,
	},
	{
		name:    "strings are escaped",
		message: &corev1.EnvVar{Name: "a\"\\\n\t\x01<é\u2028"},
		json:    `{"name":"a\"\\\n\t\u0001<é\u2028"}`,
	},
}

func TestSamples(t *testing.T) {
	for _, tt := range samples {
		t.Run(tt.name, func(t *testing.T) {
			got, err := codec.Marshal(tt.message)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.json {
				t.Errorf("Marshal\n got %s\nwant %s", got, tt.json)
			}
			back := tt.message.ProtoReflect().New().Interface()
			if err := codec.UnmarshalInto([]byte(tt.json), back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.message, back, protocmp.Transform()); diff != "" {
				t.Errorf("UnmarshalInto (-want +got):\n%s", diff)
			}
			value, err := codec.Value(tt.message)
			if err != nil {
				t.Fatal(err)
			}
			if err := codec.FromValue(value, back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.message, back, protocmp.Transform(), protocmp.IgnoreFields(&metav1.FieldsV1{}, "raw")); diff != "" {
				t.Errorf("FromValue(Value) (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnmarshalIsLenientWhereKubernetesIs(t *testing.T) {
	tests := []struct {
		name string
		json string
		want proto.Message
	}{
		{"null is absent", `{"replicas":null,"template":null,"strategy":{}}`, &appsv1.DeploymentSpec{Strategy: &appsv1.DeploymentStrategy{}}},
		{"null elements are zero", `{"command":[null,"a"],"env":[null],"resources":{"limits":{"cpu":null}}}`, &corev1.Container{
			Command: []string{"", "a"}, Env: []*corev1.EnvVar{{}},
			Resources: &corev1.ResourceRequirements{Limits: map[string]*metav1.Quantity{"cpu": {}}}}},
		{"quantities are made canonical", `{"limits":{"a":0.5,"b":"1000m","c":2,"d":"1024Mi","e":1e3}}`, &corev1.ResourceRequirements{
			Limits: map[string]*metav1.Quantity{"a": {String_: "500m"}, "b": {String_: "1"}, "c": {String_: "2"}, "d": {String_: "1Gi"}, "e": {String_: "1e3"}}}},
		{"times are cut to what JSON carries and moved to UTC", `{"creationTimestamp":"2026-01-02T05:04:05.9+02:00"}`, &metav1.ObjectMeta{CreationTimestamp: stamp}},
		{"the zero time of Go is none", `{"creationTimestamp":"0001-01-01T00:00:00Z"}`, &metav1.ObjectMeta{}},
		{"apiVersion and kind of the message's own kind", `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}`, &corev1.Pod{Metadata: &metav1.ObjectMeta{Name: "a"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.want.ProtoReflect().New().Interface()
			if err := codec.UnmarshalInto([]byte(tt.json), got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, protocmp.Transform()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnmarshalErrors(t *testing.T) {
	tests := []struct {
		name string
		json string
		want string
	}{
		{"unknown field", `{"apiVersion":"apps/v1","kind":"Deployment",
			"spec":{"template":{"spec":{"containers":[{"imagee":"x"}]}}}}`,
			`line 2: spec.template.spec.containers[0].imagee: unknown field, did you mean image?`},
		{"letter case", `{"apiVersion":"v1","kind":"Pod","spec":{"Containers":[]}}`, `line 1: spec.Containers: unknown field, did you mean containers?`},
		{"swapped letters", `{"apiVersion":"v1","kind":"Pod","spec":{"nodeNaem":"x"}}`, `line 1: spec.nodeNaem: unknown field, did you mean nodeName?`},
		{"nothing near", `{"apiVersion":"v1","kind":"Pod","spec":{"zzzzzz":1}}`, `line 1: spec.zzzzzz: unknown field`},
		{"inlined name", `{"apiVersion":"v1","kind":"Pod","spec":{"volumes":[{"emptydir":{}}]}}`, `line 1: spec.volumes[0].emptydir: unknown field, did you mean emptyDir?`},
		{"several", "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"spec\":{\"foobar\":1,\n\"hostNetwork\":\"true\",\n\"containers\":{}}}",
			"line 1: spec.foobar: unknown field\nline 2: spec.hostNetwork: must be true or false, not the string \"true\"\nline 3: spec.containers: must be a list, not an object"},
		{"duplicate", "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\n\"metadata\":{\"labels\":{\"a\":\"1\",\n\"a\":\"2\"}}}", `line 3: metadata.labels[a]: duplicate key, first written on line 2`},
		{"number for a string", `{"apiVersion":"v1","kind":"ConfigMap","data":{"port":8080}}`, `line 1: data[port]: must be a string, not the number 8080: write it in quotes`},
		{"string for a number", `{"apiVersion":"apps/v1","kind":"ReplicaSet","spec":{"replicas":"3"}}`, `line 1: spec.replicas: must be a whole number, not the string "3": write it without quotes`},
		{"fraction", `{"apiVersion":"apps/v1","kind":"ReplicaSet","spec":{"replicas":1.5}}`, `line 1: spec.replicas: must be a whole number, not the number 1.5`},
		{"out of range", `{"apiVersion":"apps/v1","kind":"ReplicaSet","spec":{"replicas":2147483648}}`, `line 1: spec.replicas: the number 2147483648 is out of range: must be from -2147483648 to 2147483647`},
		{"quantity", `{"apiVersion":"v1","kind":"Pod","spec":{"overhead":{"cpu":"1 core"}}}`, `line 1: spec.overhead[cpu]: must be a quantity such as 500m, 2 or 128Mi, not the string "1 core"`},
		{"quantity that would take hours", `{"apiVersion":"v1","kind":"Pod","spec":{"overhead":{"cpu":1e-99999999}}}`, `line 1: spec.overhead[cpu]: the number 1e-99999999 is out of range`},
		{"time", `{"apiVersion":"v1","kind":"Pod","metadata":{"creationTimestamp":"yesterday"}}`, `line 1: metadata.creationTimestamp: must be a time such as 2006-01-02T15:04:05Z, not the string "yesterday"`},
		{"base64", `{"apiVersion":"v1","kind":"Secret","data":{"password":"hunter 2"}}`, `line 1: data[password]: must be a string in base64: illegal base64 data at input byte 6`},
		{"int or string", `{"apiVersion":"v1","kind":"Service","spec":{"ports":[{"targetPort":true}]}}`, `line 1: spec.ports[0].targetPort: must be a whole number or a string, not the boolean true`},
		{"no kind", `{"apiVersion":"v1"}`, `line 1: kind: required, such as Pod or Deployment`},
		{"no apiVersion", `{"kind":"Pod"}`, `line 1: apiVersion: required, such as v1 or apps/v1`},
		{"old apiVersion", `{"kind":"Deployment","apiVersion":"extensions/v1beta1"}`, `line 1: apiVersion: Deployment is not served in "extensions/v1beta1": write apps/v1`},
		{"older apiVersion", `{"kind":"Deployment","apiVersion":"apps/v1beta2"}`, `line 1: apiVersion: Deployment is not served in "apps/v1beta2": write apps/v1`},
		{"custom kind", `{"kind":"Service","apiVersion":"serving.knative.dev/v1"}`, `line 1: kind: Service of serving.knative.dev/v1 is a custom kind, which Xebec does not have yet`},
		{"misspelt kind", `{"kind":"Deploymnet","apiVersion":"apps/v1"}`, `line 1: kind: apps/v1 has no Deploymnet, did you mean Deployment?`},
		{"kind of another group", `{"kind":"Deployment","apiVersion":"batch/v1"}`, `line 1: kind: batch/v1 has no Deployment: its kinds are CronJob, Job`},
		{"kind to come", `{"kind":"HorizontalPodAutoscaler","apiVersion":"autoscaling/v2"}`, `line 1: kind: Xebec does not serve HorizontalPodAutoscaler of autoscaling/v2 yet`},
		{"kind of the past", `{"kind":"PodSecurityPolicy","apiVersion":"policy/v1beta1"}`, `line 1: kind: PodSecurityPolicy of policy/v1beta1 was removed in Kubernetes 1.25 without a successor, and Xebec does not have it`},
		{"version of the past", `{"kind":"HorizontalPodAutoscaler","apiVersion":"autoscaling/v2beta2"}`, `line 1: kind: HorizontalPodAutoscaler of autoscaling/v2beta2 was removed in Kubernetes 1.26, and Xebec does not serve its successor of autoscaling/v2 yet`},
		{"unknown kind", `{"kind":"Thing","apiVersion":"things/v1"}`, `line 1: kind: Thing of things/v1 is a kind neither of Kubernetes nor of Xebec`},
		{"not an object", `[1]`, `line 1: must be an object with apiVersion, kind and metadata, not a list`},
		{"empty", ``, `line 1: the text is empty`},
		{"cut short", "{\"a\":\n[1,", `line 2: not valid JSON: unexpected end of the text`},
		{"syntax", "{\"a\":\n1,}", "line 2: not valid JSON: invalid character '}'"},
		{"two values", "{}\n{}", `line 2: there is more text after the end of the value`},
		{"bad UTF-8", "{\"a\":\n\"\xff\"}", `line 2: the text is not valid UTF-8`},
		{"too deep", strings.Repeat("[", 1000), `line 1: lists and objects are nested more than 500 deep`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := codec.Unmarshal([]byte(tt.json))
			if err == nil {
				t.Fatalf("no error, want %s", tt.want)
			}
			if !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("error\n got %s\nwant %s", err, tt.want)
			}
			if _, ok := errors.AsType[*codec.FieldError](err); !ok {
				t.Errorf("error is a %T that holds no FieldError", err)
			}
		})
	}
}

func TestErrorsAreBounded(t *testing.T) {
	text := `{"apiVersion":"v1","kind":"Pod","spec":{"containers":[` + strings.TrimSuffix(strings.Repeat(`{"x":1},`, 1000), ",") + `]}}`
	_, err := codec.Unmarshal([]byte(text))
	errs, ok := errors.AsType[codec.Errors](err)
	if !ok || len(errs) != 51 || errs[50].Message != "too many errors" {
		t.Errorf("got %d errors, want 50 and a word that there are more", len(errs))
	}
}

func TestWrongKindForMessage(t *testing.T) {
	err := codec.UnmarshalInto([]byte(`{"apiVersion":"v1","kind":"Pod"}`), new(appsv1.Deployment))
	want := "line 1: apiVersion: must be \"apps/v1\", not the string \"v1\"\nline 1: kind: must be \"Deployment\", not the string \"Pod\""
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestMarshalYAML(t *testing.T) {
	d := &appsv1.Deployment{
		Metadata: &metav1.ObjectMeta{Name: "web", Annotations: map[string]string{"a": "true", "b": "1", "c": "line\nline\n", "d": "yes", "e": ""}},
		Spec: &appsv1.DeploymentSpec{
			Replicas: proto.Int32(2),
			Template: &corev1.PodTemplateSpec{Spec: &corev1.PodSpec{
				Containers: []*corev1.Container{{Name: "web", Image: "web:1", Args: []string{"-v"}}},
				Volumes:    []*corev1.Volume{{Name: "scratch", VolumeSource: &corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
			}},
		},
	}
	want := `apiVersion: apps/v1
kind: Deployment
metadata:
  annotations:
    a: "true"
    b: "1"
    c: |
      line
      line
    d: "yes"
    e: ""
  name: web
spec:
  replicas: 2
  template:
    spec:
      containers:
      - args:
        - -v
        image: web:1
        name: web
      volumes:
      - emptyDir: {}
        name: scratch
`
	got, err := codec.MarshalYAML(d)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMarshalErrors(t *testing.T) {
	for _, m := range []proto.Message{
		&metav1.ObjectMeta{CreationTimestamp: &timestamppb.Timestamp{Seconds: 1 << 60}},
		&metav1.ManagedFieldsEntry{FieldsV1: &metav1.FieldsV1{Raw: []byte("{")}},
	} {
		if got, err := codec.Marshal(m); err == nil {
			t.Errorf("Marshal(%v) = %s, want an error", m, got)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, tt := range samples {
		f.Add([]byte(tt.json))
	}
	f.Add([]byte(`{"apiVersion":"v1","kind":"Pod","spec":{"overhead":{"cpu":"1e3","m":0.1},"volumes":[{"emptyDir":{}}]}}`))
	f.Add([]byte(`{"apiVersion":"v1","kind":"Event","eventTime":"2026-01-02T03:04:05.000006Z","firstTimestamp":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"apiVersion":"v1","kind":"ConfigMap","binaryData":{"a":"AP8="},"metadata":{"managedFields":[{"fieldsV1":{"f:a":{}}}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := codec.Unmarshal(data)
		if err != nil {
			return
		}
		text, err := codec.Marshal(o)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		back, err := codec.Unmarshal(text)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, text)
		}
		again, err := codec.Marshal(back)
		if err != nil {
			t.Fatal(err)
		}
		if string(again) != string(text) {
			t.Fatalf("writing is not stable:\n%s\n%s", text, again)
		}
		if _, err := codec.MarshalYAML(o); err != nil {
			t.Fatal(err)
		}
		codec.Warnings(o)
	})
}

// TestDynamicObjects writes and reads an object whose message type, metadata included, was made at
// run time.
func TestDynamicObjects(t *testing.T) {
	pods := kinds.Of(&corev1.Pod{})
	dynamic := &scheme.Kind{
		Version: pods.Version, Name: pods.Name, Plural: pods.Plural, Singular: pods.Singular, Namespaced: true, Dynamic: true, Rules: scheme.Unchecked{},
	}
	dynamic.New = scheme.Constructor(dynamic, (&corev1.Pod{}).ProtoReflect().Descriptor())
	kinds, err := scheme.New(dynamic)
	if err != nil {
		t.Fatal(err)
	}
	text := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","creationTimestamp":"2026-01-02T03:04:05Z"},` +
		`"spec":{"containers":[{"name":"c","resources":{"requests":{"cpu":"500m"}},"livenessProbe":{"httpGet":{"port":"http"}}}]}}`
	o, err := codec.New(kinds).Unmarshal([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := o.(*scheme.Dynamic); !ok {
		t.Fatalf("the object is a %T", o)
	}
	raw, err := proto.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	read := dynamic.New()
	if err := proto.Unmarshal(raw, read); err != nil {
		t.Fatal(err)
	}
	got, err := codec.New(kinds).Marshal(read)
	if err != nil {
		t.Fatal(err)
	}
	want, err := codec.Unmarshal([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := codec.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(compiled) {
		t.Errorf("a dynamic object reads\n%s, want\n%s", got, compiled)
	}
}
