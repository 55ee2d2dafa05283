package example

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"rserpool/asap/param"
	"rserpool/selection"
	"rserpool/selection/selectiontest"
)

func TestMain(m *testing.M) {
	if err := selection.Register(Policy); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func TestPolicy(t *testing.T) { selectiontest.Check(t, Policy) }

// The policy behaves like a built-in one: by name, by type, on the wire.
func Example() {
	policy, err := selection.Parse("spare:4:0.75")
	fmt.Println(selection.Format(policy), err)

	pool := selection.NewChooser(MostSpare, nil)
	for name, text := range map[string]string{"small": "spare:1:0.25", "large": "spare:4:0.75", "huge": "spare:8:0.5"} {
		p, err := selection.Parse(text)
		if err != nil {
			panic(err)
		}
		pool.Put(&selection.Item{Value: name}, p)
	}
	for _, it := range pool.Choose(nil, 3, selection.Unlimited) {
		fmt.Println(it.Value)
	}
	// Output:
	// spare:4:0.75 <nil>
	// huge
	// large
	// small
}

func TestOnTheWire(t *testing.T) {
	p, err := selection.Parse("spare:4:0.5")
	if err != nil {
		t.Fatal(err)
	}
	w := param.NewMessage(nil, 1, 0)
	w.Policy(&p)
	b, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%x", b[4:]), "00080010c0004d530000000480000000"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	var d param.Decoding
	r := d.NewReader(b[4:])
	if back, err := r.Policy(); err != nil || back != p {
		t.Errorf("read back %+v, %v", back, err)
	}
	if d, ok := selection.ByName("Most Spare Capacity"); !ok || d.Type.String() != "Most Spare Capacity" || !d.Type.Has(selection.Load) {
		t.Errorf("%+v, %v", d, ok)
	}
}

func TestSticky(t *testing.T) {
	list := func(ids ...param.PEID) (elements []param.PoolElement) {
		for _, id := range ids {
			elements = append(elements, param.PoolElement{ID: id})
		}
		return elements
	}
	u := selection.NewUser(MostSpare, list(3, 1, 2), nil)
	next := func(want param.PEID) {
		t.Helper()
		for range 3 {
			if e, ok := u.Next(); !ok || e.ID != want {
				t.Errorf("got %v, %v, want %v", e.ID, ok, want)
			}
		}
	}
	next(3)
	u.Renew(list(1, 2, 3))
	next(3)
	u.Failed(3)
	next(1)
	u.Recovered(3)
	next(1)
	u.Renew(list(2, 3))
	next(2)
}

// The text and the code do not drift apart.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/write-a-policy.md")
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("spare.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```go\n")
	if len(blocks) < 3 {
		t.Fatal("no code in the text")
	}
	for _, block := range blocks[1:] {
		block, _, _ = strings.Cut(block, "```")
		if strings.HasPrefix(block, "//") && !strings.Contains(string(code), block) {
			t.Errorf("not in spare.go:\n%s", block)
		}
	}
}
