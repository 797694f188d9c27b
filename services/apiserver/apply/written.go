package apply

// addEmpty adds to an object, the JSON form of a message, those members of the text it was decoded
// from that are empty: false, 0, "", {} and []. Messages do not keep them, and to apply them is to
// own them. A null is the same as a member left out.
func addEmpty(object, written map[string]any) {
	for name, value := range written {
		have, ok := object[name]
		if !ok {
			if value != nil && empty(value) {
				object[name] = value
			}
			continue
		}
		addEmptyIn(have, value)
	}
}

func addEmptyIn(have, written any) {
	switch written := written.(type) {
	case map[string]any:
		if have, ok := have.(map[string]any); ok {
			addEmpty(have, written)
		}
	case []any:
		if have, ok := have.([]any); ok && len(have) == len(written) {
			for i := range have {
				addEmptyIn(have[i], written[i])
			}
		}
	}
}

// empty reports whether a value is what a message reads when nothing is set.
func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case float64:
		return v == 0
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		for _, member := range v {
			if !empty(member) {
				return false
			}
		}
		return true
	}
	return false
}
