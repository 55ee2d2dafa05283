package ring

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	nodeA  = Node{Member{1, 10}, "a.example:1"}
	nodeB  = Node{Member{2, 20}, ""}
	viewAB = View{ID: ViewID{7, nodeA.Member}, Members: []Node{nodeA, nodeB}}
	older  = ViewID{6, nodeB.Member}
)

func payloads(list ...string) []byte {
	var data []byte
	for _, p := range list {
		data = appendPayload(data, []byte(p))
	}
	return data
}

// samples has a message of each type.
func samples() []Message {
	h := Header{From: nodeA, To: nodeB.Member}
	first := Copy{
		View: viewAB.ID, Hop: 1, Seq: 5, Rush: 4, Yield: 3,
		Install: &Install{View: viewAB, Cause: CauseMerge, Exchange: true, Origins: []Origin{
			{Member: nodeA.Member, Installed: older, Synced: older, With: nodeA.Member}, {Member: nodeB.Member},
		}},
		Runs: []Run{
			{Seq: 1, Count: 2, Origin: older, OriginSeq: 40, From: Member{3, 1}, Proposal: 9, Data: payloads("x", "")},
			{Seq: 3, Count: 1, Origin: viewAB.ID, OriginSeq: 3, From: nodeB.Member, Proposal: 1, Omitted: true},
			{Seq: 4, Count: 1, Origin: viewAB.ID, OriginSeq: 4, From: nodeA.Member, Proposal: 2, Data: payloads("yy")},
			{Seq: 5, Count: 1, Origin: viewAB.ID, OriginSeq: 5, From: nodeA.Member, Kind: KindEnd, Data: payloads("")},
		},
	}
	return []Message{
		&Ping{Header: h, Nonce: 1 << 40, Candidates: []Node{nodeA, nodeB}},
		&Ping{Header: h},
		&Pong{Header: h, Nonce: 3, Answer: 4, View: viewAB, Hop: 5, Age: 6 * time.Millisecond, State: Promised, Promised: viewAB.ID,
			Heard: []Member{nodeA.Member}, HoldOff: time.Second},
		&Hear{Header: h},
		&Call{Header: h, View: viewAB, Cause: CauseStarved, Installed: older, Hop: 8, Proof: 9},
		&Promise{Header: h, View: viewAB.ID, Installed: older, Synced: older, With: nodeB.Member, Delivered: 3},
		&Promise{Header: h, View: viewAB.ID, Installed: older, Copy: &first},
		&Refuse{Header: h, View: viewAB.ID, Reason: RefusedYoung, Promised: older},
		&Token{Header: h, Copy: first},
		&Token{Header: h, Copy: Copy{View: viewAB.ID, Hop: 77, Seq: 1000}},
		&TokenAck{Header: h, View: viewAB.ID, Hop: 3},
		&Want{Header: h, View: viewAB.ID, Hop: 3},
		&Leave{Header: h, View: viewAB.ID},
	}
}

