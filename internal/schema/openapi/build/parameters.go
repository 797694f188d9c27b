package build

import (
	"cmp"
	"slices"
)

// param is a parameter of a path or of a query, in words that do for both versions.
type param struct{ name, in, text, typ string }

func query(name, typ, text string) param { return param{name: name, in: "query", text: text, typ: typ} }

var (
	pretty = query("pretty", "string", "Indents the output if true.")
	dryRun = query("dryRun", "string", "Checks the request in every respect and changes nothing if All.")
	force  = query("force", "boolean", "Takes over fields of other managers. Only for apply.")

	// fieldValidation is the parameter by which kubectl finds out that the server validates fields.
	fieldValidation = query("fieldValidation", "string",
		"What becomes of unknown and duplicate fields: Ignore drops them, Warn drops them with a warning, "+
			"Strict refuses the request. Warn if empty.")
	fieldManager = query("fieldManager", "string",
		"Name of the manager that owns the written fields. Required for apply; the start of the User-Agent otherwise if empty.")
)

var (
	writeParameters = []param{dryRun, fieldManager, fieldValidation}

	deleteParameters = []param{
		dryRun,
		query("gracePeriodSeconds", "integer", "Seconds until the object is removed; 0 removes it at once. The default of the kind if absent."),
		query("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean", "Not supported."),
		query("orphanDependents", "boolean", "Superseded by propagationPolicy: true means Orphan."),
		query("propagationPolicy", "string",
			"What happens to dependents: Orphan keeps them, Background deletes them after the object, Foreground before it."),
	}

	// selectParameters select objects of a collection, page by page.
	selectParameters = []param{
		query("continue", "string", "Token of the previous page, which had it in its metadata."),
		query("fieldSelector", "string", "Selects objects by fields, such as spec.nodeName=node-1. All if empty."),
		query("labelSelector", "string", "Selects objects by labels, such as app=web. All if empty."),
		query("limit", "integer", "Largest number of objects in a page. No limit if 0."),
		query("resourceVersion", "string", "Version that the list shows, or after which the watch begins."),
		query("resourceVersionMatch", "string", "How resourceVersion applies to lists: Exact or NotOlderThan."),
		query("sendInitialEvents", "boolean", "Begins a watch with the state, which a bookmark ends."),
		query("shardSelector", "string", "Not supported."),
		query("timeoutSeconds", "integer", "Seconds after which a list or watch ends."),
	}
	listParameters = append(slices.Clip(selectParameters),
		query("allowWatchBookmarks", "boolean", "Allows bookmarks in the watch: events with a resourceVersion only."),
		query("watch", "boolean", "Streams changes instead of returning a list."),
	)
)

// parameters returns parameters in the form of the document's version, sorted by name.
func (b *builder) parameters(params []param) []parameter {
	out := make([]parameter, len(params))
	for i, p := range params {
		out[i] = parameter{Name: p.name, In: p.in, Description: p.text, Required: p.in == "path"}
		if b.three {
			out[i].Schema = &definition{Type: p.typ, UniqueItems: true}
		} else {
			out[i].Type, out[i].UniqueItems = p.typ, true
		}
	}
	slices.SortFunc(out, func(a, b parameter) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
