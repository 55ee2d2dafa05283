package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sessions lets users of both makers keep sessions with elements of both, which are
// killed one after the other.
func sessions(l *lab) {
	l.registrar(pr1, "rspd", "--compat", "rsplib", "--timers", "rsplib")
	ours := func(service string) func(h host, name, pool string) *process {
		return func(h host, name, pool string) *process {
			return l.mustStart(h, name, l.service("element", service, pool, "--listen", "sctp://"+h.a()+","+h.b())...)
		}
	}
	theirs := func(service string) func(h host, name, pool string) *process {
		return func(h host, name, pool string) *process {
			return l.rsplibElement(h, name, service, pr1, "-poolhandle="+pool)
		}
	}
	pings := map[string]func(pool string) *process{
		"pingpongclient": func(pool string) *process {
			return l.rsplibUser(pu1, "user-"+pool, "pingpongclient", pr1, "-interval=50", "-poolhandle="+pool)
		},
		"our user": func(pool string) *process {
			return l.mustStart(pu1, "user-"+pool, l.service("user", "pingpong", pool, "--interval", "50ms")...)
		},
	}
	l.pingPong("pingpongclient with our elements", "OursTheirs", ours("pingpong"), pings["pingpongclient"])
	l.pingPong("our user with rsplib's elements", "TheirsOurs", theirs("pingpong"), pings["our user"])
	l.pingPong("our user with our elements", "OursOurs", ours("pingpong"), pings["our user"])

	l.fractal("our user with rsplib's fractal elements", "TheirPictures", theirs("fractal"))
	l.fractal("our user with our fractal elements", "OurPictures", ours("fractal"))

	l.scripts(ours("scripting"))

	l.localPort()
}

// service returns the command line of an element or user of scripts/services.
func (l *lab) service(role, service, pool string, args ...string) []string {
	return append([]string{l.bin("services"), role, service, "--pool", pool, "--rsplib", "--registrar", sctpOn(pr1, 3863)}, args...)
}

// ack is what users of both makers print for a pong.
var ack = regexp.MustCompile(`Ack #(\d+) from PE \$([0-9a-f]{8}) \(reply #(\d+)\)`)

type pong struct {
	ping, reply int
	element     string
}

func pongs(user *process) (out []pong) {
	for _, m := range ack.FindAllStringSubmatch(user.text(), -1) {
		ping, _ := strconv.Atoi(m[1])  // digits
		reply, _ := strconv.Atoi(m[3]) // digits
		out = append(out, pong{ping, reply, m[2]})
	}
	return out
}

// pingPong kills the first element of two, and, when the first has come back as another
// one, the second.
func (l *lab) pingPong(what, pool string, element func(h host, name, pool string) *process, start func(pool string) *process) {
	two := []*process{element(pe1, pool+"-1", pool)}
	l.need(what+": first element registers", second(l.members(pr1, pool, 1, 15*time.Second)))
	user := start(pool)
	l.check(what+": pongs come", user.says("Ack #", 10, 15*time.Second))
	two = append(two, element(pe2, pool+"-2", pool))
	l.need(what+": second element registers", second(l.members(pr1, pool, 2, 15*time.Second)))
	for i, victim := range two {
		if i == 1 {
			element(pe1, pool+"-3", pool)
			l.check(what+": there are two again", second(l.members(pr1, pool, 2, 15*time.Second)))
		}
		before := len(pongs(user))
		victim.stop()
		l.check(fmt.Sprintf("%s: fails over, element %d of 2", what, i+1), user.says("Ack #", before+20, 20*time.Second))
	}
	user.stop()
	l.check(what+": the state came along", counts(pongs(user)))
	l.endOf(pool)
}

// counts checks that replies go on counting over three elements. A pong or a cookie
// that dies with its element may cost one number, or give it twice.
func counts(all []pong) error {
	elements, last := 1, all[0]
	for _, p := range all[1:] {
		switch step := p.reply - last.reply; {
		case p.element == last.element && step != 1:
			return fmt.Errorf("reply %d after %d from one element", p.reply, last.reply)
		case p.element != last.element && (step < 0 || step > 2):
			return fmt.Errorf("reply %d after %d of another element", p.reply, last.reply)
		case p.element != last.element:
			elements++
		}
		last = p
	}
	if elements != 3 || last.reply < 40 {
		return fmt.Errorf("%d elements, last reply %d", elements, last.reply)
	}
	return nil
}

// fractal kills the element that computes a picture while there is no other one, which
// comes then.
func (l *lab) fractal(what, pool string, element func(h host, name, pool string) *process) {
	first := element(pe1, pool+"-1", pool)
	l.need(what+": element registers", second(l.members(pr1, pool, 1, 15*time.Second)))
	user := l.mustStart(pu1, "user-"+pool, l.service("user", "fractal", pool, "--width", "300", "--height", "240", "--iterations", "20000")...)
	l.check(what+": a picture begins", user.says(" 10 %", 1, 30*time.Second))
	first.stop()
	element(pe2, pool+"-2", pool)
	err := user.wait(60 * time.Second)
	if err != nil {
		err = fmt.Errorf("%w: %s", err, tail(user.text()))
	}
	l.check(what+": another element goes on", errors.Join(err, user.says("failover 1:", 1, 0)))
	l.check(what+": the picture is right, whoever computed it", user.says("the picture is right", 1, 0))
	l.endOf(pool)
}

