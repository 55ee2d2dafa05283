package cli

import "github.com/agnivade/levenshtein"

// nearest returns the name that is most like the given one, or "" when none is
// like it: more than a third of it, and more than two characters, differ.
func nearest(name string, names []string) string {
	best, distance := "", max(2, len(name)/3)+1
	for _, n := range names {
		if d := levenshtein.ComputeDistance(name, n); d < distance {
			best, distance = n, d
		}
	}
	return best
}
