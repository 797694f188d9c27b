package linearizability

import (
	"math"
	"testing"

	"github.com/anishathalye/porcupine"
)

// TestModel shows that the checker tells right histories from wrong ones.
func TestModel(t *testing.T) {
	one := func(v verb, value, expect string) request {
		return request{writes: []write{{verb: v, key: 0, value: value, expect: expect}}}
	}
	read := request{read: get}
	saw := func(value string, revision int64) response {
		return response{outcome: done, objects: [keys]object{{value, revision}}}
	}
	ok := func(revision int64) response { return response{outcome: done, revision: revision} }
	type op struct {
		in        request
		call, end int64
		out       response
	}
	const never = math.MaxInt64
	for name, c := range map[string]struct {
		history []op
		right   bool
	}{
		"in turn": {[]op{
			{one(create, "a", ""), 0, 1, ok(5)}, {read, 2, 3, saw("a", 5)}, {one(update, "b", "a"), 4, 5, ok(6)},
			{one(update, "c", "a"), 6, 7, response{outcome: conflict}}, {one(remove, "", "b"), 8, 9, ok(7)},
			{read, 10, 11, response{outcome: absent}}, {one(update, "d", ""), 12, 13, response{outcome: absent}},
		}, true},
		"a stale read": {[]op{
			{one(create, "a", ""), 0, 1, ok(5)}, {one(update, "b", ""), 2, 3, ok(6)}, {read, 4, 5, saw("a", 5)},
		}, false},
		"a read beside the write": {[]op{
			{one(create, "a", ""), 0, 1, ok(5)}, {one(update, "b", ""), 2, 5, ok(6)}, {read, 3, 4, saw("a", 5)},
		}, true},
		"a lost update": {[]op{
			{one(create, "a", ""), 0, 1, ok(5)}, {one(update, "b", "a"), 2, 3, ok(6)}, {one(update, "c", "a"), 4, 5, ok(7)},
		}, false},
		"an unanswered write that happens later": {[]op{
			{one(create, "a", ""), 0, never, response{outcome: unknown}}, {read, 2, 3, response{outcome: absent}}, {read, 4, 5, saw("a", 5)},
		}, true},
		"an unanswered write that is undone": {[]op{
			{one(create, "a", ""), 0, never, response{outcome: unknown}}, {read, 2, 3, saw("a", 5)}, {read, 4, 5, response{outcome: absent}},
		}, false},
		"a write that was refused and happened": {[]op{
			{one(create, "a", ""), 0, 1, ok(5)}, {one(update, "b", "x"), 2, 3, response{outcome: conflict}}, {read, 4, 5, saw("b", 6)},
		}, false},
		"revisions that go back": {[]op{
			{one(create, "a", ""), 0, 1, ok(5)}, {one(update, "b", ""), 2, 3, ok(4)},
		}, false},
		"writes that share a revision": {[]op{
			{one(create, "a", ""), 0, 1, ok(5)}, {request{writes: []write{{verb: create, key: 1, value: "b"}}}, 0, 1, ok(5)},
			{request{read: list}, 2, 3, response{outcome: done, revision: 5, objects: [keys]object{{"a", 5}, {"b", 5}}}},
		}, true},
		"a write at a revision that was listed": {[]op{
			{one(create, "a", ""), 0, 1, ok(5)}, {request{read: list}, 2, 3, response{outcome: done, revision: 5, objects: [keys]object{{"a", 5}}}},
			{request{writes: []write{{verb: create, key: 1, value: "b"}}}, 4, 5, ok(5)},
		}, false},
		"half a transaction": {[]op{
			{request{writes: []write{{verb: create, key: 0, value: "a"}, {verb: create, key: 1, value: "b"}}}, 0, 1, ok(5)},
			{request{read: list}, 2, 3, response{outcome: done, revision: 5, objects: [keys]object{{"a", 5}}}},
		}, false},
		"a list that is older than what it holds": {[]op{
			{one(create, "a", ""), 0, 1, ok(5)}, {request{read: list}, 2, 3, response{outcome: done, revision: 4, objects: [keys]object{{"a", 5}}}},
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var history []porcupine.Operation
			for i, o := range c.history {
				history = append(history, porcupine.Operation{ClientId: i, Input: o.in, Call: o.call, Output: o.out, Return: o.end})
			}
			if got := porcupine.CheckOperations(model, history); got != c.right {
				t.Errorf("linearizable: %v, want %v", got, c.right)
			}
		})
	}
}
