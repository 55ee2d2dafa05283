// Vectors makes test vectors from a capture of rsplib's traffic: one message of
// each kind, in hexadecimal, with a comment line above it that says what it is.
// tshark takes the SCTP user messages out of the packets; nothing of this
// project's decoders is used, because the vectors are for their tests.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// odd is the lab's host whose messages are not rsplib's.
const odd = "10.9.0.31"

// protocol is one of the two whose messages are wanted.
type protocol struct {
	name  string
	ppid  string
	port  string // of UDP announcements
	fixed map[byte]int
	names map[byte]string
}

var protocols = []protocol{
	{"asap", "11", "3863", map[byte]int{0x07: 4, 0x0a: 4}, map[byte]string{
		0x01: "REGISTRATION", 0x02: "DEREGISTRATION", 0x03: "REGISTRATION_RESPONSE", 0x04: "DEREGISTRATION_RESPONSE",
		0x05: "HANDLE_RESOLUTION", 0x06: "HANDLE_RESOLUTION_RESPONSE", 0x07: "ENDPOINT_KEEP_ALIVE",
		0x08: "ENDPOINT_KEEP_ALIVE_ACK", 0x09: "ENDPOINT_UNREACHABLE", 0x0a: "SERVER_ANNOUNCE", 0x0b: "COOKIE",
		0x0c: "COOKIE_ECHO", 0x0d: "BUSINESS_CARD", 0x0e: "ERROR",
	}},
	{"enrp", "12", "9901", map[byte]int{0x01: 8, 0x02: 8, 0x03: 8, 0x04: 12, 0x05: 8, 0x06: 8, 0x07: 12, 0x08: 12, 0x09: 12, 0x0a: 8}, map[byte]string{
		0x01: "PRESENCE", 0x02: "HANDLE_TABLE_REQUEST", 0x03: "HANDLE_TABLE_RESPONSE", 0x04: "HANDLE_UPDATE",
		0x05: "LIST_REQUEST", 0x06: "LIST_RESPONSE", 0x07: "INIT_TAKEOVER", 0x08: "INIT_TAKEOVER_ACK",
		0x09: "TAKEOVER_SERVER", 0x0a: "ERROR",
	}},
}

// parameters: name and octets before nested parameters (-1: has none).
var parameters = map[uint16]struct {
	name   string
	nested int
}{
	0x01: {"IPv4", -1}, 0x02: {"IPv6", -1}, 0x03: {"DCCP", 8}, 0x04: {"SCTP", 4}, 0x05: {"TCP", 4}, 0x06: {"UDP", 4},
	0x07: {"UDP-Lite", 4}, 0x08: {"Policy", -1}, 0x09: {"Handle", -1}, 0x0a: {"Element", 12}, 0x0b: {"Server", 4},
	0x0c: {"Error", -1}, 0x0d: {"Cookie", -1}, 0x0e: {"PEID", -1}, 0x0f: {"Checksum", -1}, 0x803f: {"ResolutionItems", -1},
}

func main() {
	pcap := flag.String("pcap", "", "capture file")
	out := flag.String("out", "", "folder for asap/captured.hex and enrp/captured.hex")
	flag.Parse()
	if err := run(*pcap, *out); err != nil {
		fmt.Fprintln(os.Stderr, "vectors:", err)
		os.Exit(1)
	}
}

