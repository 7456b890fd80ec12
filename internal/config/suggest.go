package config

import (
	"fmt"
	"strings"
)

// didYouMean ends an error about an unknown word: it names the nearest known
// one, or else gives the hint.
func didYouMean(word string, known []string, hint string) string {
	best, least := "", 1+max(2, len(word)/4)
	for _, k := range known {
		if d := distance(bare(word), bare(k)); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return "; " + hint
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// bare is s without what people write differently: clientId, client_id.
func bare(s string) string {
	return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(s))
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
