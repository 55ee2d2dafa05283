package cli

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// shop is a program's settings with a section.
type shop struct {
	Name  string
	Price int
	Items []*ware
}

type ware struct {
	Price int
	Tags  []string
	Size  string
}

func (w *ware) declare(fs *pflag.FlagSet) {
	fs.IntVar(&w.Price, "price", 7, "price")
	fs.StringSliceVar(&w.Tags, "tags", nil, "tags")
	fs.StringVar(&w.Size, "size", "m", "size")
}

// load reads the settings of a shop from a file and flags.
func load(t *testing.T, p *program, args ...string) (string, *Settings[shop], error) {
	t.Helper()
	s := NewSettings("prog", func(fs *pflag.FlagSet, c *shop) {
		fs.StringVar(&c.Name, "name", "", "name")
		fs.IntVar(&c.Price, "price", 7, "price")
	}, nil)
	s.dir = p.dir
	s.Section("items", func(fs *pflag.FlagSet, c *shop) {
		c.Items = append(c.Items, &ware{})
		c.Items[len(c.Items)-1].declare(fs)
	})
	fs := pflag.NewFlagSet("prog", pflag.ContinueOnError)
	s.bind(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	c, err := s.Load()
	text := c.Name
	for _, w := range c.Items {
		text += fmt.Sprintf(" %+v", *w)
	}
	return text, s, err
}

func TestSections(t *testing.T) {
	const file = `
name: corner
items:
  - price: 3
    tags: [a, b]
  - size: l
`
	for _, tt := range []struct {
		name string
		set  func(*testing.T, *program)
		args []string
		want string
	}{
		{"ItemsTakeWhatTheyLack", nil, nil, "corner {Price:3 Tags:[a b] Size:m} {Price:7 Tags:[] Size:l}"},
		{"FromAFlag", nil, []string{"--price", "9"}, "corner {Price:3 Tags:[a b] Size:m} {Price:9 Tags:[] Size:l}"},
		{"FromTheEnvironment", func(t *testing.T, _ *program) { t.Setenv("RSERPOOL_PRICE", "8") }, nil,
			"corner {Price:3 Tags:[a b] Size:m} {Price:8 Tags:[] Size:l}"},
		{"DropInsAddUp", func(_ *testing.T, p *program) {
			p.file("prog.conf.d/1.yaml", "items: [{size: xl}]\n")
			p.file("prog.conf.d/2.yaml", "name: street\n")
		}, nil, "street {Price:3 Tags:[a b] Size:m} {Price:7 Tags:[] Size:l} {Price:7 Tags:[] Size:xl}"},
		{"None", func(_ *testing.T, p *program) { p.file("prog.yaml", "name: empty\nitems: []\n") }, nil, "empty"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newProgram(t)
			p.file("prog.yaml", file)
			if tt.set != nil {
				tt.set(t, p)
			}
			got, _, err := load(t, p, tt.args...)
			if err != nil || got != tt.want {
				t.Errorf("%q, %v, want %q", got, err, tt.want)
			}
		})
	}
	t.Run("Printed", func(t *testing.T) {
		p := newProgram(t)
		p.file("prog.yaml", file)
		_, s, err := load(t, p, "--price", "9")
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := s.Print(&b); err != nil {
			t.Fatal(err)
		}
		where := p.dir + "/prog.yaml:"
		want := "items:\n" +
			"  - price: 3 # " + where + "4\n    size: m # default\n    tags: [a, b] # " + where + "5\n" +
			"  - price: 9 # flag\n    size: l # " + where + "6\n    tags: [] # default\n"
		if !strings.HasSuffix(b.String(), want) {
			t.Errorf("printed\n%swant at its end\n%s", b.String(), want)
		}
		p.file("prog.yaml", b.String()) // is a configuration itself
		if again, _, err := load(t, p); err != nil || again != "corner {Price:3 Tags:[a b] Size:m} {Price:9 Tags:[] Size:l}" {
			t.Errorf("read again %q, %v", again, err)
		}
	})
	t.Run("Errors", func(t *testing.T) {
		p := newProgram(t)
		for text, want := range map[string]string{
			"items: {price: 3}\n":         `prog.yaml:1: key "items": not a list of mappings`,
			"items:\n  - price: much\n":   `prog.yaml:2: price: strconv.ParseInt: parsing "much"`,
			"items:\n  - prize: 3\n":      `prog.yaml:2: unknown key "prize" (the nearest is "price")`,
			"items:\n  - name: x\n":       `prog.yaml:2: unknown key "name"`,
			"items: [3]\n":                `prog.yaml:1: not a mapping`,
			"item: [{price: 3}]\n":        `unknown key "item" (the nearest is "items")`,
			"items:\n  - {items: [{}]}\n": `prog.yaml:2: unknown key "items"`,
		} {
			p.file("prog.yaml", text)
			if _, _, err := load(t, p); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %q", text, err, want)
			}
		}
	})
}
