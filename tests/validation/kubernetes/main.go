// Command kubernetes answers what Kubernetes' own defaults and validation make of objects. It reads
// one request per line as JSON and writes one answer per line:
//
//	{"object": {"apiVersion": "v1", ...}}                  a create
//	{"object": {"apiVersion": "v1", ...}, "old": {...}}    an update of old
//	{..., "old": {...}, "subresource": "status"}           an update by a subresource
//
//	{"errors": [{"type": "Required value", "field": "spec", "detail": "..."}], "defaulted": {...}}
//	{"decode": "why the object could not be read"}
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	_ "k8s.io/kubernetes/pkg/apis/certificates/install"
	_ "k8s.io/kubernetes/pkg/apis/coordination/install"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/discovery/install"
	_ "k8s.io/kubernetes/pkg/apis/events/install"
	_ "k8s.io/kubernetes/pkg/apis/flowcontrol/install"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	_ "k8s.io/kubernetes/pkg/apis/node/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	_ "k8s.io/kubernetes/pkg/apis/resource/install"
	_ "k8s.io/kubernetes/pkg/apis/scheduling/install"
	_ "k8s.io/kubernetes/pkg/apis/storage/install"
	"k8s.io/kubernetes/pkg/capabilities"
	"k8s.io/kubernetes/pkg/features"
)

type request struct {
	Object json.RawMessage `json:"object"`
	Old    json.RawMessage `json:"old,omitempty"`
	// Subresource is empty, status, approval, resize or ephemeralcontainers.
	Subresource string `json:"subresource,omitempty"`
}

type violation struct {
	Type   string `json:"type"`
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

type answer struct {
	Decode    string          `json:"decode,omitempty"`
	Errors    []violation     `json:"errors,omitempty"`
	Defaulted json.RawMessage `json:"defaulted,omitempty"`
}

var codecs = serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict)

func main() {
	// Groups of pods are in effect here and an alpha feature there.
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(map[string]bool{
		string(features.GenericWorkload): true, string(features.GangScheduling): true,
	}); err != nil {
		exit(fmt.Errorf("set feature gates: %w", err))
	}
	// Kubernetes' apiserver allows privileged containers by a flag.
	capabilities.Setup(true, 0)
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	for in.Scan() {
		var r request
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			exit(fmt.Errorf("read a request: %w", err))
		}
		if err := encoder.Encode(answerTo(r)); err != nil {
			exit(fmt.Errorf("write an answer: %w", err))
		}
		if err := out.Flush(); err != nil {
			exit(fmt.Errorf("write an answer: %w", err))
		}
	}
	if err := in.Err(); err != nil {
		exit(fmt.Errorf("read requests: %w", err))
	}
}

func exit(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func answerTo(r request) (a answer) {
	// Kubernetes' validation panics for an Indexed Job with a successPolicy and without completions,
	// which its apiserver reports as an internal error.
	defer func() {
		if p := recover(); p != nil {
			a = answer{Decode: fmt.Sprintf("panic: %v", p)}
		}
	}()
	object, version, err := decode(r.Object)
	if err != nil {
		return answer{Decode: err.Error()}
	}
	defaulted, err := encode(object, version)
	if err != nil {
		return answer{Decode: err.Error()}
	}
	var errs field.ErrorList
	if r.Old == nil {
		errs, err = validateCreate(object, version)
	} else {
		var old runtime.Object
		if old, _, err = decode(r.Old); err == nil {
			errs, err = validateUpdate(object, old, version, r.Subresource)
		}
	}
	if err != nil {
		return answer{Decode: err.Error()}
	}
	a = answer{Defaulted: defaulted}
	for _, e := range errs {
		a.Errors = append(a.Errors, violation{Type: e.Type.String(), Field: e.Field, Detail: e.Detail})
	}
	return a
}

// decode reads an object strictly and with its defaults, as the internal type that validation
// takes.
func decode(data []byte) (runtime.Object, schema.GroupVersion, error) {
	object, kind, err := codecs.UniversalDecoder().Decode(data, nil, nil)
	if err != nil {
		return nil, schema.GroupVersion{}, err
	}
	return object, kind.GroupVersion(), nil
}

func encode(object runtime.Object, version schema.GroupVersion) ([]byte, error) {
	external, err := legacyscheme.Scheme.ConvertToVersion(object, version)
	if err != nil {
		return nil, err
	}
	return json.Marshal(external)
}