// scripts lets scriptingclient run jobs at our elements.
func (l *lab) scripts(element func(h host, name, pool string) *process) {
	const pool, what = "ScriptingPool", "scriptingclient with our elements"
	first := element(pe1, pool+"-1", pool)
	l.need(what+": element registers", second(l.members(pr1, pool, 1, 15*time.Second)))
	l.check(what+": gets its result", l.scripting(pu1, pr1))

	environment, input, output := l.file("environment"), l.file("job.tar.gz"), "/tmp/job-out.tar.gz"
	job := func(name, script string) (*process, error) {
		err := errors.Join(
			writeArchive(environment, map[string]string{"word": strings.Repeat("carried ", 5000)}),
			writeArchive(input, map[string]string{"ssrun": "#!/bin/sh\n" + script + "\ntar xzf $2 && wc -c < word > out.txt && tar czf $1 out.txt\n"}))
		if err != nil {
			return nil, err
		}
		return l.start(pu1, name, "scriptingclient", "-registrar="+pr1.asap(), "-logcolor=off", "-loglevel=4",
			"-runid=lab", "-environment="+environment, "-input="+input, "-output="+output, "-retrydelay=500")
	}
	result := func(client *process, err error) error {
		if err == nil {
			err = client.wait(60 * time.Second)
		}
		if err != nil {
			return fmt.Errorf("%w: %s", err, tail(client.text()))
		}
		got, err := readArchive(output, "out.txt")
		if err == nil && strings.TrimSpace(got) != "40000" {
			err = fmt.Errorf("result is %q", got)
		}
		return err
	}
	client, err := job("with-environment", "true")
	l.check(what+": uploads an environment", errors.Join(result(client, err), client.says("needs environment", 1, 0)))
	client, err = job("with-environment-again", "true")
	l.check(what+": doesn't need to again", errors.Join(result(client, err), client.says("has cached environment", 1, 0)))

	marker := filepath.Join("/tmp", "lab-second-try")
	client, err = job("killed", "[ -e "+marker+" ] || { touch "+marker+"; sleep 600; }")
	l.need(what+": starts a long job", errors.Join(err, client.says("is processing", 1, 15*time.Second)))
	element(pe2, pool+"-2", pool)
	l.need(what+": second element registers", second(l.members(pr1, pool, 2, 15*time.Second)))
	first.stop()
	l.check(what+": begins anew when its element is killed", result(client, nil))
	l.endOf(pool)
}

// localPort leads TCP clients that know nothing of pools to SCTP elements of both
// makers, which are killed one after the other.
func (l *lab) localPort() {
	const pool, what = "PortPool", "a local port that leads to SCTP elements"
	theirs := l.rsplibElement(pe1, pool+"-1", "echo", pr1, "-poolhandle="+pool)
	server, _ := l.echoElement(pe2, pr1, pool+"-2", pool, "--compat", "rsplib", "--control-channel")
	l.need(what+": elements of both makers register", second(l.members(pr1, pool, 2, 15*time.Second)))
	port := l.mustStart(pu1, pool+"-port", l.bin("rsppu"), "--listen", "127.0.0.1:9000", "--pool", pool,
		"--registrar", sctpOn(pr1, 3863), "--compat", "rsplib", "--log-level", "debug")
	l.need(what+": listens", port.says("listening", 1, 5*time.Second))

	client := func(name, script string) error {
		out, err := l.output(15*time.Second, pu1, pool+"-"+name, "bash", "-ec", "exec 3<>/dev/tcp/127.0.0.1/9000; "+script)
		if err != nil {
			err = fmt.Errorf("%w: %s", err, tail(out))
		}
		return err
	}
	const lines = `for i in {1..20}; do echo "line $i" >&3; read -t 5 -r -u 3 got; [ "$got" = "line $i" ]; done`
	for i := range 2 {
		l.check(fmt.Sprintf("%s: client %d gets its echoes", what, i+1), client(fmt.Sprint("lines-", i+1), lines))
	}
	l.check(what+": they were led to both elements", errors.Join(port.says("address=\""+pe1.a(), 1, 0), port.says("address=\""+pe2.a(), 1, 0)))
	theirs.stop()
	for i := range 2 {
		l.check(fmt.Sprintf("%s: client %d gets its echoes when one element is dead", what, i+3), client(fmt.Sprint("lines-", i+3), lines))
	}
	// Only with ours: rsplib's element was seen to lose the association amid so much.
	var numbers []byte // in one line: what is started here writes line by line
	for i := range 40000 {
		numbers = fmt.Appendf(numbers, "%08d", i)
	}
	many := l.file("many")
	l.need(what+": writes a file", os.WriteFile(many, numbers, 0o644))
	l.check(what+": 320000 octets come back as they were", client("many", "cat "+many+" >&3 & head -c 320000 <&3 | cmp - "+many))
	rest := l.mustStart(pu1, pool+"-rest", "bash", "-ec", "exec 3<>/dev/tcp/127.0.0.1/9000; "+lines+`; echo connected; cat <&3 || echo reset`)
	l.need(what+": a client stays connected", rest.says("connected", 1, 10*time.Second))
	server.stop()
	l.check(what+": its connection ends with the other element", rest.wait(10*time.Second))
	l.check(what+": with no element left a client is reset", exitCode(client("none", "cat <&3"), 1))
	l.check(what+": ends on SIGTERM", port.end(syscall.SIGTERM, 5*time.Second))
	l.endOf(pool)
}
