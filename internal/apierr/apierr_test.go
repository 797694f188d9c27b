package apierr_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/apierr"
	"github.com/xebec-project/xebec/internal/kinds"
	"github.com/xebec-project/xebec/internal/scheme"
)

func named(t *testing.T, name string) *scheme.Kind {
	t.Helper()
	k, ok := kinds.ByName(name)
	if !ok {
		t.Fatalf("no kind %q", name)
	}
	return k
}

func TestConstructors(t *testing.T) {
	pods, deployments := named(t, "pods"), named(t, "deployments")
	tests := []struct {
		name    string
		err     error
		code    codes.Code
		reason  string
		message string
		is      func(error) bool
	}{
		{"not found", apierr.NotFound(pods, "web"), codes.NotFound, "NOT_FOUND", `pods "web" not found`, apierr.IsNotFound},
		{"exists", apierr.AlreadyExists(deployments, "web"), codes.AlreadyExists, "ALREADY_EXISTS",
			`deployments.apps "web" already exists`, apierr.IsAlreadyExists},
		{"conflict", apierr.Conflict(pods, "web", ""), codes.Aborted, "CONFLICT",
			`Operation cannot be fulfilled on pods "web": the object has been modified; please apply your changes to the latest version and try again`, apierr.IsConflict},
		{"conflict by uid", apierr.Conflict(pods, "web", "uid is another"), codes.Aborted, "CONFLICT",
			`Operation cannot be fulfilled on pods "web": uid is another`, apierr.IsConflict},
		{"bad request", apierr.BadRequest("no kind %q", "Podd"), codes.InvalidArgument, "BAD_REQUEST", `no kind "Podd"`, apierr.IsBadRequest},
		{"too large", apierr.TooLarge(pods, "web", 3<<20, 1<<20), codes.InvalidArgument, "TOO_LARGE",
			`pods "web" is too large: 3145728 bytes, at most 1048576 can be stored`, apierr.IsBadRequest},
		{"forbidden", apierr.Forbidden(pods, "web", "node-1 does not run it"), codes.PermissionDenied, "FORBIDDEN",
			`pods "web" is forbidden: node-1 does not run it`, apierr.IsForbidden},
		{"forbidden kind", apierr.Forbidden(pods, "", "no"), codes.PermissionDenied, "FORBIDDEN", `pods is forbidden: no`, apierr.IsForbidden},
		{"unauthenticated", apierr.Unauthenticated("no certificate"), codes.Unauthenticated, "UNAUTHENTICATED", "no certificate", apierr.IsUnauthenticated},
		{"election", apierr.ElectionLost("kube-system/scheduler"), codes.FailedPrecondition, "ELECTION_LOST",
			"election kube-system/scheduler was lost: its lease is not the one this writer holds", apierr.IsElectionLost},
		{"overloaded", apierr.Overloaded(time.Second, "busy"), codes.ResourceExhausted, "OVERLOADED", "busy", apierr.IsRetryable},
		{"too old", apierr.New(codes.OutOfRange, apierr.ReasonTooOld, "revision 5 is compacted"), codes.OutOfRange, "REVISION_TOO_OLD",
			"revision 5 is compacted", apierr.IsTooOld},
		{"unavailable", apierr.Unavailable("etcd is away"), codes.Unavailable, "UNAVAILABLE", "etcd is away", apierr.IsUnavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// What a client sees: wrapped on its own side, after a trip over the wire.
			raw, err := proto.Marshal(status.Convert(tt.err).Proto())
			if err != nil {
				t.Fatal(err)
			}
			p := status.New(codes.OK, "").Proto()
			if err := proto.Unmarshal(raw, p); err != nil {
				t.Fatal(err)
			}
			got := fmt.Errorf("get pod: %w", status.ErrorProto(p))
			if apierr.Code(got) != tt.code || apierr.Reason(got) != tt.reason {
				t.Errorf("code %v, reason %q; want %v, %q", apierr.Code(got), apierr.Reason(got), tt.code, tt.reason)
			}
			if m := apierr.Message(got); m != "get pod: "+tt.message {
				t.Errorf("message %q, want %q", m, "get pod: "+tt.message)
			}
			if info := apierr.Info(got); info.GetDomain() != "xebec" {
				t.Errorf("domain %q", info.GetDomain())
			}
			if !tt.is(got) {
				t.Error("its predicate does not know it")
			}
		})
	}
}

