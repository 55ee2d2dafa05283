package ringtest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rserpool/enrp/ring"
)

var rewrite = flag.Bool("rewrite", false, "write what happens into the stories instead of comparing it")

// TestStories plays the protocol stories in testdata. testdata/README.md says how
// they are written.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d stories, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := newStory().play(string(text))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("%s went otherwise (-rewrite accepts it):\n%s", file, firstDifference(string(text), got))
			}
			if strings.Contains(got, "\nFAILED") {
				t.Errorf("%s: an expectation is not met", file)
			}
		})
	}
}

func firstDifference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	part := func(lines []string) string {
		return strings.Join(lines[min(i, len(lines)):min(i+8, len(lines))], "\n\t")
	}
	return fmt.Sprintf("line %d, want\n\t%s\ngot\n\t%s", i+1, part(a), part(b))
}

// story is a world that commands act on.
type story struct {
	*world
	out     bytes.Buffer // trace since the last command, with what is hidden
	hidden  map[string]bool
	awaited string // text in the trace that ends a run
	seen    bool
	shown   bool     // the latest line
	lost    []string // texts of messages that are to be lost, each once
}

const storyNodes = 6

func newStory() *story {
	s := &story{hidden: map[string]bool{"ping": true, "pong": true, "hear": true, "ack": true, "want": true, "idle": true, "dials": true}}
	s.world = newWorld(storyNodes, ring.LAN(), ring.Limits{}, false, Network{Delay: time.Millisecond}, 1, Options{Trace: s})
	s.heal, s.spell = time.Hour, true
	s.lossy = func(l *life, env ring.Envelope) bool {
		text := fmt.Sprintf("%s>%s %s", name(l.self.Member), name(env.To.Member), s.describe(env.Message))
		i := slices.IndexFunc(s.lost, func(part string) bool { return strings.Contains(text, part) })
		if i >= 0 {
			s.lost = slices.Delete(s.lost, i, i+1)
		}
		return i >= 0
	}
	return s
}

// Write takes a line of the trace.
func (s *story) Write(line []byte) (int, error) {
	text := strings.TrimRight(string(line), "\n")
	if s.awaited != "" && strings.Contains(text, s.awaited) {
		s.seen = true
	}
	at, what, _ := strings.Cut(text, " ")
	what = strings.TrimSpace(what)
	if s.shown = !s.hides(what); s.shown {
		d, _ := time.ParseDuration(at)
		fmt.Fprintf(&s.out, "%8.1f  %s\n", float64(d)/1e6, what)
	}
	return len(line), nil
}

// hides reports whether a line is of a kind that is not shown.
func (s *story) hides(what string) bool {
	words := strings.Fields(what)
	switch {
	case strings.HasPrefix(what, "*"):
		return true
	case what == "lost":
		return !s.shown
	case strings.Contains(what, "connection to"):
		return s.hidden["dials"]
	case len(words) < 2 || !strings.Contains(words[0], ">"):
		return false
	case words[1] == "TOKEN" && !strings.Contains(what, " with") && !strings.Contains(what, " installs") && s.hidden["idle"]:
		return true
	}
	return s.hidden[strings.ToLower(words[1])]
}

// play runs a story and returns it with what happened.
func (s *story) play(text string) string {
	var b strings.Builder
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		b.WriteString(line + "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s.out.Reset()
		if err := s.command(line); err != nil {
			fmt.Fprintf(&s.out, "FAILED: %v\n", err)
		}
		if s.err != nil {
			fmt.Fprintf(&s.out, "FAILED: %v\n", s.err)
		}
		// What it said last time stands behind a rule, up to an empty line.
		if i+1 < len(lines) && lines[i+1] == "----" {
			for i++; i+1 < len(lines) && lines[i+1] != ""; i++ {
			}
		}
		if s.out.Len() > 0 {
			b.WriteString("----\n" + s.out.String())
			if i+1 >= len(lines) || lines[i+1] != "" {
				b.WriteString("\n")
			}
		}
	}
	return b.String()
}

func (s *story) command(line string) error {
	words := strings.Fields(line)
	args := words[1:]
	switch words[0] {
	case "show", "hide":
		for _, kind := range args {
			s.hidden[kind] = words[0] == "hide"
		}
	case "run":
		return s.commandRun(line, args)
	case "ring":
		return s.commandRing(args)
	case "propose":
		return s.commandPropose(line, args)
	case "cut", "mend":
		return s.commandLinks(words[0], args)
	case "lose":
		part := strings.Split(line, `"`) // lose "text" times
		times, err := strconv.Atoi(strings.TrimSpace(part[2]))
		if err != nil {
			return err
		}
		for range times {
			s.lost = append(s.lost, part[1])
		}
	case "lock", "unlock":
		l, err := s.life(args[0])
		if err != nil {
			return err
		}
		kind := Lock
		if words[0] == "unlock" {
			kind = Unlock
		}
		n, err := strconv.Atoi(strings.TrimPrefix(args[1], "lock-"))
		if err != nil {
			return err
		}
		s.actLock(l, Action{Kind: kind, N: n})
	case "expect":
		return s.commandExpect(args)
	case "start", "crash", "pause", "resume", "leave":
		for _, who := range args {
			if err := s.commandMember(words[0], who); err != nil {
				return err
			}
		}
	case "tell": // tell a lost b
		l, err := s.life(args[0])
		if err != nil {
			return err
		}
		other := s.lastLife(args[2])
		s.call(l, func(m *ring.Machine, now time.Time) { m.Lost(other.self.Member, now) })
	default:
		return fmt.Errorf("no command %q", words[0])
	}
	return nil
}

