package pooltest

import "slices"

// on calls f for the process of this name.
func (w *World) on(name, what string, f func(p *process)) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.find(name); p != nil && p.run != nil {
		w.diary.note(name, what)
		f(p)
		return
	}
	w.t.Errorf("pooltest: %s: there is no process %q", what, name)
}

// Kill ends a process as kill -9 does: its connections end at once, and nothing listens
// on its ports. A process that is dead stays so.
func (w *World) Kill(name string) {
	w.t.Helper()
	w.on(name, "KILL", func(p *process) {
		w.net.Kill(name)
		p.end(errKilled)
	})
}

// Crash takes the power from a machine: its process is dead, but others find out only
// by its silence, and what was on its way is lost. Restart brings power back.
func (w *World) Crash(name string) {
	w.t.Helper()
	w.on(name, "CRASH", func(p *process) {
		w.net.Crash(name)
		p.end(errKilled)
	})
}

// Hang stops a process as SIGSTOP does: it sends and receives nothing, while its machine
// still takes connections, and octets until buffers are full. (What it does without the
// network goes on.)
func (w *World) Hang(name string) {
	w.t.Helper()
	w.on(name, "HANG", func(p *process) {
		w.net.Freeze(name)
		p.hung = p.alive()
	})
}

// Continue ends Hang, as SIGCONT does.
func (w *World) Continue(name string) {
	w.t.Helper()
	w.on(name, "CONTINUE", func(p *process) {
		w.net.Thaw(name)
		p.hung = false
	})
}

// Stop asks a process to end as SIGTERM does, and returns at once: a registrar leaves
// its ring, an element deregisters and drains.
func (w *World) Stop(name string) {
	w.t.Helper()
	w.on(name, "STOP", func(p *process) { p.end(errStopped) })
}

// Restart starts a process again as it was started, with the same addresses and without
// memory of its former life, after killing it if it runs. For users, call User again.
func (w *World) Restart(name string) {
	w.t.Helper()
	w.on(name, "RESTART", func(p *process) {
		if p.replaced != "" {
			w.t.Errorf("pooltest: Restart of %s: %s", name, p.replaced)
			return
		}
		if p.alive() {
			w.net.Kill(name)
		}
		p.end(errKilled)
		w.launch(p)
	})
}

// Running tells whether a process runs and has not been asked to end. One that hangs
// does.
func (w *World) Running(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.find(name)
	return p != nil && p.alive()
}

// Cut holds back all that two machines send to each other. What was sent arrives after
// Heal, on connections that have not failed by then (Config.FailureTime).
func (w *World) Cut(a, b string) {
	w.t.Helper()
	w.on(a, "CUT from "+b, func(*process) {
		if w.find(b) == nil {
			w.t.Errorf("pooltest: Cut: there is no process %q", b)
			return
		}
		if cut := [2]string{a, b}; !slices.Contains(w.cuts, cut) {
			w.net.Cut(a, b)
			w.cuts = append(w.cuts, cut)
		}
	})
}

// Isolate cuts a machine from all others.
func (w *World) Isolate(name string) {
	w.t.Helper()
	w.on(name, "ISOLATE", func(*process) {
		w.net.Unplug(name)
		w.isolated[name] = true
	})
}

// Heal ends all Cuts and Isolates.
func (w *World) Heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.cuts) > 0 {
		w.join(w.cuts[0])
	}
	for _, p := range w.processes {
		w.plug(p.name)
	}
}

// join ends a Cut.
func (w *World) join(cut [2]string) {
	if i := slices.Index(w.cuts, cut); i >= 0 {
		w.cuts = slices.Delete(w.cuts, i, i+1)
		w.diary.note(cut[0], "HEAL to "+cut[1])
		if !slices.Contains(w.cuts, [2]string{cut[1], cut[0]}) {
			w.net.Heal(cut[0], cut[1])
		}
	}
}

// plug ends an Isolate.
func (w *World) plug(name string) {
	if w.isolated[name] {
		w.diary.note(name, "HEAL")
		w.net.Plug(name)
		delete(w.isolated, name)
	}
}
