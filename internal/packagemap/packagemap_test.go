// Package packagemap keeps the arrows between the packages pointing down, as
// docs/architecture.md draws them.
package packagemap

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "rserpool"

// rule says what the packages that match a pattern may import. Patterns are
// those of path.Match, relative to the module; the first match counts.
type rule struct {
	pattern string
	// ours lists the packages of this module that may be imported, directly.
	ours []string
	// others lists modules outside the standard library, by prefix.
	others []string
}

// everything below cmd, for the places where all roles meet.
var anything = []string{"*", "*/*", "*/*/*"}

var rules = []rule{
	{"asap/param", nil, nil},
	{"asap/param/paramtest", []string{"asap/param"}, nil},
	{"asap", []string{"asap/param"}, nil},
	{"asap/hunt", []string{"asap", "asap/param"}, nil},
	{"asap/hunt/hunttest", []string{"asap", "asap/param", "asap/hunt", "asap/transport"}, nil},
	{"asap/hunt/huntnet", []string{"asap", "asap/param", "asap/hunt", "asap/transport"}, []string{"github.com/sirupsen/logrus"}},
	{"asap/transport", []string{"asap/param"}, nil},
	{"asap/transport/sctp", []string{"asap/param", "asap/transport"}, []string{"github.com/ishidawataru/sctp", "golang.org/x/sys"}},
	{"asap/transport/tcp", []string{"asap/param", "asap/transport"}, []string{"golang.org/x/sys"}},
	{"asap/transport/framed", []string{"asap/param", "asap/transport"}, nil},
	{"asap/transport/mcast", []string{"asap/param", "asap/transport"}, []string{"golang.org/x/net", "golang.org/x/sys"}},
	{"asap/transport/mem", []string{"asap/param", "asap/transport"}, nil},
	{"asap/transport/transporttest", []string{"asap/param", "asap/transport"}, []string{"go.uber.org/goleak"}},
	{"selection", []string{"asap/param", "internal/pages"}, []string{"github.com/google/btree"}},
	{"selection/*", []string{"asap/param", "selection"}, nil},
	{"enrp", []string{"asap/param"}, nil},
	{"enrp/table", []string{"asap/param", "enrp"}, nil},
	{"enrp/peer", []string{"asap/param", "enrp"}, nil},
	{"enrp/ring", []string{"enrp/ring/internal/*"}, nil},
	{"enrp/ring/internal/*", nil, nil},
	{"enrp/ring/ringtest", []string{"enrp/ring", "enrp/ring/internal/*"}, nil},
	{"enrp/ring/ringnet", []string{"asap/param", "asap/transport", "enrp/ring"}, []string{"github.com/sirupsen/logrus"}},
	{"registrar/handlespace", []string{"asap/param", "selection"}, []string{"github.com/google/btree"}},
	{"registrar/replica", []string{"asap/param", "enrp/ring", "registrar/handlespace", "registrar/replica/internal/*"}, nil},
	{"registrar/replica/internal/*", nil, nil},
	{"registrar/admin", []string{"asap/param", "registrar/handlespace", "selection"}, []string{"github.com/sirupsen/logrus", "github.com/prometheus/client_golang"}},
	{"registrar/admin/client", []string{"asap/param", "registrar/admin"}, nil},
	{"registrar", []string{"asap", "asap/param", "asap/transport", "enrp", "enrp/peer", "enrp/ring", "enrp/ring/ringnet", "internal/pages", "registrar/admin", "registrar/handlespace", "registrar/replica", "selection"},
		[]string{"github.com/sirupsen/logrus", "github.com/prometheus/client_golang"}},
	{"poolelement/cookie", []string{"asap/param"}, nil},
	{"poolelement", []string{"asap", "asap/param", "asap/hunt", "asap/hunt/huntnet", "asap/transport", "asap/transport/framed", "poolelement/cookie", "selection"}, []string{"github.com/sirupsen/logrus"}},
	{"poolelement/*", []string{"asap", "asap/param", "asap/transport", "poolelement"}, []string{"github.com/sirupsen/logrus"}},
	{"pooluser/pooltest", []string{"asap", "asap/param", "asap/hunt", "asap/transport", "asap/transport/mem", "poolelement", "poolelement/cookie", "pooluser", "registrar"}, []string{"github.com/sirupsen/logrus"}},
	{"pooluser", []string{"asap", "asap/param", "asap/hunt", "asap/hunt/huntnet", "asap/transport", "asap/transport/framed", "selection"}, []string{"github.com/sirupsen/logrus"}},
	{"pooluser/poolhttp", []string{"asap/param", "pooluser"}, nil},
	{"pooluser/internal/*", []string{"asap", "asap/hunt/hunttest", "asap/param", "asap/transport", "asap/transport/tcp", "pooluser"}, nil},
	{"pooluser/forward", []string{"asap/param", "pooluser"}, []string{"github.com/sirupsen/logrus", "golang.org/x/sys"}},
	{"internal/history", nil, []string{"github.com/anishathalye/porcupine"}},
	{"internal/authority*", []string{"asap/param", "asap/transport"}, nil},
	{"internal/pages", nil, []string{"github.com/google/btree"}},
	{"internal/*", nil, nil},
	{"cmd/*", anything, []string{""}},
	{"cmd/*/*", anything, []string{""}},
	{"cmd/*/*/*", anything, []string{""}},
	{"scripts/*", anything, []string{""}},
	{"scripts/*/*", anything, []string{""}},
}

