package ring

import (
	"slices"
	"testing"
	"time"
)

// Each lie is refused with a counted reason, and the ring goes on.
func TestLiesChangeNothing(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	c.propose(1, "x")
	c.run(3 * time.Second)
	order := memberIDs(c.nodes[1].view)
	victim, liar := c.nodes[order[1]], c.nodes[order[0]]
	view := victim.view
	n := uint64(len(view.Members))
	h := Header{From: liar.self, To: victim.self.Member}
	next := victim.accepted + n
	token := func(change func(*Copy)) *Token {
		copied := Copy{View: view.ID, Hop: next, Seq: victim.seq}
		change(&copied)
		return &Token{Header: h, Copy: copied}
	}
	run := func(change func(*Run)) *Token {
		return token(func(c *Copy) {
			r := Run{Seq: victim.seq + 1, Count: 1, Origin: view.ID, OriginSeq: victim.seq + 1, From: liar.self.Member, Proposal: 9, Data: payloads("lie")}
			change(&r)
			c.Runs, c.Seq = []Run{r}, victim.seq+1
		})
	}
	stranger := Node{Member{9, 9}, "stranger"}
	forged := View{ID: ViewID{view.ID.Counter + 1, liar.self.Member}, Members: []Node{liar.self, victim.self}}
	call := func(change func(*Call)) *Call {
		c := &Call{Header: h, View: View{ID: forged.ID, Members: slices.Clone(forged.Members)}, Cause: CauseNoAck, Installed: view.ID, Hop: next}
		change(c)
		return c
	}
	for name, msg := range map[string]Message{
		"token from the future":       token(func(c *Copy) { c.Hop += n }),
		"token out of turn":           token(func(c *Copy) { c.Hop++ }),
		"token of an old view":        token(func(c *Copy) { c.View.Counter-- }),
		"token of a view to come":     token(func(c *Copy) { c.View = forged.ID }),
		"token with entries missing":  token(func(c *Copy) { c.Seq += 5 }),
		"token that forgot entries":   token(func(c *Copy) { c.Seq-- }),
		"token from another member":   &Token{Header: Header{From: view.Members[2], To: h.To}, Copy: Copy{View: view.ID, Hop: next, Seq: victim.seq}},
		"token from a stranger":       &Token{Header: Header{From: stranger, To: h.To}, Copy: Copy{View: view.ID, Hop: next, Seq: victim.seq}},
		"entry with a gap before":     run(func(r *Run) { r.Seq++; r.OriginSeq++ }),
		"entry of a stranger":         run(func(r *Run) { r.From = stranger.Member }),
		"entry with two numbers":      run(func(r *Run) { r.OriginSeq += 3 }),
		"entry of an unknown kind":    run(func(r *Run) { r.Kind = kinds }),
		"omitted entry never had":     run(func(r *Run) { r.Omitted, r.Data, r.From = true, nil, victim.self.Member }),
		"forged install":              token(func(c *Copy) { c.View, c.Hop, c.Install = forged.ID, 1, &Install{View: forged} }),
		"call without proof":          call(func(c *Call) {}),
		"call by another coordinator": call(func(c *Call) { c.View.ID.Coordinator = view.Members[2].Member }),
		"call of a list without me":   call(func(c *Call) { c.View.Members[1] = view.Members[2] }),
		"call of a list with a twin":  call(func(c *Call) { c.View.Members = append(c.View.Members, Node{Member{liar.self.ID, 99}, ""}) }),
		"call of a list led by me":    call(func(c *Call) { slices.Reverse(c.View.Members) }),
		"call that uses up numbers":   call(func(c *Call) { c.View.ID.Counter = 1 << 63 }),
		"call of an old number":       call(func(c *Call) { c.View.ID.Counter = 1 }),
		"promise nobody asked for":    &Promise{Header: h, View: view.ID},
		"refusal nobody asked for":    &Refuse{Header: h, View: forged.ID},
		"answer nobody asked for":     &Pong{Header: h, Nonce: 77, View: view, Promised: view.ID},
		"answer without its sender":   &Pong{Header: h, View: View{ID: view.ID, Members: view.Members[1:]}, Promised: view.ID},
		"answer that uses up numbers": &Pong{Header: h, View: view, Promised: ViewID{1 << 63, liar.self.Member}},
		"want of the future":          &Want{Header: h, View: view.ID, Hop: next + 30*n},
		"want of another":             &Want{Header: h, View: view.ID, Hop: next},
		"oversized ping":              &Ping{Header: h, Candidates: make([]Node, 200)},
		"message to another life":     &Leave{Header: Header{From: liar.self, To: Member{victim.self.ID, 99}}, View: view.ID},
		"message from nobody":         &Leave{Header: Header{To: h.To}, View: view.ID},
		"message from myself":         &Leave{Header: Header{From: victim.self, To: h.To}, View: view.ID},
	} {
		t.Run(name, func(t *testing.T) {
			count := func() (sum uint64) {
				for _, n := range victim.counters.Dropped {
					sum += n
				}
				for _, n := range victim.counters.Refused {
					sum += n
				}
				return sum
			}
			before, installed := count(), victim.installed
			promised, events := victim.promised, len(victim.events)
			victim.Step(msg, c.now)
			out, _ := victim.Ready()
			for _, e := range out.Messages {
				if _, refused := e.Message.(*Refuse); !refused {
					t.Errorf("answers %T", e.Message)
				}
			}
			if count() != before+1 {
				t.Errorf("not counted: %v %v", victim.counters.Dropped, victim.counters.Refused)
			}
			if len(out.Events) > 0 || len(victim.events) != events || victim.promised != promised || victim.accepted != installed.accepted || victim.seq != installed.seq || victim.rush != installed.rush {
				t.Error("it had an effect")
			}
		})
	}
	c.propose(2, "y")
	c.run(100 * time.Millisecond)
	if c.nodes[2].stableUp() != 1 || !c.together(1, 2, 3)() {
		t.Error("the ring does not go on")
	}
}

