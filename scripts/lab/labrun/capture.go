package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// capture plays a scene with every program of rsplib and leaves what was said in
// log/capture.pcap. Checks only make sure that the scene was played.
func capture(l *lab) {
	dump := l.mustStart(host{}, "tcpdump", "tcpdump", "-U", "-Z", "root", "-i", "lan-a", "-s", "0",
		"-w", filepath.Join(l.out, "log", "capture.pcap"), "sctp or udp")
	l.need("tcpdump runs", dump.says("listening on", 1, 10*time.Second))

	// The first registrar must be past its start before the others come, so
	// that they take it for their mentor.
	r1 := l.rsplibRegistrar(pr1, "registrar1", "-identifier=0x11111111")
	l.need("first registrar is ready", r1.says("registrar is ready", 1, 15*time.Second))

	// Each policy, one element each, then a wrong one for a pool that exists.
	policies := []string{"RoundRobin", "WeightedRoundRobin:3", "Random", "WeightedRandom:7", "Priority:5",
		"LeastUsed", "LeastUsedDegradation:0.1", "PriorityLeastUsed:0.2", "RandomizedLeastUsed",
		"WeightedRandomDPF:9:0.5", "LeastUsedDPF:0.6", "LeastUsedDegradationDPF:0.7:0.8"}
	var elements []*process
	for _, policy := range policies {
		name, _, _ := strings.Cut(policy, ":")
		elements = append(elements, l.rsplibElement(pe1, name, "echo", pr1, "-poolhandle=Pool-"+name, "-policy="+policy))
	}
	l.check("elements register", r1.says("Successfully registered Pool-", len(policies), 20*time.Second))
	misfit := l.rsplibElement(pe2, "misfit", "echo", pr1, "-poolhandle=Pool-RoundRobin", "-policy=Random")
	l.check("wrong policy is refused", misfit.says("incompatible pool policy", 1, 10*time.Second))
	misfit.stop()

	l.rsplibRegistrar(pr2, "registrar2", "-identifier=0x22222222", "-peer="+pr1.enrp())
	l.rsplibRegistrar(pr3, "registrar3", "-identifier=0x33333333", "-peer="+pr1.enrp())

	// Sessions with cookies that fail over.
	for i, h := range []host{pe2, pe3} {
		elements = append(elements,
			l.rsplibElement(h, fmt.Sprint("pingpong", i), "pingpong", pr2, "-poolhandle=PingPongPool", "-pppfailureafter=4"),
			l.rsplibElement(h, fmt.Sprint("calcapp", i), "calcapp", pr3, "-poolhandle=CalcAppPool", "-policy=LeastUsed", "-capcookiemaxtime=1"))
	}
	time.Sleep(2 * time.Second)
	l.rsplibUser(pu1, "pingpongclient", "pingpongclient", pr2, "-poolhandle=PingPongPool", "-interval=200")
	l.rsplibUser(pu2, "calcappclient", "calcappclient", pr3, "-poolhandle=CalcAppPool", "-jobsize=30000000", "-jobinterval=1")
	pu := l.rsplibUser(pu1, "terminal", "rspterminal", pr1, "-poolhandle=Pool-RoundRobin")
	fmt.Fprintln(pu.in, "hello pool")
	l.check("user talks to a pool", pu.says("hello pool", 1, 10*time.Second))
	lost := l.rsplibUser(pu2, "lost", "rspterminal", pr1, "-poolhandle=NoSuchPool")
	fmt.Fprintln(lost.in, "anybody?")
	time.Sleep(3 * time.Second)
	lost.stop()
	for _, registrar := range []host{pr1, pr2, pr3} {
		l.check("handlespace of "+registrar.name, l.handlespaceHas(pu1, registrar, 15*time.Second, "Pool"))
	}

	// What a registrar refuses.
	for name, messages := range refused {
		_, err := l.output(10*time.Second, odd, "refused-"+name, append([]string{l.bin("labrun"), "-send", name}, messages...)...)
		l.check("wrong "+name+" messages are sent", err)
	}

	// An element that no longer answers is reported by its users.
	elements = append(elements, l.rsplibElement(pe3, "unreachable", "echo", pr1, "-poolhandle=Pool-RoundRobin"))
	time.Sleep(2 * time.Second)
	l.check("element is cut off", cutOff(pe3))
	for i := range 4 {
		pu := l.rsplibUser(pu2, fmt.Sprint("reporter", i), "rspterminal", pr1, "-poolhandle=Pool-RoundRobin")
		fmt.Fprintln(pu.in, "hello")
	}
	time.Sleep(12 * time.Second)

	// A registrar that no longer answers is taken over.
	l.check("registrar is cut off", cutOff(pr1))
	time.Sleep(20 * time.Second)

	for _, element := range elements {
		element.signal(syscall.SIGINT)
	}
	time.Sleep(3 * time.Second)
	l.check("tcpdump ends", dump.end(syscall.SIGINT, 5*time.Second))
	for _, h := range []host{pe3, pr1} {
		l.check(h.name+" is back", h.restore())
	}
}

// refused are messages from 10.9.0.31 to pr1 that are answered by errors;
// the name is that of the protocol. Each goes over an association of its own.
var refused = map[string][]string{
	"asap": {
		// An element on loopback; on an address of another host; without a
		// policy; with policy type 0x7ffffff0; with port 0; with identifier 0.
		"010000380009000a4563686f52520000000a002801020304000000000001d4c0000400101389000100010008" + "7f000001" + "0008000800000001",
		"010000380009000a4563686f52520000000a002801020304000000000001d4c0000400101389000100010008" + "0a090063" + "0008000800000001",
		"010000300009000a4563686f52520000000a002001020304000000000001d4c00004001013890001000100080a09001f",
		"010000380009000a4563686f52520000000a002801020304000000000001d4c00004001013890001000100080a09001f" + "000800087ffffff0",
		"010000380009000a4563686f52520000000a002801020304000000000001d4c00004001000000001000100080a09001f0008000800000001",
		"010000380009000a4563686f52520000000a002800000000000000000001d4c00004001013890001000100080a09001f0008000800000001",
		// TCP and UDP transports, which it takes; a further transport in the
		// same pool, which it doesn't; and their end.
		"010000380009000954637031000000" + "00" + "000a002801020305000000000001d4c0000500101f9000000001000" + "80a09001f0008000800000001",
		"010000380009000955647031000000" + "00" + "000a002801020306000000000001d4c0000600101f9000000001000" + "80a09001f0008000800000001",
		// A message length beyond its end; an unknown parameter that asks for
		// a report; a handle that is cut.
		"050000400009000a4563686f52520000",
		"0500001c0009000a4563686f525200004011000c0000000100000002",
		"0500000c000900204563686f",
		// A deregistration of an element that is not there.
		"020000180009000a4563686f52520000000e000800abcdef",
	},
	"enrp": {
		// A table request of a stranger; a presence without a checksum; one
		// with a message length beyond its end.
		"0200000c4444444400000000",
		"0100000c4444444400000000",
		"010000404444444400000000000f0006ffff0000",
		"0500000c4444444411111111",
		// A handle update without the element's ASAP transport.
		"0400004444444444000000000000000000090009" + "5570643100000000" + "000a002801020304444444440001d4c000040010138900010001000" + "80a09001f0008000800000001",
	},
}

func cutOff(h host) error {
	if err := h.cut("a"); err != nil {
		return err
	}
	return h.cut("b")
}

func (h host) restore() error {
	if err := h.mend("a"); err != nil {
		return err
	}
	return h.mend("b")
}
