//go:build unix

package endtoend

import (
	"bufio"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rserpool/registrar/admin"
)

// decode reads one JSON value that has no other fields than v.
func decode(t *testing.T, text string, v any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Errorf("%v in %q", err, text)
	} else if d.More() {
		t.Errorf("more than one value in %q", text)
	}
}

// failure is what a program prints about its failure with -o json.
type failure struct {
	Error string `json:"error"`
	Exit  string `json:"exit"`
	Code  int    `json:"code"`
}

func TestRspctlExitCodes(t *testing.T) {
	h := newWorld(t).here()
	r, frozen, gone := h.registrar(), h.registrar(), h.registrar()
	h.element("a", []string{r.at})
	r.hasMembers("a")
	frozen.signal(syscall.SIGSTOP)
	gone.kill()
	for _, tt := range []struct {
		name string
		args []string
		code int
		exit string
	}{
		{"Done", []string{"-s", r.api, "pools"}, 0, ""},
		{"DoneByENRP", []string{"-s", r.enrp, "pools"}, 0, ""},
		{"DoneByASAP", []string{"-s", r.at, "resolve", pool}, 0, ""},
		{"Well", []string{"-s", r.api, "status"}, 0, ""},
		{"Refused", []string{"-s", r.api, "register", pool, "--transport", "tcp://127.0.0.1:9", "--policy", "lu"}, 1, "failed"},
		{"UnknownCommand", []string{"-s", r.api, "poools"}, 2, "usage"},
		{"UnknownFlag", []string{"-s", r.api, "pools", "--al"}, 2, "usage"},
		{"MissingArgument", []string{"-s", r.api, "pool", "show"}, 2, "usage"},
		{"BadIdentifier", []string{"-s", r.api, "deregister", pool, "x"}, 2, "usage"},
		{"BadServer", []string{"-s", "ftp://127.0.0.1", "pools"}, 2, "usage"},
		{"NobodyThere", []string{"-s", gone.api, "pools"}, 3, "unreachable"},
		{"NobodyThereByENRP", []string{"-s", gone.enrp, "pools"}, 3, "unreachable"},
		{"NobodyThereByASAP", []string{"-s", gone.at, "resolve", pool}, 3, "unreachable"},
		{"NoSuchPool", []string{"-s", r.api, "pool", "show", "none"}, 4, "not-found"},
		{"NoSuchPoolToResolve", []string{"-s", r.api, "resolve", "none"}, 4, "not-found"},
		{"NoSuchPoolByENRP", []string{"-s", r.enrp, "pool", "show", "none"}, 4, "not-found"},
		{"NoSuchPoolByASAP", []string{"-s", r.at, "resolve", "none"}, 4, "not-found"},
		{"NoSuchElement", []string{"-s", r.api, "deregister", pool, "0x7f"}, 4, "not-found"},
		{"Silent", []string{"-s", frozen.api, "--timeout", "300ms", "pools"}, 6, "timed-out"},
		{"SilentByENRP", []string{"-s", frozen.enrp, "--timeout", "300ms", "pools"}, 6, "timed-out"},
		{"SilentByASAP", []string{"-s", frozen.at, "--timeout", "300ms", "resolve", pool}, 6, "timed-out"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := h.run("rspctl", tt.args...)
			if o.code != tt.code || (o.code == 0) != (o.stderr == "") || (o.code == 0) != (o.stdout != "") {
				t.Errorf("%+v, want exit code %d and an explanation if it is not 0", o, tt.code)
			}
			o = h.run("rspctl", append(tt.args, "-o", "json")...)
			if o.code != tt.code {
				t.Errorf("with -o json: %+v, want exit code %d", o, tt.code)
			}
			if o.code != 0 && o.code != 2 {
				var f failure
				decode(t, o.stderr, &f)
				if f.Code != tt.code || f.Exit != tt.exit || f.Error == "" {
					t.Errorf("with -o json: %+v, want exit %q and code %d", f, tt.exit, tt.code)
				}
			}
		})
	}
}

