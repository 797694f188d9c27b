// Package spelling measures how far a mistyped word is from a known one, for errors that say which
// may be meant.
package spelling

// Distance is the number of letters to insert, delete or replace to get from a to b (Levenshtein),
// with one row of memory. It compares bytes.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
