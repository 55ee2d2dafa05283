package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/sirupsen/logrus"
	"github.com/spf13/pflag"
)

// logSettings are the logging settings that every program has.
type logSettings struct {
	level  string
	format string
}

func (l *logSettings) declare(fs *pflag.FlagSet) {
	fs.StringVar(&l.level, "log-level", "info", "log messages of this level and above: error, warn, info, debug, trace")
	fs.StringVar(&l.format, "log-format", "text", "log format: text, json")
}

func (l *logSettings) validate() []error {
	var errs []error
	if _, err := logrus.ParseLevel(l.level); err != nil {
		errs = append(errs, fmt.Errorf("log-level: %q is not a log level", l.level))
	}
	if l.format != "text" && l.format != "json" {
		errs = append(errs, fmt.Errorf("log-format: %q is neither text nor json", l.format))
	}
	return errs
}

// apply sets the logger up; the settings are valid.
func (l *logSettings) apply(log *logrus.Logger) {
	level, _ := logrus.ParseLevel(l.level)
	log.SetLevel(level)
	if l.format == "json" {
		log.SetFormatter(&logrus.JSONFormatter{TimestampFormat: timeFormat})
		return
	}
	log.SetFormatter(&logrus.TextFormatter{
		FullTimestamp: true, TimestampFormat: timeFormat, DisableColors: os.Getenv("NO_COLOR") != "",
	})
}

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

func newLogger(w io.Writer) *logrus.Logger {
	log := logrus.New()
	log.SetOutput(w)
	return log
}
