package batch

import (
	"fmt"
	"strconv"
	"strings"
)

// Interval is a range of completion indexes, both ends included.
type Interval struct{ First, Last int }

// Indexes is a set of completion indexes, as intervals in ascending order of which none touches the
// next. The zero value is the empty set.
type Indexes []Interval

// IndexesOf returns the set of some indexes in ascending order.
func IndexesOf(sorted ...int) Indexes {
	var s Indexes
	for _, i := range sorted {
		s = s.extend(Interval{i, i})
	}
	return s
}

// ReadIndexes reads a set such as 1,3-5,7 from the status of a Job. It leaves out what does not
// parse, and indexes that are not below completions: those of a Job that has been scaled down.
func ReadIndexes(text string, completions int) Indexes {
	var s Indexes
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		i := Interval{}
		var err1, err2 error
		i.First, err1 = strconv.Atoi(first)
		i.Last, err2 = strconv.Atoi(last)
		i.Last = min(i.Last, completions-1)
		if err1 == nil && err2 == nil && i.First <= i.Last {
			s = s.extend(i)
		}
	}
	return s
}

// extend adds an interval that begins at or after the last one.
func (s Indexes) extend(i Interval) Indexes {
	if n := len(s); n > 0 && i.First <= s[n-1].Last+1 {
		s[n-1].Last = max(s[n-1].Last, i.Last)
		return s
	}
	return append(s, i)
}

// Union returns the indexes of both sets.
func (s Indexes) Union(other Indexes) Indexes {
	var union Indexes
	for len(s) > 0 || len(other) > 0 {
		from := &s
		if len(s) == 0 || len(other) > 0 && other[0].First < s[0].First {
			from = &other
		}
		union = union.extend((*from)[0])
		*from = (*from)[1:]
	}
	return union
}

// Common returns how many indexes are in both sets.
func (s Indexes) Common(other Indexes) int {
	n := 0
	for len(s) > 0 && len(other) > 0 {
		n += max(0, min(s[0].Last, other[0].Last)-max(s[0].First, other[0].First)+1)
		if s[0].Last < other[0].Last {
			s = s[1:]
		} else {
			other = other[1:]
		}
	}
	return n
}

// firstCommon returns the first index that is in both sets, false when there is none.
func (s Indexes) firstCommon(other Indexes) (int, bool) {
	for len(s) > 0 && len(other) > 0 {
		if first := max(s[0].First, other[0].First); first <= min(s[0].Last, other[0].Last) {
			return first, true
		}
		if s[0].Last < other[0].Last {
			s = s[1:]
		} else {
			other = other[1:]
		}
	}
	return 0, false
}

// Has reports whether an index is in the set.
func (s Indexes) Has(i int) bool {
	lo, hi := 0, len(s)
	for lo < hi {
		if mid := (lo + hi) / 2; s[mid].Last < i {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < len(s) && s[lo].First <= i
}

// Len returns the number of indexes.
func (s Indexes) Len() int {
	n := 0
	for _, i := range s {
		n += i.Last - i.First + 1
	}
	return n
}

// Missing returns the first n indexes below completions that are not in the set.
func (s Indexes) Missing(n, completions int) []int {
	var missing []int
	next := 0
	for _, i := range append(s[:len(s):len(s)], Interval{completions, completions}) {
		for ; next < min(i.First, completions) && len(missing) < n; next++ {
			missing = append(missing, next)
		}
		next = i.Last + 1
	}
	return missing
}

// String returns the set as the status of a Job shows it: 1,3-5,7. Two neighbours are written with
// a comma.
func (s Indexes) String() string {
	var b strings.Builder
	for n, i := range s {
		if n > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(i.First))
		switch {
		case i.Last == i.First+1:
			b.WriteString("," + strconv.Itoa(i.Last))
		case i.Last > i.First:
			b.WriteString("-" + strconv.Itoa(i.Last))
		}
	}
	return b.String()
}

// checkIndexes returns how many indexes a text names, or what is wrong with it.
func checkIndexes(text string, completions int) (total int, err error) {
	if text == "" {
		return 0, nil
	}
	last := -1
	for part := range strings.SplitSeq(text, ",") {
		i, err := checkInterval(part, completions)
		if err != nil {
			return 0, err
		}
		if total > 0 && last >= i.First {
			return 0, fmt.Errorf("non-increasing order, previous: %d, current: %d", last, i.First)
		}
		total += i.Last - i.First + 1
		last = i.Last
	}
	return total, nil
}

func checkInterval(text string, completions int) (Interval, error) {
	parts := strings.Split(text, "-")
	if len(parts) > 2 {
		return Interval{}, fmt.Errorf("the fragment %q violates the requirement that an index interval can have at most two parts "+
			"separated by '-'", text)
	}
	var ends []int
	for _, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil {
			return Interval{}, fmt.Errorf("cannot convert string to integer for index: %q", p)
		}
		if n >= completions {
			return Interval{}, fmt.Errorf("too large index: %q", p)
		}
		ends = append(ends, n)
	}
	first, last := ends[0], ends[len(ends)-1]
	if len(ends) == 2 && first >= last {
		return Interval{}, fmt.Errorf("non-increasing order, previous: %d, current: %d", first, last)
	}
	return Interval{first, last}, nil
}
