package registrar

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"rserpool/asap/param"
	"rserpool/registrar/handlespace"
	"rserpool/selection"
)

func TestPolicyRules(t *testing.T) {
	rules := func(c *Config) {
		c.Policies = []PolicyRule{
			{Pools: "batch-*", Allow: []param.PolicyType{param.LeastUsed, param.LeastUsedDegradation}},
			{Pools: "web*", Pin: param.WeightedRoundRobin},
			{Pools: "*", Forbid: []param.PolicyType{param.Random}},
		}
	}
	with := func(t param.PolicyType) param.Policy { return param.Policy{Type: t, Weight: 3, Load: 9} }
	try := func(w *world, handle param.PoolHandle, id param.PEID, typ param.PolicyType, want ...param.Cause) {
		w.Helper()
		pe := w.peer()
		e := pe.element(id)
		e.Policy = with(typ)
		before := w.stored(handle, id)
		m := pe.register(handle, e)
		if m.Reject != (want != nil) || len(m.Error) != len(want) {
			w.Errorf("%q, %v: %+v", handle, typ, m)
			return
		}
		for i, c := range want {
			if m.Error[i].Code != c.Code || !bytes.Equal(m.Error[i].Data, c.Data) {
				w.Errorf("%q, %v: cause %+v, want %+v", handle, typ, m.Error[i], c)
			}
		}
		if after := w.stored(handle, id); want == nil && after == nil || want != nil && after != before {
			w.Errorf("%q, %v: stored %v", handle, typ, after)
		}
	}
	bad := func(p param.Policy) param.Cause { return param.PolicyCause(param.CauseInvalidValues, p) }
	other := func(t param.PolicyType) param.Cause {
		return param.PolicyCause(param.CauseInconsistentPolicy, selection.Neutral(t))
	}
	for name, f := range map[string]func(w *world){
		"what is allowed creates a pool, nothing else": func(w *world) {
			on := param.Policy{Type: param.RoundRobin}
			try(w, "batch-1", 1, param.RoundRobin, bad(on))
			try(w, "batch-1", 1, param.LeastUsedDegradation)
			try(w, "batch-2", 1, param.LeastUsed)
		},
		"ASAP_3_1_27 the pool's policy goes before the rules": func(w *world) {
			try(w, "batch-1", 1, param.LeastUsed)
			try(w, "batch-1", 2, param.LeastUsedDegradation, other(param.LeastUsed))
			try(w, "batch-1", 2, param.RoundRobin, other(param.LeastUsed))
		},
		"a pinned policy is told to who has another": func(w *world) {
			try(w, "web", 1, param.RoundRobin, other(param.WeightedRoundRobin))
			try(w, "web", 1, param.WeightedRoundRobin)
			try(w, "web", 2, param.RoundRobin, other(param.WeightedRoundRobin))
		},
		"the first rule that matches counts": func(w *world) {
			try(w, "echo", 1, param.Random, bad(param.Policy{Type: param.Random}))
			try(w, "echo", 1, param.Priority)
			try(w, "batch", 1, param.Priority)
		},
		"the administrator is bound, too": func(w *world) {
			e := w.peer().element(1)
			e.Policy = with(param.RoundRobin)
			events, err := backend{w.r}.Register(t.Context(), "web", e)
			if _, ok := events[0].(handlespace.Rejected); !ok || len(events) != 1 || err != nil {
				w.Errorf("%v, %v", events, err)
			}
		},
		"elements from elsewhere stay, go on, and are not joined": func(w *world) {
			pe := w.peer()
			for id := range param.PEID(2) {
				e := pe.element(id + 1)
				e.Home, e.Policy = w.r.id, param.Policy{Type: param.LeastUsed, Load: 7}
				w.apply(handlespace.Register{Handle: "web", Element: e, Now: time.Now()})
			}
			try(w, "web", 1, param.LeastUsed)
			try(w, "web", 2, param.LeastUsed)
			try(w, "web", 3, param.LeastUsed, other(param.WeightedRoundRobin))
			try(w, "web", 3, param.WeightedRoundRobin, other(param.LeastUsed))
		},
		"a reload brings new rules": func(w *world) {
			try(w, "echo", 1, param.Random, bad(param.Policy{Type: param.Random}))
			cfg := *w.r.config()
			cfg.Policies = nil
			if err := w.r.Reload(cfg); err != nil {
				w.Fatal(err)
			}
			try(w, "echo", 1, param.Random)
		},
	} {
		t.Run(name, func(t *testing.T) { inWorld(t, f, rules) })
	}
}

