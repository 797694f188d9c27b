// Package linearizability checks that the API behaves as one register per object, whatever dies: it
// records what clients did and saw through several apiservers while processes are killed and
// paused, and lets porcupine search for an order of all operations that explains every answer.
package linearizability

import (
	"fmt"
	"strings"

	"github.com/anishathalye/porcupine"
)

// keys is how many objects the clients fight over.
const keys = 4

// verb is what an operation does to one object.
type verb string

const (
	create verb = "create"
	update verb = "update"
	remove verb = "delete"
	get    verb = "get"
	list   verb = "list"
)

// write is one write of an operation. Values are unique over the whole history, so that a value
// tells a version.
type write struct {
	verb  verb
	key   int
	value string
	// expect, when not empty, is the value of the version that the caller named by its
	// resourceVersion.
	expect string
}

// request is an operation: a read, or one write, or several in a transaction.
type request struct {
	read   verb // get, list or empty
	key    int  // of a get
	writes []write
}

// outcome is how an operation ended.
type outcome string

const (
	done     outcome = "ok"
	absent   outcome = "not found"
	exists   outcome = "already exists"
	conflict outcome = "conflict"
	// unknown: a write that was not answered. It may have happened, may happen later, or never.
	unknown outcome = "unknown"
)

// object is a version of an object; the zero object does not exist. A revision of 0 is not known.
type object struct {
	value    string
	revision int64
}

// response is what the caller learned.
type response struct {
	outcome  outcome
	revision int64 // of the write, or of the list's snapshot
	objects  [keys]object
}

// state is all objects, and the revision that the next write must reach, or exceed when that
// revision is complete: writes of several callers may share a revision, but what a list has shown
// of one is all there is.
type state struct {
	revision int64
	complete bool
	objects  [keys]object
}

// model is the API's contract. All objects are one model and not one each, for lists and
// transactions see and change several at once, and since revisions order all writes.
var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(s, in, out any) (bool, any) {
		next, ok := s.(state).step(in.(request), out.(response))
		return ok, next
	},
	Equal:             func(a, b any) bool { return a.(state) == b.(state) },
	DescribeOperation: func(in, out any) string { return in.(request).String() + " → " + out.(response).String() },
	DescribeState:     func(s any) string { return fmt.Sprintf("%+v", s) },
}

// step returns the state after an operation, false when the operation cannot have had this outcome
// here.
func (s state) step(r request, out response) (state, bool) {
	switch {
	case r.read == get:
		return s.get(r.key, out)
	case r.read == list:
		return s.list(out)
	}
	failure := done
	for _, w := range r.writes {
		if f := s.refusal(w); f != done && (failure == done || f == out.outcome) {
			failure = f
		}
	}
	switch out.outcome {
	case unknown:
		if failure == done {
			s.apply(r.writes, 0)
		}
		return s, true
	case done:
		if failure != done || out.revision < s.revision || out.revision == s.revision && s.complete {
			return s, false
		}
		s.apply(r.writes, out.revision)
		s.reach(out.revision, false)
		return s, true
	}
	return s, failure == out.outcome
}

// refusal returns how a write would fail here, done when it would not.
func (s state) refusal(w write) outcome {
	now := s.objects[w.key]
	switch {
	case w.verb == create && now.value != "":
		return exists
	case w.verb == create:
		return done
	case now.value == "":
		return absent
	case w.expect != "" && w.expect != now.value:
		return conflict
	}
	return done
}

func (s *state) apply(writes []write, revision int64) {
	for _, w := range writes {
		s.objects[w.key] = object{}
		if w.verb != remove {
			s.objects[w.key] = object{w.value, revision}
		}
	}
}

// reach takes note of a revision that there is, and whether no more writes can be at it.
func (s *state) reach(revision int64, complete bool) {
	switch {
	case revision > s.revision:
		s.revision, s.complete = revision, complete
	case revision == s.revision:
		s.complete = s.complete || complete
	}
}

// see reports whether an object that a caller saw is what there is, and keeps its revision when
// that was not known.
func (s *state) see(key int, seen object) bool {
	now := &s.objects[key]
	if now.value != seen.value || now.revision != 0 && now.revision != seen.revision {
		return false
	}
	now.revision = seen.revision
	s.reach(seen.revision, false)
	return true
}

func (s state) get(key int, out response) (state, bool) {
	ok := s.see(key, out.objects[key])
	return s, ok
}

func (s state) list(out response) (state, bool) {
	for key := range keys {
		if !s.see(key, out.objects[key]) {
			return s, false
		}
	}
	if out.revision < s.revision {
		return s, false
	}
	s.reach(out.revision, true)
	return s, true
}

func (r request) String() string {
	switch r.read {
	case get:
		return fmt.Sprintf("get %d", r.key)
	case list:
		return "list"
	}
	var parts []string
	for _, w := range r.writes {
		part := fmt.Sprintf("%s %d", w.verb, w.key)
		if w.value != "" {
			part += "=" + w.value
		}
		if w.expect != "" {
			part += " if " + w.expect
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

func (r response) String() string {
	var b strings.Builder
	b.WriteString(string(r.outcome))
	if r.revision != 0 {
		fmt.Fprintf(&b, " @%d", r.revision)
	}
	for key, o := range r.objects {
		if o != (object{}) {
			fmt.Fprintf(&b, " %d:%s@%d", key, o.value, o.revision)
		}
	}
	return b.String()
}
