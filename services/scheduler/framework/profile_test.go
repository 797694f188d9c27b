package framework

import (
	"errors"
	"strings"
	"testing"
)

// fakeReserve writes down its calls.
type fakeReserve struct {
	name  string
	err   error
	calls *[]string
}

func (r fakeReserve) Reserve(Assignment) error {
	*r.calls = append(*r.calls, "reserve "+r.name)
	return r.err
}

func (r fakeReserve) Unreserve(Assignment) { *r.calls = append(*r.calls, "unreserve "+r.name) }

func TestReserveIsAllOrNothing(t *testing.T) {
	var calls []string
	broken := errors.New("broken")
	f := NewProfile(Plugins{Reserve: []ReservePlugin{
		fakeReserve{"a", nil, &calls}, fakeReserve{"b", nil, &calls}, fakeReserve{"c", broken, &calls}, fakeReserve{"d", nil, &calls},
	}})
	if err := f.Reserve(Assignment{}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if got := strings.Join(calls, ", "); got != "reserve a, reserve b, reserve c, unreserve b, unreserve a" {
		t.Errorf("calls: %s", got)
	}
	calls = nil
	f.Unreserve(Assignment{})
	if got := strings.Join(calls, ", "); got != "unreserve d, unreserve c, unreserve b, unreserve a" {
		t.Errorf("calls: %s", got)
	}
}