func TestRspctlShowsTheSameByEveryProtocol(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar()
	b := h.element("b", []string{r.at}, "--policy", "wrr:3")
	h.element("a", []string{r.at}, "--policy", "wrr:2")
	r.hasMembers("a b")
	var status admin.Status
	decode(t, r.ctl("status", "-o", "json").stdout, &status)
	if !status.Ready || status.Pools != 1 || status.Elements != 2 || status.Suspects != 0 {
		t.Errorf("status %+v", status)
	}
	for _, server := range []string{r.api, r.enrp} {
		ask := func(v any, args ...string) {
			t.Helper()
			o := h.run("rspctl", append([]string{"-s", server, "-o", "json"}, args...)...)
			if o.code != 0 {
				t.Fatalf("%q: %+v", args, o)
			}
			decode(t, o.stdout, v)
		}
		var pools []admin.Pool
		ask(&pools, "pools")
		if len(pools) != 1 || pools[0].Handle != pool || pools[0].Policy != "wrr" || pools[0].Elements != 2 || pools[0].Transport != "tcp" {
			t.Errorf("%s: pools %+v", server, pools)
		}
		var shown admin.Pool
		ask(&shown, "pool", "show", pool)
		if len(shown.Members) != 2 {
			t.Fatalf("%s: pool %+v", server, shown)
		}
		m := shown.Members[slices.IndexFunc(shown.Members, func(e admin.Element) bool { return nameOf(e.ID) == "b" })]
		service := fmt.Sprintf("%s:%d", m.User.Addresses[0], m.User.Port)
		if m.Home != status.Registrar || m.Policy.Weight != 3 || m.Life != 300 || service != b.service {
			t.Errorf("%s: element %+v, want home %s, weight 3, life 300, at %s", server, m, status.Registrar, b.service)
		}
		var registrars []admin.RegistrarInfo
		ask(&registrars, "registrars")
		if len(registrars) != 1 || registrars[0].ID != status.Registrar || registrars[0].Elements != 2 {
			t.Errorf("%s: registrars %+v", server, registrars)
		}
	}
	for _, server := range []string{r.api, r.at} {
		o := h.run("rspctl", "-s", server, "-o", "json", "resolve", pool)
		var resolution admin.Resolution
		decode(t, o.stdout, &resolution)
		if resolution.Handle != pool || resolution.Policy != "wrr" || len(resolution.Elements) == 0 {
			t.Errorf("%s: %+v", server, o)
		}
	}
}

// What an administrator registers is in the pool as any other.
func TestUserIsServedByAnElementThatAnAdministratorRegistered(t *testing.T) {
	h := newWorld(t).here()
	r, other := h.registrar(), h.registrar()
	e := h.element("a", []string{other.at}) // to have a server
	if o := r.ctl("register", pool, "--id", idOf("a"), "--transport", "tcp://"+e.service); o.code != 0 {
		t.Fatalf("register: %+v", o)
	}
	u := h.user([]string{r.at})
	u.isServedBy("a")
	u.wasServed(time.Second)
}

func TestRspctlWatchTellsWhatHappens(t *testing.T) {
	h := newWorld(t).here()
	r := h.registrar()
	var out journal
	watch := h.w.start("rspctl watch", h.command("rspctl", "--server", r.api, "-o", "json", "watch", pool), &out)
	events := func() string {
		var got []string
		for lines := bufio.NewScanner(strings.NewReader(out.String())); lines.Scan(); {
			var e admin.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				return err.Error() // half a line
			}
			text := e.Type
			if e.ID != "" {
				text += " " + nameOf(e.ID)
			}
			if e.Cause != "" {
				text += " " + e.Cause
			}
			got = append(got, text)
		}
		return strings.Join(got, ", ")
	}
	are := func(want string) {
		t.Helper()
		h.w.within(patience, func() string {
			if got := events(); got != want {
				return fmt.Sprintf("events %q, want %q", got, want)
			}
			return ""
		})
	}
	are("snapshot")
	a := h.element("a", []string{r.at})
	are("snapshot, registered a")
	b := h.element("b", []string{r.at})
	are("snapshot, registered a, registered b")
	a.car.end(syscall.SIGTERM)
	are("snapshot, registered a, registered b, removed a deregistered")
	b.signal(syscall.SIGKILL)
	are("snapshot, registered a, registered b, removed a deregistered, removed b unreachable")
	r.kill()
	r.restart()
	are("snapshot, registered a, registered b, removed a deregistered, removed b unreachable, snapshot")
	if code := watch.end(syscall.SIGINT); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
}
