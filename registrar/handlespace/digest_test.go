package handlespace

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"rserpool/asap/param"
)

// differing calls visit once for each leaf of what v holds, while that leaf has another
// value.
func differing(t *testing.T, name string, v reflect.Value, visit func(name string)) {
	before := reflect.ValueOf(v.Interface())
	defer func() { v.Set(before) }()
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = x.Add(1)
		visit(name)
		return
	case *[]netip.Addr:
		*x = []netip.Addr{netip.MustParseAddr("192.0.2.77")}
		visit(name)
		return
	}
	switch {
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			differing(t, name+"."+v.Type().Field(i).Name, v.Field(i), visit)
		}
		return
	case v.Kind() == reflect.Bool:
		v.SetBool(!v.Bool())
	case v.Kind() == reflect.String:
		v.SetString(v.String() + "x")
	case v.CanUint():
		v.SetUint(v.Uint() + 1)
	case v.CanInt():
		v.SetInt(v.Int() + 1)
	case v.Type() == reflect.TypeFor[[]byte]():
		v.SetBytes([]byte("x"))
	default:
		t.Fatalf("%s is a %v: say how it may differ", name, v.Type())
	}
	visit(name)
}

// Registrars that differ in anything that they exchange have different digests: they would
// not find out else.
func TestDigestsCoverAllThatIsExchanged(t *testing.T) {
	key, generation := Key{"echo", 1}, Generation{Content: 9, Stamp: 10, Raiser: here, Incarnation: 5}
	user := transport(param.TypeTCPTransport, "192.0.2.1", 7)
	seen := map[uint64]string{}
	tell := func(name string, digest uint64) {
		if same, found := seen[digest]; found {
			t.Errorf("the digest of %s is that of %s", name, same)
		}
		seen[digest] = name
	}

	entry := Entry{
		Handle: key.Handle, Generation: generation, HomeIncarnation: 5,
		Registered: at(1), Refreshed: at(2), Held: at(3), Suspect: true, Cause: Reported, Reports: 1,
		Element: param.PoolElement{ID: key.ID, Home: here, Life: 30, User: user, ASAP: user, Policy: with(param.RoundRobin)},
	}
	reporters := []string{"a"}
	record := func(name string) {
		item, err := NewItem(&entry, reporters)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tell(name, item.Record.digest)
	}
	record("the entry")
	fields := reflect.ValueOf(&entry).Elem()
	for i := range fields.NumField() {
		// Of an element its octets count, of which one is enough.
		if field := fields.Type().Field(i).Name; field == "Element" {
			differing(t, "the entry's life", reflect.ValueOf(&entry.Element.Life).Elem(), record)
			differing(t, "the entry's ASAP port", reflect.ValueOf(&entry.Element.ASAP.Port).Elem(), record)
		} else {
			differing(t, "the entry's "+field, fields.Field(i), record)
		}
	}
	for _, reporters = range [][]string{{"b"}, {"a", "b"}, nil} {
		record("the entry's reporters")
	}

	tombstone := Tombstone{Key: key, Generation: generation, Until: at(4)}
	grave := func(name string) { tell(name, tombstone.digest()) }
	grave("the tombstone")
	differing(t, "the tombstone", reflect.ValueOf(&tombstone).Elem(), grave)

	state := PoolState{Handle: key.Handle, Created: at(5), Founder: 1, User: user, Policy: param.RoundRobin, Owner: "o"}
	pool := func(name string) { tell(name, state.digest()) }
	pool("the pool")
	differing(t, "the pool", reflect.ValueOf(&state).Elem(), pool)
}