// A duplicate of an accepted hop is acknowledged again, and otherwise ignored.
func TestDuplicateTokenIsOnlyAcknowledged(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	n := c.nodes[2]
	var last *Token
	c.cut = func(from, to NodeID, m Message) bool {
		if tok, ok := m.(*Token); ok && to == 2 {
			last = tok
		}
		return false
	}
	c.propose(1, "x")
	c.run(5 * time.Second)
	again := *last
	again.To = n.self.Member
	before := n.installed
	n.Step(&again, c.now)
	out, _ := n.Ready()
	if len(out.Messages) != 1 || len(out.Events) != 0 || n.accepted != before.accepted || n.hop != before.hop {
		t.Fatalf("%+v", out)
	}
	if ack, ok := out.Messages[0].Message.(*TokenAck); !ok || ack.Hop != last.Hop {
		t.Errorf("%+v", out.Messages[0].Message)
	}
}

// After a promise nothing of the older view is taken, and the promise is for good.
func TestPromiseEndsTheOldView(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	c.run(2 * time.Second)
	order := memberIDs(c.nodes[1].view)
	n, caller := c.nodes[order[1]], c.nodes[order[2]]
	n.Step(&Ping{Header: Header{From: caller.self, To: n.self.Member}, Nonce: 5}, c.now)
	out, _ := n.Ready()
	pong := out.Messages[len(out.Messages)-1].Message.(*Pong)
	id := ViewID{n.view.ID.Counter + 1, caller.self.Member}
	call := &Call{
		Header: Header{From: caller.self, To: n.self.Member}, Cause: CauseNoAck, Installed: n.view.ID, Hop: n.hop + 1, Proof: pong.Answer,
		View: View{ID: id, Members: []Node{caller.self, n.self}},
	}
	step := func(msg Message) []Envelope {
		n.Step(msg, c.now)
		out, _ := n.Ready()
		if len(out.Events) > 0 {
			t.Errorf("events %v", out.Events)
		}
		return slices.Clone(out.Messages)
	}
	promise, ok := step(call)[0].Message.(*Promise)
	if !ok || promise.Installed != n.view.ID || promise.View != id {
		t.Fatalf("%+v", promise)
	}
	if again, ok := step(call)[0].Message.(*Promise); !ok || again.View != id {
		t.Error("a repeated call is not promised again")
	}
	other := *call
	other.View.Members = append(slices.Clone(call.View.Members), c.nodes[order[0]].self)
	if got := step(&other); len(got) != 0 || n.counters.Dropped["second list of a call"] != 1 {
		t.Errorf("second list: %v", got)
	}
	lower := *call
	lower.View.ID.Counter--
	if refuse, ok := step(&lower)[0].Message.(*Refuse); !ok || refuse.Reason != RefusedPromised || refuse.Promised != id {
		t.Error("a lower call is not refused with what is promised")
	}
	view := n.view
	tok := &Token{Header: Header{From: view.Members[0], To: n.self.Member}, Copy: Copy{View: view.ID, Hop: n.accepted + 3, Seq: n.seq}}
	if got := step(tok); len(got) != 0 {
		t.Errorf("a token of the old view: %v", got)
	}
	if number, err := n.Propose([]byte("later"), c.now); err != nil || number != 1 {
		t.Error(err)
	}
	if out, _ := n.Ready(); len(out.Events) != 0 || len(out.Messages) != 0 {
		t.Errorf("it orders something: %+v", out)
	}
	if n.Status().State != Promised {
		t.Errorf("state %v", n.Status().State)
	}
}

func TestClockThatJumps(t *testing.T) {
	c := newCluster(t, 1, 2, 3)
	c.join(1, 2, 3)
	n := c.nodes[2]
	at := n.Next()
	n.Tick(c.now.Add(-time.Hour))
	if shifted := n.Next(); shifted.After(at.Add(-time.Hour + time.Millisecond)) {
		t.Errorf("next was %v, is %v", at, shifted)
	}
	n.Tick(c.now.Add(-time.Hour + 2*time.Second)) // late: it hears others first
	n.Tick(n.Next())
	if out, _ := n.Ready(); len(out.Messages) == 0 {
		t.Error("nothing is due")
	}
}
