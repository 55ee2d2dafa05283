package endtoend

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The scenes below run a ring of registrars with elements and users at work. What
// is checked all the time, and at the end of each, is in stage_linux_test.go.

func TestRing(t *testing.T) {
	for _, s := range scenes {
		for _, members := range s.members {
			t.Run(fmt.Sprintf("%s/%d", s.name, members), func(t *testing.T) {
				st := newStage(t, members)
				s.play(st)
				st.finish()
			})
		}
	}
}

// scene is something that happens to a ring.
type scene struct {
	name    string
	members []int
	play    func(*stage)
}

var scenes = []scene{
	{"KillOne", []int{3, 5}, func(s *stage) {
		s.kill(0)
		s.whole()
		s.revive(0)
	}},
	{"KillAllButOne", []int{3, 5}, func(s *stage) {
		for i := range len(s.registrars) - 1 {
			s.kill(i)
		}
		s.whole()
		for i := range len(s.registrars) - 1 {
			s.revive(i)
		}
	}},
	{"Freeze", []int{3}, func(s *stage) {
		s.registrars[1].signal(syscall.SIGSTOP)
		s.asleep(1, true)
		s.wait(3 * time.Second)
		s.registrars[1].signal(syscall.SIGCONT)
		s.asleep(1, false)
	}},
	{"FreezeForAMoment", []int{3}, func(s *stage) {
		for range 5 {
			s.registrars[1].signal(syscall.SIGSTOP)
			s.wait(50 * time.Millisecond)
			s.registrars[1].signal(syscall.SIGCONT)
			s.wait(200 * time.Millisecond)
		}
	}},
	{"CutOneDirection", []int{3, 5}, func(s *stage) {
		s.n.oneWay(s.hosts[0], s.hosts[1], false)
		s.wait(4 * time.Second)
		s.n.oneWay(s.hosts[0], s.hosts[1], true)
	}},
	{"CutBothDirections", []int{3}, func(s *stage) {
		s.split([]int{0}, []int{1, 2}, false)
		s.wait(4 * time.Second)
		s.split([]int{0}, []int{1, 2}, true)
	}},
	{"Split", []int{5}, func(s *stage) {
		s.split([]int{0, 1}, []int{2, 3, 4}, false)
		s.wait(4 * time.Second)
		s.split([]int{0, 1}, []int{2, 3, 4}, true)
	}},
	{"SplitDuringTakeover", []int{5}, func(s *stage) {
		s.kill(4)
		s.wait(100 * time.Millisecond)
		s.split([]int{0, 1}, []int{2, 3}, false)
		s.wait(4 * time.Second)
		s.split([]int{0, 1}, []int{2, 3}, true)
		s.whole()
		s.revive(4)
	}},
	{"RollingRestart", []int{3, 5}, func(s *stage) {
		for i := range s.registrars {
			s.stop(i)
			s.revive(i)
			s.whole()
		}
	}},
	{"RestartOfAllAtOnce", []int{3}, func(s *stage) {
		s.forget()
		for i := range s.registrars {
			s.kill(i)
		}
		start := time.Now()
		for i := range s.registrars {
			s.launch(i)
		}
		s.within("every element registers again by itself", start, 10*time.Second, func() string {
			return s.missing()
		})
		s.remember()
	}},
}

// TestRingForLong plays random scenes one after the other on one ring, when asked to:
// RING_CHAOS is for how long, RING_SEED makes it repeatable.
func TestRingForLong(t *testing.T) {
	text := os.Getenv("RING_CHAOS")
	if text == "" {
		t.Skip("SKIPPED: runs when RING_CHAOS says for how long, as make chaos does")
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	random := seeded(t)
	st := newStage(t, 5)
	for start := time.Now(); time.Since(start) < d; {
		s := scenes[random.IntN(len(scenes))]
		first := random.IntN(len(st.registrars))
		t.Logf("%v: %s, beginning with %s", time.Since(start).Round(time.Second), s.name, st.registrars[first].at)
		st.rotate(first)
		s.play(st)
		st.agree()
	}
	st.finish()
}

// resources are what a registrar has open, but for the goroutines without work that it
// keeps to write answers.
type resources struct{ descriptors, goroutines int }

func (s *stage) resources(i int) resources {
	s.t.Helper()
	r := s.registrars[i]
	files, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(r.pid()), "fd"))
	if err != nil {
		s.t.Fatal(err)
	}
	return resources{len(files), r.metric("go_goroutines") - r.metric("rserpool_spare_writers")}
}

// pid is that of the program; ip netns exec becomes it.
func (r *registrar) pid() int { return r.cmd.Process.Pid }

// finish ends a scene: all registrars have to agree, and when elements and users are
// gone nothing is left of them.
func (s *stage) finish() {
	s.t.Helper()
	s.agree()
	s.wait(time.Second)
	s.agree()
	s.leave()
	for i, r := range s.registrars {
		before := s.before[i] // of a restarted one: that of its former life
		end := time.Now().Add(patience)
		s.w.within(2*patience, func() string {
			now := s.resources(i)
			if now.descriptors <= before.descriptors+2 && now.goroutines <= before.goroutines+4 {
				return ""
			}
			if time.Now().Before(end) {
				return "waiting"
			}
			r.signal(syscall.SIGQUIT) // prints what its goroutines do
			<-r.done
			s.t.Fatalf("%s has %+v, had %+v before the elements and users\n%s", r.at, now, before, r.log.tail(600))
			return ""
		})
	}
	s.report()
}

// missing names a registrar that lacks elements, as text.
func (s *stage) missing() string {
	want := strings.Join(s.names, " ")
	for i, r := range s.registrars {
		if s.down[i] {
			continue
		}
		switch got, err := r.members(); {
		case err != nil:
			return fmt.Sprintf("%s does not answer: %v", r.at, err)
		case strings.ReplaceAll(got, "?", "") != want:
			return fmt.Sprintf("%s has %q, want %q", r.at, got, want)
		}
	}
	return ""
}

// agree waits until all registrars are in one ring and know the same, to the last
// detail, and prints how long that took.
func (s *stage) agree() {
	s.t.Helper()
	s.churn.pause(true)
	defer s.churn.pause(false)
	s.within("all registrars know the same", s.healed, 2*time.Second, func() string {
		if text := s.missing(); text != "" {
			return text
		}
		return s.differing()
	})
	s.churn.check(s)
}

// differing compares all that registrars know.
func (s *stage) differing() string {
	var digests, dumps, who []string
	for i, r := range s.registrars {
		if s.down[i] {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		status, err := r.admin.Status(ctx)
		cancel()
		switch {
		case err != nil:
			return fmt.Sprintf("%s does not answer: %v", r.at, err)
		case !status.Ready:
			return r.at + " is not ready"
		case status.Ring == nil || !status.Ring.Synced || len(status.Ring.Members) != s.alive():
			return fmt.Sprintf("%s: the ring is %+v", r.at, status.Ring)
		}
		dump, err := r.dump()
		if err != nil {
			return fmt.Sprintf("%s does not tell what it knows: %v", r.at, err)
		}
		digests, dumps, who = append(digests, status.Digest), append(dumps, dump), append(who, r.at)
	}
	for i := range digests {
		if digests[i] != digests[0] || dumps[i] != dumps[0] {
			return fmt.Sprintf("%s and %s differ: digests %s, %s\n%s\n%s", who[0], who[i], digests[0], digests[i], dumps[0], dumps[i])
		}
	}
	if len(slices.Compact(slices.Clone(digests))) > 1 {
		return "digests differ"
	}
	return ""
}