func run(pcap, out string) error {
	messages, err := read(pcap)
	if err != nil {
		return err
	}
	for _, p := range protocols {
		var text bytes.Buffer
		fmt.Fprintf(&text, "# %s messages of rsplib 3.4.4, captured in the lab (scripts/lab.sh capture)\n", strings.ToUpper(p.name))
		kinds := map[string][]byte{}
		for _, m := range messages[p.name] {
			if kind := p.describe(m); kinds[kind] == nil {
				kinds[kind] = m
			}
		}
		var order []string
		for kind := range kinds {
			order = append(order, kind)
		}
		slices.SortFunc(order, func(a, b string) int {
			return strings.Compare(hex.EncodeToString(kinds[a][:1])+a, hex.EncodeToString(kinds[b][:1])+b)
		})
		for _, kind := range order {
			fmt.Fprintf(&text, "# %s\n%s\n", kind, hex.EncodeToString(kinds[kind]))
		}
		folder := filepath.Join(out, p.name)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, "captured.hex"), text.Bytes(), 0o644); err != nil {
			return err
		}
		fmt.Printf("vectors: %s: %d of %d messages are of a kind of their own\n", p.name, len(order), len(messages[p.name]))
	}
	return nil
}

// read returns the messages of each protocol in the order of the capture. Upper
// layers are not dissected, so that all user messages show as raw data.
func read(pcap string) (map[string][][]byte, error) {
	cmd := exec.Command("tshark", "-r", pcap, "-n", "-Y", "ip.src != "+odd, "--disable-protocol", "asap", "--disable-protocol", "enrp",
		"-o", "sctp.ulp_dissection:FALSE", "-o", "sctp.reassembly:TRUE",
		"-T", "fields", "-E", "separator=;", "-E", "aggregator=,",
		"-e", "udp.dstport", "-e", "sctp.data_payload_proto_id", "-e", "data.data")
	cmd.Stderr = os.Stderr
	lines, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("tshark: %w", err)
	}
	messages := map[string][][]byte{}
	for line := range strings.Lines(string(lines)) {
		f := strings.Split(strings.TrimSpace(line), ";")
		if len(f) != 3 || f[2] == "" {
			continue
		}
		ppids, data := strings.Split(f[1], ","), strings.Split(f[2], ",")
		for _, p := range protocols {
			for i, text := range data {
				if f[0] != p.port && (len(ppids) != len(data) || ppids[i] != p.ppid) {
					continue
				}
				m, err := hex.DecodeString(text)
				if err != nil || len(m) < 4 {
					return nil, fmt.Errorf("user message %q: %v", text, err)
				}
				messages[p.name] = append(messages[p.name], m)
			}
		}
	}
	return messages, nil
}

// describe names a message's kind: its type, flags and tree of parameters.
// Repetitions of a parameter count as one.
func (p protocol) describe(m []byte) string {
	name := p.names[m[0]]
	if name == "" {
		name = fmt.Sprintf("type 0x%02x", m[0])
	}
	kind := fmt.Sprintf("%s flags 0x%02x", name, m[1])
	body := m[4:]
	n := p.fixed[m[0]]
	if p.name == "enrp" && m[0] == 0x04 && len(body) >= n {
		kind += fmt.Sprintf(" action %d", binary.BigEndian.Uint16(body[8:]))
	}
	if len(body) < n {
		return kind + " short"
	}
	if tree := describeParameters(body[n:]); tree != "" {
		kind += ": " + tree
	}
	return kind
}

func describeParameters(b []byte) string {
	var names []string
	for len(b) >= 4 {
		code, length := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
		if length < 4 || length > len(b) {
			return strings.Join(append(names, "broken"), " ")
		}
		value := b[4:length]
		known, ok := parameters[code]
		name := known.name
		if !ok {
			name = fmt.Sprintf("0x%04x", code)
		}
		switch {
		case name == "Policy" && len(value) >= 4:
			name += fmt.Sprintf("(0x%x)", binary.BigEndian.Uint32(value))
		case name == "Error" && len(value) >= 4:
			name += fmt.Sprintf("(0x%x)", binary.BigEndian.Uint16(value))
		case name == "Handle":
			name += fmt.Sprintf("+%d", -len(value)&3) // its padding
		case ok && known.nested >= 0 && len(value) >= known.nested:
			name += "(" + describeParameters(value[known.nested:]) + ")"
		}
		if len(names) == 0 || names[len(names)-1] != name {
			names = append(names, name)
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	return strings.Join(names, " ")
}
