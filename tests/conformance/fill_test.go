package conformance_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	k8smetav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// filler sets fields of Kubernetes objects at random.
type filler struct {
	rand *rand.Rand
	// share is the chance, from 0 to 1, that a pointer, a slice, a map or a scalar is set at all.
	share float64
}

// fill sets v, which must be settable, and everything below it.
func (f *filler) fill(v reflect.Value) {
	switch v.Interface().(type) {
	case k8smetav1.TypeMeta:
		return
	case k8smetav1.Time:
		v.Set(reflect.ValueOf(k8smetav1.NewTime(f.time())))
		return
	case k8smetav1.MicroTime:
		v.Set(reflect.ValueOf(k8smetav1.NewMicroTime(f.time().Add(time.Duration(f.rand.IntN(1e6)) * time.Microsecond))))
		return
	case resource.Quantity:
		v.Set(reflect.ValueOf(f.quantity()))
		return
	case intstr.IntOrString:
		if f.rand.IntN(2) == 0 {
			v.Set(reflect.ValueOf(intstr.FromInt32(f.rand.Int32())))
		} else {
			v.Set(reflect.ValueOf(intstr.FromString(f.text())))
		}
		return
	case k8smetav1.FieldsV1:
		v.Set(reflect.ValueOf(*k8smetav1.NewFieldsV1(fmt.Sprintf(`{"f:spec":{".":{},"v:%d":[1.5,null,true]}}`, f.rand.Int32()))))
		return
	case runtime.RawExtension:
		v.Set(reflect.ValueOf(runtime.RawExtension{Raw: fmt.Appendf(nil, `{"spec":{"n":%d,"list":[1.5,null,true]}}`, f.rand.Int32())}))
		return
	}
	// Structs are not left out here: their fields are, each by itself.
	if v.Kind() != reflect.Struct && f.rand.Float64() >= f.share {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.always(v.Elem())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(f.text()))
			return
		}
		n := 1 + f.rand.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			f.always(v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 1 + f.rand.IntN(3) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			key.SetString(f.text())
			f.always(value)
			v.SetMapIndex(key, value)
		}
	case reflect.String:
		v.SetString(f.text())
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32:
		v.SetInt(int64(f.rand.Uint32()>>1)*int64(1-2*f.rand.IntN(2)) | 1)
	case reflect.Int64:
		v.SetInt(int64(f.rand.Uint64()>>1)*int64(1-2*f.rand.IntN(2)) | 1)
	default:
		panic(fmt.Sprintf("no way to fill a %s", v.Type()))
	}
}

// always fills what stands behind a pointer or in a list or map. A scalar there is set even when
// the object is sparse, but to its zero value now and then, which has to arrive as set.
func (f *filler) always(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		f.fill(v)
	case reflect.String, reflect.Bool, reflect.Int32, reflect.Int64:
		if f.share < 1 && f.rand.IntN(3) == 0 {
			return
		}
		full := &filler{rand: f.rand, share: 1}
		full.fill(v)
	default:
		full := &filler{rand: f.rand, share: 1}
		full.fill(v)
	}
}

func (f *filler) time() time.Time {
	return time.Unix(f.rand.Int64N(4e9)+1, 0).UTC()
}

func (f *filler) quantity() resource.Quantity {
	suffixes := []string{"", "m", "k", "Ki", "Mi", "Gi", "e3", "n", "u"}
	return resource.MustParse(fmt.Sprintf("%d%s", f.rand.IntN(10000), suffixes[f.rand.IntN(len(suffixes))]))
}

func (f *filler) text() string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-./ \"\\\n\té世😀<&>"
	runes := []rune(letters)
	text := make([]rune, 1+f.rand.IntN(12))
	for i := range text {
		text[i] = runes[f.rand.IntN(len(runes))]
	}
	return string(text)
}
