package edit

import (
	"encoding/json"
	"testing"
)

func TestMergePatch(t *testing.T) {
	for _, tt := range []struct{ from, to, want string }{
		{`{"a":1,"b":{"c":"d","e":"f"},"g":[1,2]}`, `{"a":1,"b":{"c":"d","e":"f"},"g":[1,2]}`, `{}`},
		{`{"a":1,"b":{"c":"d","e":"f"},"g":[1,2]}`, `{"a":2,"b":{"c":"x"},"g":[2],"h":{"i":true}}`, `{"a":2,"b":{"c":"x","e":null},"g":[2],"h":{"i":true}}`},
		{`{"a":{"b":1}}`, `{"a":"text"}`, `{"a":"text"}`},
		{`{"a":"text"}`, `{"a":{"b":1}}`, `{"a":{"b":1}}`},
		{`{"a":{"b":1}}`, `{}`, `{"a":null}`},
	} {
		var from, to map[string]any
		for text, into := range map[string]*map[string]any{tt.from: &from, tt.to: &to} {
			if err := json.Unmarshal([]byte(text), into); err != nil {
				t.Fatal(err)
			}
		}
		if tt.from == tt.to {
			to = from
		}
		got, err := json.Marshal(mergePatch(from, to))
		if err != nil || string(got) != tt.want {
			t.Errorf("from %s to %s the patch is %s, %v, want %s", tt.from, tt.to, got, err, tt.want)
		}
	}
}
