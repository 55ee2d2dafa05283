package registrar

import (
	"os"
	"reflect"
	"strings"
	"testing"

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
	// Each is another one, and is shown by the name of its flag.
	manual, err := os.ReadFile("../docs/cli/rspd.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{} // names of flags, by limit
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Limits]()) {
		var l Limits
		switch v := reflect.ValueOf(&l).Elem().FieldByIndex(f.Index); {
		case v.CanInt():
			v.SetInt(7)
		case v.CanFloat():
			v.SetFloat(7)
		}
		for name, value := range alike(&l) {
			if value == alike(new(Limits))[name] {
				continue
			}
			if other := seen[f.Name]; other != "" {
				t.Errorf("%s is compared as both %s and %s", f.Name, other, name)
			}
			seen[f.Name] = name
			if !strings.Contains(string(manual), " --"+name+" ") {
				t.Errorf("--%s is no flag of rspd", name)
			}
		}
	}
	inRing(t, 1, true, func(w *ringWorld) {
		w.members[0].start()
		if s := (backend{w.members[0].r}).Status(); s.Ring == nil || len(s.Ring.Settings) != fields {
			t.Errorf("the status shows %+v", s.Ring)
		}
	})
	if len(seen) != fields {
		t.Errorf("%d limits are told apart: %v", len(seen), seen)
	}
}
