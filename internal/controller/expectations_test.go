package controller

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestExpectations(t *testing.T) {
	owner, a, b := key("set"), dependent{key("a"), true}, dependent{key("b"), true}
	gone := dependent{key("a"), false}
	none := func(dependent) bool { return false }
	only := func(d dependent) func(dependent) bool { return func(e dependent) bool { return e == d } }
	for _, tt := range []struct {
		name     string
		write    func(*expectations)
		uid      string
		revision string
		observed func(dependent) bool
		want     bool
	}{
		{"without writes", func(*expectations) {}, "1", "", none, true},
		{"a creation that is not shown", func(e *expectations) { e.expect(owner, "1", "10", a) }, "1", "9", none, false},
		{"a creation that is shown", func(e *expectations) { e.expect(owner, "1", "10", a) }, "1", "9", only(a), true},
		{"one of two creations is shown", func(e *expectations) { e.expect(owner, "1", "10", a, b) }, "1", "10", only(a), false},
		{"created and gone before the informer's revision", func(e *expectations) { e.expect(owner, "1", "10", a) }, "1", "11", none, true},
		{"a deletion that is not shown", func(e *expectations) { e.expect(owner, "1", "10", gone) }, "1", "10", only(a), false},
		{"a deletion that is shown", func(e *expectations) { e.expect(owner, "1", "10", gone) }, "1", "10", only(gone), true},
		{"a write of unknown outcome", func(e *expectations) { e.expectUncertain(owner, "1") }, "1", "99", none, false},
		{"an owner made again under the name", func(e *expectations) { e.expectUncertain(owner, "1") }, "2", "1", none, true},
		{"a forgotten owner", func(e *expectations) { e.expect(owner, "1", "10", a); e.forget(owner) }, "1", "1", none, true},
		{"replaced by none", func(e *expectations) { e.expectUncertain(owner, "1"); e.replace(owner, "1", "10") }, "1", "1", none, true},
		{"another owner's", func(e *expectations) { e.expect(key("other"), "1", "10", a) }, "1", "1", none, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := newExpectations()
			tt.write(e)
			if got := e.satisfied(owner, tt.uid, tt.revision, tt.observed); got != tt.want {
				t.Errorf("satisfied: %t, want %t", got, tt.want)
			}
			if tt.want && e.owners[owner] != nil {
				t.Error("satisfied expectations are kept")
			}
		})
	}
}

func TestExpectationsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, owner := newExpectations(), key("set")
		e.expect(owner, "1", "10", dependent{key("a"), true})
		time.Sleep(expectationsTimeout - time.Second)
		e.expect(owner, "1", "11", dependent{key("b"), true})
		time.Sleep(expectationsTimeout - time.Second)
		if e.uncertain(owner, "1") {
			t.Error("expired before the timeout after the last write")
		}
		time.Sleep(time.Second)
		if !e.uncertain(owner, "1") {
			t.Error("not expired after the timeout")
		}
		if e.uncertain(owner, "2") {
			t.Error("the expectations of a former owner count for its successor")
		}
	})
}
