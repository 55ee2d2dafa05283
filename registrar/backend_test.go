package registrar

import (
	"maps"
	"reflect"
	"testing"
	"time"

	"rserpool/registrar/handlespace"
)

// Members of a ring are compared by each limit that decides what becomes of a command.
func TestLimitsThatMembersNeedAlike(t *testing.T) {
	own := map[string]bool{ // may differ, or can't be set
		"ResultLimits": true, "Rand": true, "MaxElementsPerPool": true,
	}
	fields := 0
	for _, f := range reflect.VisibleFields(reflect.TypeFor[handlespace.Config]()) {
		if !own[f.Name] {
			fields++
		}
	}
	if got := alike(&Limits{}); len(got) != fields {
		t.Errorf("%d of %d limits of a handlespace are compared: %v", len(got), fields, got)
	}
	a, b := &Limits{Pools: 7, Tombstone: time.Minute}, &Limits{Pools: 7, Tombstone: time.Hour, Inbox: 3}
	if maps.Equal(alike(a), alike(b)) {
		t.Error("one with another life of tombstones is taken for alike")
	}
	if b.Tombstone = time.Minute; !maps.Equal(alike(a), alike(b)) {
		t.Error("a limit that may differ is compared")
	}
}
