package pooltest

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// maxLines bounds the diary; the first lines go.
const maxLines = 2000

// diary keeps what was done to a World and what its processes log, with virtual time.
type diary struct {
	start time.Time
	level logrus.Level

	mu    sync.Mutex
	lines []string
	lost  int
}

func newDiary() *diary {
	d := &diary{start: time.Now(), level: logrus.InfoLevel}
	if os.Getenv("TRACE") != "" {
		d.level = logrus.DebugLevel
	}
	return d
}

func (d *diary) note(who, what string) {
	line := fmt.Sprintf("%10.4fs  %-8s %s", time.Since(d.start).Seconds(), who, what)
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.lines) >= maxLines {
		d.lines = slices.Delete(d.lines, 0, maxLines/2)
		d.lost += maxLines / 2
	}
	d.lines = append(d.lines, line)
}

func (d *diary) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var b strings.Builder
	if d.lost > 0 {
		fmt.Fprintf(&b, "(%d lines before these)\n", d.lost)
	}
	b.WriteString(strings.Join(d.lines, "\n"))
	return b.String()
}

// log returns a logger that writes into the diary in the name of a process.
func (d *diary) log(who string) *logrus.Logger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	log.SetLevel(d.level)
	log.SetFormatter(silent{})
	log.AddHook(hook{d, who})
	return log
}

// silent formats nothing: the hook does.
type silent struct{}

func (silent) Format(*logrus.Entry) ([]byte, error) { return nil, nil }

type hook struct {
	d   *diary
	who string
}

func (hook) Levels() []logrus.Level { return logrus.AllLevels }

func (h hook) Fire(e *logrus.Entry) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Level, e.Message)
	keys := make([]string, 0, len(e.Data))
	for k := range e.Data {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(&b, " %s=%v", k, e.Data[k])
	}
	h.d.note(h.who, b.String())
	return nil
}