func (s *story) node(who string) *node { return s.nodes[who[0]-'a'] }

func (s *story) life(who string) (*life, error) {
	if l := s.node(who).life; l != nil {
		return l, nil
	}
	return nil, fmt.Errorf("%s is not running", who)
}

func (s *story) lastLife(who string) *life {
	for _, l := range slices.Backward(s.lives) {
		if l.node == s.node(who) {
			return l
		}
	}
	return nil
}

func (s *story) commandMember(what, who string) error {
	n := s.node(who)
	if what == "start" {
		s.start(n)
		return nil
	}
	l, err := s.life(who)
	if err != nil {
		return err
	}
	switch what {
	case "crash":
		s.crash(l, true)
	case "pause":
		s.pause(n)
	case "resume":
		s.resume(n)
	case "leave":
		l.leaving = true
		s.call(l, (*ring.Machine).Leave)
	}
	return nil
}

// commandRun lets time pass: "run 20ms", or `run until "text in the trace"`.
func (s *story) commandRun(line string, args []string) error {
	if args[0] != "until" {
		d, err := time.ParseDuration(args[0])
		if err != nil {
			return err
		}
		s.run(s.now + d)
		return nil
	}
	return s.runUntil(strings.Trim(strings.TrimPrefix(line, "run until "), `"`))
}

func (s *story) runUntil(text string) error {
	s.awaited, s.seen = text, false
	for end := s.now + 10*time.Second; !s.seen && s.step(end); {
	}
	if s.awaited = ""; !s.seen {
		return fmt.Errorf("that did not happen")
	}
	return nil
}

// commandRing starts members and lets them become one ring, which goes without
// saying.
func (s *story) commandRing(members []string) error {
	for _, who := range members {
		s.start(s.node(who))
	}
	for !s.together(members) {
		if !s.step(s.now + time.Second) {
			return fmt.Errorf("they do not come together")
		}
	}
	s.run(s.now + 2*s.timers.IdleRotation)
	s.out.Reset()
	fmt.Fprintf(&s.out, "%8.1f  %s\n", float64(s.now)/1e6, describeView(s.node(members[0]).life.record.view.event.View))
	return nil
}

// together reports whether members are in one view and the exchange is over.
func (s *story) together(members []string) bool {
	for _, who := range members {
		r := s.node(who).life.record
		if len(r.view.event.View.Members) != len(members) || !r.endedOK {
			return false
		}
	}
	return true
}

func (s *story) commandPropose(line string, args []string) error {
	l, err := s.life(args[0])
	if err != nil {
		return err
	}
	for i, text := range strings.Split(line, `"`) {
		if i%2 == 1 {
			s.keys++
			p := keyPayload(s.keys, 9+len(text))
			copy(p[9:], text)
			l.offer = append(l.offer, p)
		}
	}
	s.pump(l)
	return nil
}

// commandLinks cuts and mends links: "cut a>b", "cut a,b|c" both ways.
func (s *story) commandLinks(what string, args []string) error {
	for _, arg := range args {
		from, to, oneWay := strings.Cut(arg, ">")
		if !oneWay {
			from, to, _ = strings.Cut(arg, "|")
		}
		for _, a := range strings.Split(from, ",") {
			for _, b := range strings.Split(to, ",") {
				i, j := s.node(a).index, s.node(b).index
				cuts := 0
				if what == "cut" {
					cuts = 1
				}
				s.links[i][j].cuts = cuts
				if !oneWay {
					s.links[j][i].cuts = cuts
				}
			}
		}
	}
	return nil
}

// commandExpect checks: "expect view a b", "expect a knows x y", "expect a stable x",
// "expect a holds lock-1".
func (s *story) commandExpect(args []string) error {
	if args[0] == "view" {
		for _, who := range args[1:] {
			l, err := s.life(who)
			if err != nil {
				return err
			}
			v := l.record.view.event.View
			for _, member := range v.Members {
				if !slices.Contains(args[1:], letter(int(member.ID)-1)) {
					return fmt.Errorf("%s is in %s", who, describeView(v))
				}
			}
			if len(v.Members) != len(args)-1 {
				return fmt.Errorf("%s is in %s", who, describeView(v))
			}
		}
		return nil
	}
	l, err := s.life(args[0])
	if err != nil {
		return err
	}
	switch args[1] {
	case "knows":
		var texts []string
		for i, p := range s.check.proposals {
			if _, ok := l.app.(*set).state[p.key]; p.isKey && ok {
				texts = append(texts, string(s.check.proposals[i].payload[9:]))
			}
		}
		if strings.Join(texts, " ") != strings.Join(args[2:], " ") {
			return fmt.Errorf("%s knows %v", args[0], texts)
		}
	case "stable":
		for n := uint64(1); n <= l.record.stable; n++ {
			if s.entryName(l.self.Member, n) == strconv.Quote(args[2]) {
				return nil
			}
		}
		return fmt.Errorf("it is not")
	case "holds":
		if g := l.record.locks[args[2]]; g.Holder != l.self.Member {
			return fmt.Errorf("%s holds %s", name(g.Holder), args[2])
		}
	default:
		return fmt.Errorf("expect %v?", args)
	}
	return nil
}