func ruleFor(pkg string) (rule, bool) {
	for _, r := range rules {
		if ok, _ := path.Match(r.pattern, pkg); ok {
			return r, true
		}
	}
	return rule{}, false
}

type listed struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
}

// goList returns the module's packages and all that they depend on.
func goList(t *testing.T) map[string]listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps", module+"/...")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pkgs := make(map[string]listed)
	for dec := json.NewDecoder(out); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		pkgs[p.ImportPath] = p
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	return pkgs
}

func TestImportsFollowThePackageMap(t *testing.T) {
	pkgs := goList(t)
	checked := 0
	for name, p := range pkgs {
		pkg, ok := strings.CutPrefix(name, module+"/")
		if !ok {
			continue
		}
		r, ok := ruleFor(pkg)
		if !ok {
			t.Errorf("%s has no place in the package map", pkg)
			continue
		}
		checked++
		for _, imp := range p.Imports {
			ours, isOurs := strings.CutPrefix(imp, module+"/")
			switch {
			case isOurs:
				if !slices.ContainsFunc(r.ours, func(pattern string) bool { ok, _ := path.Match(pattern, ours); return ok }) && !strings.HasPrefix(ours, "internal/") {
					t.Errorf("%s must not import %s", pkg, ours)
				}
			case !pkgs[imp].Standard:
				if !slices.ContainsFunc(r.others, func(prefix string) bool { return strings.HasPrefix(imp, prefix) }) {
					t.Errorf("%s must not import %s", pkg, imp)
				}
			}
		}
	}
	if checked < 15 {
		t.Fatalf("only %d packages found: the test looks in the wrong place", checked)
	}
}

// Only the programs know flags, files and environment variables, however long
// the way.
func TestLibrariesDontReachTheCommandLine(t *testing.T) {
	for name, p := range goList(t) {
		pkg, ok := strings.CutPrefix(name, module+"/")
		if !ok || strings.HasPrefix(pkg, "cmd/") || strings.HasPrefix(pkg, "scripts/") {
			continue
		}
		for _, dep := range p.Deps {
			for _, banned := range []string{"github.com/spf13/viper", "github.com/spf13/cobra", "github.com/spf13/pflag", module + "/cmd/"} {
				if strings.HasPrefix(dep, banned) {
					t.Errorf("%s depends on %s", pkg, dep)
				}
			}
		}
	}
}
