package endtoend

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// A cut host sends no farewell: no connection is closed, no ICMP message comes.
func TestElementWithACutCableIsRemovedAndComesBack(t *testing.T) {
	n := newNetwork(t)
	r := n.host("192.0.2.1/24").registrar()
	at := []string{r.at}
	n.host("192.0.2.11/24").element("a", at)
	b := n.host("192.0.2.12/24")
	b.element("b", at)
	r.hasMembers("a b")
	u := n.host("192.0.2.21/24").user(at)
	u.isServedBy("a b")
	n.plug(b, false)
	r.hasMembers("a")
	u.isServedBy("a")
	n.plug(b, true)
	r.hasMembers("a b")
	u.isServedBy("a b")
	u.wasServed(3 * time.Second)
}

func TestElementThatHearsNothingIsRemovedAndComesBack(t *testing.T) {
	oneWay(t, func(n *network, b, other *host, connected bool) { n.oneWay(other, b, connected) })
}

func TestElementThatNobodyHearsIsRemovedAndComesBack(t *testing.T) {
	oneWay(t, func(n *network, b, other *host, connected bool) { n.oneWay(b, other, connected) })
}

func oneWay(t *testing.T, set func(n *network, b, other *host, connected bool)) {
	n := newNetwork(t)
	rHost, a, b, uHost := n.host("192.0.2.1/24"), n.host("192.0.2.11/24"), n.host("192.0.2.12/24"), n.host("192.0.2.21/24")
	r := rHost.registrar()
	at := []string{r.at}
	a.element("a", at)
	b.element("b", at)
	r.hasMembers("a b")
	u := uHost.user(at)
	u.isServedBy("a b")
	set(n, b, rHost, false)
	set(n, b, uHost, false)
	r.hasMembers("a")
	u.isServedBy("a")
	set(n, b, rHost, true)
	set(n, b, uHost, true)
	r.hasMembers("a b")
	u.isServedBy("a b")
	u.wasServed(3 * time.Second)
}

// The other half of the network does not see the element, but the registrar does:
// the user goes elsewhere without an end to it.
func TestUserGoesOnWhenOnlyItCannotReachAnElement(t *testing.T) {
	n := newNetwork(t)
	rHost, a, b, uHost := n.host("192.0.2.1/24"), n.host("192.0.2.11/24"), n.host("192.0.2.12/24"), n.host("192.0.2.21/24")
	r := rHost.registrar()
	at := []string{r.at}
	a.element("a", at)
	b.element("b", at)
	r.hasMembers("a b")
	u := uHost.user(at)
	u.isServedBy("a b")
	n.oneWay(uHost, b, false)
	u.isServedBy("a")
	r.hasMembers("a b")
	u.wasServed(2 * time.Second)
}

func TestElementsAndUsersMoveWhenTheRegistrarsCableIsCut(t *testing.T) {
	n := newNetwork(t)
	oneHost := n.host("192.0.2.1/24")
	one, two := oneHost.registrar(), n.host("192.0.2.2/24").registrar()
	both := []string{one.at, two.at}
	two.kill()
	n.host("192.0.2.11/24").element("a", both)
	n.host("192.0.2.12/24").element("b", both)
	one.hasMembers("a b")
	u := n.host("192.0.2.21/24").user(both)
	two.restart()
	one.w.until("keep-alives", func() bool { return one.answeredKeepAlives() >= 10 })
	n.plug(oneHost, false)
	two.hasMembers("a b")
	u.isServedBy("a b")
	u.wasServed(2 * time.Second)
}

