package controller

import "testing"

func TestWrittenWaitsForTheInformer(t *testing.T) {
	var w Written
	web, other := Key{Namespace: "default", Name: "web"}, Key{Namespace: "default", Name: "other"}
	if w.IsBehind(web, "1") {
		t.Error("behind without a write")
	}
	w.Note(web, "7")
	w.Note(web, "5") // an earlier write whose answer came later
	for revision, want := range map[string]bool{"": true, "6": true} {
		if got := w.IsBehind(web, revision); got != want {
			t.Errorf("at revision %q: behind is %v, want %v", revision, got, want)
		}
	}
	if w.IsBehind(other, "6") {
		t.Error("a write for one key delays another")
	}
	if w.IsBehind(web, "7") || len(w.revisions) != 0 {
		t.Errorf("at revision 7: still behind, or %v are left", w.revisions)
	}
}