func TestInvalid(t *testing.T) {
	deployments := named(t, "deployments")
	spec := field.NewPath("spec")
	one := field.ErrorList{field.Invalid(spec.Child("replicas"), int32(-1), "must be greater than or equal to 0")}

	err := apierr.Invalid(deployments, "web", one)
	want := `Deployment.apps "web" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0`
	if got := apierr.Message(err); got != want {
		t.Errorf("message\n%s\nwant\n%s", got, want)
	}
	if !apierr.IsInvalid(err) || !apierr.IsBadRequest(err) {
		t.Error("not known as invalid")
	}

	two := append(one, field.Required(spec.Child("template", "spec", "containers").Index(0).Child("image"), ""),
		field.Required(spec.Child("template", "spec", "containers").Index(0).Child("image"), ""))
	err = apierr.Invalid(deployments, "web", two)
	want = `Deployment.apps "web" is invalid: [spec.replicas: Invalid value: -1: must be greater than or equal to 0, spec.template.spec.containers[0].image: Required value]`
	if got := apierr.Message(err); got != want {
		t.Errorf("message\n%s\nwant\n%s", got, want)
	}
	vs := apierr.Violations(err)
	if len(vs) != 2 {
		t.Fatalf("violations %v, want two: the same error said twice counts once", vs)
	}
	if v := vs[1]; v.Field != "spec.template.spec.containers[0].image" || v.Type != field.ErrorTypeRequired || v.Description != "Required value" {
		t.Errorf("violation %+v", v)
	}
	if apierr.Invalid(deployments, "web", nil) != nil {
		t.Error("an empty list makes an error")
	}
}

func TestInvalidIsLossless(t *testing.T) {
	p := field.NewPath("spec", "x")
	in := field.ErrorList{
		field.NotFound(p, "a"), field.Required(p, "b"), field.Duplicate(p, "c"), field.Invalid(p, 4, "d"),
		field.NotSupported(p, "e", []string{"f"}), field.Forbidden(p, "g"), field.TooLong(p, "h", 3), field.TooMany(p, 3, 2),
		field.TooFew(p, 1, 2), field.TooShort(p, "i", 3), field.TypeInvalid(p, "j", "k"), field.InternalError(p, errors.New("l")),
	}
	out := apierr.Violations(apierr.Invalid(named(t, "pods"), "web", in))
	if len(out) != len(in) {
		t.Fatalf("%d errors became %d violations", len(in), len(out))
	}
	for i, e := range in {
		if v := out[i]; v.Type != e.Type || v.Field != e.Field || v.Description != e.ErrorBody() || v.String() != e.Error() {
			t.Errorf("%v became %+v", e, v)
		}
	}
}

func TestInvalidIsBounded(t *testing.T) {
	var errs field.ErrorList
	for i := range 200 {
		errs = append(errs, field.Invalid(field.NewPath("data").Index(i), strings.Repeat("é\xff", 1<<10), "no"))
	}
	err := apierr.Invalid(named(t, "configmaps"), strings.Repeat("x", 1<<20), errs)
	if n := proto.Size(status.Convert(err).Proto()); n > 150<<10 {
		t.Errorf("the error is %d bytes long", n)
	}
	if n := len(apierr.Violations(err)); n != 100 {
		t.Errorf("%d violations, want 100", n)
	}
	if !strings.HasSuffix(apierr.Message(err), ", and 190 more]") {
		t.Error("the message does not say that errors are left out")
	}
}

func TestApplyConflict(t *testing.T) {
	err := apierr.ApplyConflict(named(t, "deployments"), "web", []apierr.FieldConflict{
		{Field: "spec.replicas", Manager: "autoscaler"}, {Field: "spec.paused", Manager: "jane"},
	})
	want := `Apply of deployments.apps "web" failed with 2 conflicts: spec.replicas is owned by "autoscaler", spec.paused is owned by "jane"; force the apply to take them over, or leave them out`
	if got := apierr.Message(err); got != want {
		t.Errorf("message\n%s\nwant\n%s", got, want)
	}
	if vs := apierr.Violations(err); len(vs) != 2 || vs[0].Field != "spec.replicas" {
		t.Errorf("violations %v", vs)
	}
	if !apierr.IsConflict(err) || apierr.Reason(err) != apierr.ReasonApplyConflict {
		t.Error("not known as a conflict")
	}
}