// No connection is closed, and the registrar that comes back knows of none.
func TestPoolIsBackWhenTheRegistrarsHostLostItsPower(t *testing.T) {
	n := newNetwork(t)
	h := n.host("192.0.2.1/24")
	r := h.registrar()
	at := []string{r.at}
	n.host("192.0.2.11/24").element("a", at)
	n.host("192.0.2.12/24").element("b", at)
	r.hasMembers("a b")
	u := n.host("192.0.2.21/24").user(at)
	u.isServedBy("a b")
	r.w.until("keep-alives", func() bool { return r.answeredKeepAlives() >= 10 })
	n.plug(h, false)
	n.run(h, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/tcp_orphan_retries")
	r.kill()
	u.isServedBy("a b")
	// The kernel of a host without power would not try to take leave.
	r.w.until("the connections to be forgotten", func() bool {
		const finWait1 = " 04 "
		return !strings.Contains(n.run(h, "cat", "/proc/net/tcp", "/proc/net/tcp6"), finWait1)
	})
	r.restart()
	n.plug(h, true)
	r.hasMembers("a b")
	u.isServedBy("a b")
	u.wasServed(2 * time.Second)
}

// The registrar takes all others for dead meanwhile.
func TestRegistrarWithACutCableComesBackUnnoticed(t *testing.T) {
	n := newNetwork(t)
	h := n.host("192.0.2.1/24")
	r := h.registrar()
	at := []string{r.at}
	n.host("192.0.2.11/24").element("a", at)
	n.host("192.0.2.12/24").element("b", at)
	r.hasMembers("a b")
	u := n.host("192.0.2.21/24").user(at)
	u.isServedBy("a b")
	n.plug(h, false)
	r.hasMembers("")
	u.isServedBy("a b")
	n.plug(h, true)
	r.hasMembers("a b")
	u.isServedBy("a b")
	u.wasServed(2 * time.Second)
}

// Nobody is told an address of a registrar.
func TestRegistrarsAreFoundByAnnouncementAlone(t *testing.T) {
	for name, prefix := range map[string]string{"IPv4": "192.0.2.%/24", "IPv6": "2001:db8::%/64"} {
		t.Run(name, func(t *testing.T) {
			n := newNetwork(t)
			address := func(last string) string { return strings.Replace(prefix, "%", last, 1) }
			// Not all that it announces leads to it.
			one := n.host(address("1"), "198.51.100.1/24", "2001:db8:1::1/64").registrar("--announce", "auto")
			listen := []string{"--announce", "auto"}
			n.host(address("11")).element("a", nil, listen...)
			n.host(address("12")).element("b", nil, listen...)
			one.hasMembers("a b")
			u := n.host(address("21")).user(nil, listen...)
			u.isServedBy("a b")
			// The next one is found likewise, when the first is gone.
			one.kill()
			two := n.host(address("2")).registrar("--announce", "auto")
			two.hasMembers("a b")
			u.isServedBy("a b")
			u.wasServed(2 * time.Second)
		})
	}
}

// Where the registrar starts before the network has its addresses.
func TestRegistrarAnnouncesTheAddressesThatItGetsLater(t *testing.T) {
	n := newNetwork(t)
	h := n.host()
	r := h.registrar("--announce", "auto")
	n.host("192.0.2.11/24").element("a", nil, "--announce", "auto")
	n.ip("-n", h.namespace, "address", "add", "192.0.2.1/24", "dev", link)
	r.w.within(30*time.Second, func() string {
		if got, err := r.members(); err != nil || got != "a" {
			return "no element has found the registrar"
		}
		return ""
	})
}

func TestRegistrarIsFoundByANameWithADeadAddress(t *testing.T) {
	n := newNetwork(t)
	r := n.host("192.0.2.1/24").registrar()
	a, b, uHost := n.host("192.0.2.11/24"), n.host("192.0.2.12/24"), n.host("192.0.2.21/24")
	// One address that nobody has, one that refuses, one beyond the network, and
	// the right one.
	n.host("192.0.2.2/24")
	for _, h := range []*host{a, b, uHost} {
		n.names(h, "192.0.2.99 registrar.test\n192.0.2.2 registrar.test\n198.51.100.1 registrar.test\n192.0.2.1 registrar.test\n")
	}
	at := []string{"tcp://registrar.test"}
	a.element("a", at)
	b.element("b", []string{"registrar.test"}) // by whatever transport
	r.hasMembers("a b")
	u := uHost.user(at)
	u.isServedBy("a b")
	u.wasServed(2 * time.Second)
}

func TestElementRegistersTheAddressThatItHasTowardsTheRegistrar(t *testing.T) {
	n := newNetwork(t)
	r := n.host("192.0.2.1/24").registrar()
	// The first address leads elsewhere.
	n.host("198.51.100.11/24", "192.0.2.11/24").element("a", []string{r.at})
	r.hasMembers("a")
	a := r.member("a")
	if got := a.User; !slices.Equal(got.Addresses, []string{"192.0.2.11"}) || got.Port != 7000 || got.Protocol != "tcp" {
		t.Errorf("user transport %+v, want tcp 192.0.2.11:7000", got)
	}
	if got := a.ASAP; got == nil || !slices.Equal(got.Addresses, []string{"192.0.2.11"}) {
		t.Errorf("ASAP transport %+v, want 192.0.2.11", got)
	}
	n.host("192.0.2.21/24").user([]string{r.at}).wasServed(time.Second)
}

func TestLoopbackAddressIsNotRegisteredElsewhere(t *testing.T) {
	n := newNetwork(t)
	h := n.host("192.0.2.1/24")
	r := h.registrar()
	far := n.host("192.0.2.11/24").element("a", []string{r.at}, "--advertise", "127.0.0.1:7000")
	far.car.says("loopback")
	r.hasMembers("")
	// On the registrar's own host it is as good as any.
	h.element("b", []string{"tcp://127.0.0.1"})
	r.hasMembers("b")
	if got := r.member("b").User.Addresses; !slices.Equal(got, []string{"127.0.0.1"}) {
		t.Errorf("addresses %v, want 127.0.0.1", got)
	}
}

// Registrar and one user speak both, the elements one each, and the second user
// only IPv4.
func TestPoolOfBothFamilies(t *testing.T) {
	n := newNetwork(t)
	r := n.host("192.0.2.1/24", "2001:db8::1/64").registrar()
	n.host("192.0.2.11/24").element("a", []string{"tcp://192.0.2.1"})
	n.host("2001:db8::12/64").element("b", []string{"tcp://[2001:db8::1]"})
	r.hasMembers("a b")
	if got := r.member("b").User.Addresses; !slices.Equal(got, []string{"2001:db8::12"}) {
		t.Errorf("addresses of b: %v, want 2001:db8::12", got)
	}
	u := n.host("192.0.2.21/24", "2001:db8::21/64").user([]string{"tcp://192.0.2.1"})
	u.isServedBy("a b")
	// Those who can't reach an element are not to take it from those who can.
	var others []*user
	for _, address := range []string{"192.0.2.22/24", "192.0.2.23/24", "192.0.2.24/24", "192.0.2.25/24", "192.0.2.26/24"} {
		others = append(others, n.host(address).user([]string{"tcp://192.0.2.1"}))
	}
	for _, other := range others {
		other.isServedBy("a")
	}
	r.hasMembers("a b")
	u.isServedBy("a b")
	for _, other := range append(others, u) {
		other.wasServed(2 * time.Second)
	}
}