// Who has not the values of a private policy is refused where the policy is known, also
// in the pool's name; whoever else accepted it goes on.
func TestPrivatePolicyInAnotherFormatIsRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		pe := w.peer()
		pe.join(pool, withPolicy(pe.element(1), param.Policy{Type: param.LeastUsedDPF, Load: 1}))
		for id := range param.PEID(2) {
			misfit := withPolicy(pe.element(id+1), param.Policy{Type: param.LeastUsedDPF, Misfit: true, Data: "load"})
			m := pe.register(pool, misfit)
			if !m.Reject {
				w.Error("accepted")
			}
			w.wantCauses(m.Error, param.CauseInvalidValues)
			w.apply(handlespace.Register{Handle: "other", Element: misfit, Now: time.Now()})
			if e := w.stored("other", id+1); e == nil || e.Element().Policy != misfit.Policy {
				w.Errorf("stored %+v", e)
			}
		}
	})
}

func withPolicy(e param.PoolElement, p param.Policy) param.PoolElement {
	e.Policy = p
	return e
}

func TestPolicyRuleMatches(t *testing.T) {
	for pattern, handles := range map[string]struct{ yes, no string }{
		"web":      {"web", "web1 xweb"},
		"web*":     {"web web1 web*", "xweb we"},
		"*web":     {"web xweb", "web1"},
		"*":        {"web x", ""},
		"a*b*c":    {"abc aXbYc abbc abcbc", "ac ab bc aXc"},
		"a*a":      {"aa aXa", "a"},
		"*b*b*":    {"bb xbyb", "b xbx"},
		"a**b":     {"ab aXb", "a"},
		"*-eu-*-1": {"x-eu-y-1 -eu-eu--1 x-eu--1", "x-eu-1"},
	} {
		r := PolicyRule{Pools: pattern}
		for want, names := range map[bool]string{true: handles.yes, false: handles.no} {
			for _, name := range strings.Fields(names) {
				if r.matches(param.PoolHandle(name)) != want {
					t.Errorf("%q and %q: want %v", pattern, name, want)
				}
			}
		}
	}
}

func TestPolicyRulesAreValidated(t *testing.T) {
	lu := []param.PolicyType{param.LeastUsed}
	for _, c := range []struct {
		rules []PolicyRule
		want  []string
	}{
		{[]PolicyRule{{Pools: "a*", Allow: lu}, {Pools: "b", Pin: param.Random}, {Pools: "*", Forbid: lu}}, nil},
		{[]PolicyRule{{Pin: param.Random}}, []string{"names no pools"}},
		{[]PolicyRule{{Pools: "a"}, {Pools: "b", Allow: lu, Pin: param.Random}}, []string{`"a": want exactly one`, `"b": want exactly one`}},
		{[]PolicyRule{{Pools: "a", Pin: 0x80001234}, {Pools: "b", Forbid: []param.PolicyType{}}}, []string{"0x80001234", `"b": an empty list`}},
		{[]PolicyRule{{Pools: "a", Allow: append(lu, lu...)}}, []string{"Least Used twice"}},
		{[]PolicyRule{{Pools: "a*", Allow: lu}, {Pools: "ab*", Forbid: lu}}, []string{`"ab*": never used, the rule for "a*"`}},
	} {
		cfg := Config{Policies: c.rules}.WithDefaults()
		err := cfg.Validate() // has other problems: no networks
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %v, want %q", c.rules, err, want)
			}
		}
		if c.want == nil && strings.Contains(err.Error(), "policies") {
			t.Errorf("%v: %v", c.rules, err)
		}
	}
}

// Each member of a ring judges what it accepts, by its own rules; all apply the same.
func TestMembersWithDifferentPolicyRulesStayEqual(t *testing.T) {
	inRing(t, 3, false, func(w *ringWorld) {
		w.startAll()
		cfg := *w.members[1].r.config()
		cfg.Policies = []PolicyRule{{Pools: "*", Pin: param.LeastUsed}}
		if err := w.members[1].r.Reload(cfg); err != nil {
			t.Fatal(err)
		}
		first := w.members[0].element()
		first.join(pool, first.element(1))
		second := w.members[1].element()
		if m := second.register(pool, second.element(2)); !m.Reject {
			t.Errorf("accepted against the rule: %+v", m)
		}
		elsewhere := w.members[2].element()
		elsewhere.join(pool, elsewhere.element(3))
		w.wantKnown(pool, 1, 3)
		// What is in the pool goes on, also at the member that has the rule.
		again := first.elsewhere(w.members[1])
		again.join(pool, again.element(1))
		w.wantKnown(pool, 1, 3)
		if !w.alike() {
			t.Error("the members differ")
		}
	})
}