func TestAtOperation(t *testing.T) {
	err := apierr.AtOperation(apierr.Invalid(named(t, "pods"), "web", field.ErrorList{field.Required(field.NewPath("spec"), "")}), 3)
	if vs := apierr.Violations(err); len(vs) != 1 || vs[0].Field != "operations[3].spec" || vs[0].Type != field.ErrorTypeRequired {
		t.Errorf("violations %v", vs)
	}
	if got := apierr.Message(err); got != `operations[3]: Pod "web" is invalid: spec: Required value` {
		t.Errorf("message %q", got)
	}
	err = apierr.AtOperation(apierr.NotFound(named(t, "pods"), "web"), 0)
	if !apierr.IsNotFound(err) || apierr.Reason(err) != apierr.ReasonNotFound || apierr.Info(err).GetMetadata()["kind"] != "Pod" {
		t.Errorf("code, reason or metadata lost: %v", err)
	}
	if vs := apierr.Violations(err); len(vs) != 1 || vs[0].Field != "operations[0]" {
		t.Errorf("violations %v", vs)
	}
	if apierr.AtOperation(nil, 1) != nil {
		t.Error("nil became an error")
	}
}

func TestFrom(t *testing.T) {
	pods := named(t, "pods")
	tests := []struct {
		name    string
		err     error
		code    codes.Code
		reason  string
		message string
	}{
		{"ours", apierr.NotFound(pods, "a"), codes.NotFound, "NOT_FOUND", `pods "a" not found`},
		{"ours, wrapped", fmt.Errorf("bind: %w", apierr.NotFound(pods, "a")), codes.NotFound, "NOT_FOUND", `bind: pods "a" not found`},
		{"foreign status", status.Error(codes.Unavailable, "no connection"), codes.Unavailable, "UNAVAILABLE", "no connection"},
		{"canceled", fmt.Errorf("read: %w", context.Canceled), codes.Canceled, "CANCELED", "read: context canceled"},
		{"deadline", context.DeadlineExceeded, codes.DeadlineExceeded, "TIMEOUT", "context deadline exceeded"},
		{"plain", errors.New("disk on fire"), codes.Internal, "INTERNAL", "disk on fire"},
		{"not UTF-8", errors.New("bad \xff"), codes.Internal, "INTERNAL", "bad \uFFFD"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := apierr.From(tt.err)
			if apierr.Code(got) != tt.code || apierr.Reason(got) != tt.reason || apierr.Message(got) != tt.message {
				t.Errorf("got %v, %q, %q", apierr.Code(got), apierr.Reason(got), apierr.Message(got))
			}
		})
	}
	if apierr.From(nil) != nil {
		t.Error("From(nil) is an error")
	}
}

func TestRead(t *testing.T) {
	if d, ok := apierr.RetryAfter(apierr.Overloaded(250*time.Millisecond, "busy")); !ok || d != 250*time.Millisecond {
		t.Errorf("RetryAfter = %v, %v", d, ok)
	}
	if _, ok := apierr.RetryAfter(apierr.Unavailable("x")); ok {
		t.Error("RetryAfter where none was given")
	}
	if apierr.IsRetryable(apierr.StorageFull(time.Minute)) {
		t.Error("a retry does not help against a full disk")
	}
	for _, err := range []error{nil, errors.New("x")} {
		if apierr.Reason(err) != "" || apierr.IsNotFound(err) || apierr.IsInvalid(err) || apierr.Violations(err) != nil {
			t.Errorf("%v counts as one of ours", err)
		}
	}
	if apierr.Message(nil) != "" || apierr.Message(errors.New("x")) != "x" {
		t.Error("Message of errors without a status")
	}
	err := apierr.BadField("limit", "must not be negative: %d", -1)
	if vs := apierr.Violations(err); len(vs) != 1 || vs[0].String() != "limit: must not be negative: -1" {
		t.Errorf("violations %v", vs)
	}
	if got := apierr.Message(err); got != "limit: must not be negative: -1" {
		t.Errorf("message %q", got)
	}
}