func encode(t testing.TB, msg Message) []byte {
	t.Helper()
	b, err := Append(nil, msg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCodecRoundTrip(t *testing.T) {
	for _, msg := range samples() {
		b := encode(t, msg)
		got, err := Decode(b)
		if err != nil {
			t.Errorf("%T: %v", msg, err)
		} else if !reflect.DeepEqual(got, msg) {
			t.Errorf("%T: got %+v\nwant %+v", msg, got, msg)
		}
		if again, _ := Append([]byte("before"), msg); !bytes.Equal(again, append([]byte("before"), b...)) {
			t.Errorf("%T: not appended", msg)
		}
	}
}

// The octets of one message stand for the form, which other versions rely on.
func TestCodecForm(t *testing.T) {
	msg := &TokenAck{Header: Header{From: Node{Member{1, 2}, "c"}, To: Member{3, 4}}, View: ViewID{5, Member{6, 7}}, Hop: 300}
	want := "01" + "08" + "00000001" + "0000000000000002" + "0163" + "00000003" + "0000000000000004" +
		"05" + "00000006" + "0000000000000007" + "ac02" + "00"
	if got := hex.EncodeToString(encode(t, msg)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDecodeDoesNotCopyPayloads(t *testing.T) {
	b := encode(t, &Token{Copy: Copy{View: viewAB.ID, Seq: 1, Runs: []Run{{Seq: 1, Count: 1, Origin: viewAB.ID, OriginSeq: 1, Data: payloads("payload")}}}})
	msg, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	b[bytes.Index(b, []byte("payload"))] = 'P'
	if got := string(msg.(*Token).Runs[0].Data); !strings.HasSuffix(got, "Payload") {
		t.Errorf("copied: %q", got)
	}
}

func TestDecodeWorksWithTheNextVersion(t *testing.T) {
	for _, msg := range samples() {
		b := encode(t, msg)
		b[0] = Version + 1
		later := append(b[:len(b)-1:len(b)-1], 3, 'n', 'e', 'w')
		got, err := Decode(later)
		if err != nil || !reflect.DeepEqual(got, msg) {
			t.Errorf("%T of the next version: %v, %v", msg, got, err)
		}
		for _, v := range []byte{0, Version + 2, 255} {
			b[0] = v
			if _, err := Decode(b); !errors.Is(err, ErrVersion) {
				t.Errorf("version %d: %v", v, err)
			}
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, msg := range samples() {
		b := encode(t, msg)
		for n := range b {
			if _, err := Decode(b[:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%T cut to %d of %d: %v", msg, n, len(b), err)
			}
		}
		if _, err := Decode(append(b, 0)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%T with a tail: %v", msg, err)
		}
	}
	if _, err := Decode(make([]byte, MaxMessage+1)); !errors.Is(err, ErrMalformed) {
		t.Errorf("oversized: %v", err)
	}
	h := Header{From: nodeA, To: nodeB.Member}
	for name, msg := range map[string]Message{
		"more entries than data": &Token{Header: h, Copy: Copy{Runs: []Run{{Count: 3, Data: payloads("a", "b")}}}},
		"more data than entries": &Token{Header: h, Copy: Copy{Runs: []Run{{Count: 1, Data: payloads("a", "b")}}}},
		"a run of nothing":       &Token{Header: h, Copy: Copy{Runs: []Run{{Count: 0}}}},
		"a run without end":      &Token{Header: h, Copy: Copy{Runs: []Run{{Count: 1 << 60, Omitted: true}}}},
		"too long a payload":     &Token{Header: h, Copy: Copy{Runs: []Run{{Count: 1, Data: appendPayload(nil, make([]byte, MaxPayload+1))}}}},
		"too long a contact":     &Hear{Header{From: Node{nodeA.Member, strings.Repeat("c", MaxContact+1)}}},
		"too many members":       &Ping{Header: h, Candidates: make([]Node, maxMembers+1)},
	} {
		if _, err := Decode(encode(t, msg)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecodeAllocatesNoMoreThanItGot(t *testing.T) {
	b := encode(t, &Ping{Header: Header{From: nodeA}, Nonce: 1})
	// A list of 2^60 nodes that are not there.
	b = append(b[:len(b)-2], 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10, 0)
	if n := testing.AllocsPerRun(10, func() {
		if _, err := Decode(b); err == nil {
			t.Error("taken")
		}
	}); n > 10 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDecode(f *testing.F) {
	for _, msg := range samples() {
		f.Add(encode(f, msg))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		msg, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Append(nil, msg)
		if err != nil {
			t.Fatalf("decoded and can't be encoded: %v", err)
		}
		same, err := Decode(again)
		if err != nil || !reflect.DeepEqual(msg, same) {
			t.Fatalf("%+v\nbecame %+v, %v", msg, same, err)
		}
		// A member that gets it lives on.
		now := time.Unix(1, 0)
		m, err := New(Config{Self: nodeB, Timers: LAN(), Rand: rand.New(rand.NewPCG(1, 1))}, now)
		if err != nil {
			t.Fatal(err)
		}
		m.Step(msg, now)
		if _, err := m.Propose([]byte("after it"), now.Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
	})
}
