package scripting

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
)

// Config describes the service. A zero field means its default.
type Config struct {
	// Name is what users are told. At most MaxInfo octets. Default: the host's name.
	Name string
	// Jobs is how many jobs run at a time; further users are told to look elsewhere.
	// Default 1.
	Jobs int
	// TransmitTimeout bounds the time between two parts of an upload, and that of
	// sending anything. Default 30 s.
	TransmitTimeout time.Duration
	// KeepAliveInterval is the time between keep-alives while a job runs. Default 15 s.
	KeepAliveInterval time.Duration
	// KeepAliveTimeout is how long their acknowledgement may take; then the job is
	// killed, as nobody waits for its result. Default 10 s.
	KeepAliveTimeout time.Duration
	// MaxSize bounds an input, an environment and what an input unpacks to, in octets
	// each. Default 1 GiB.
	MaxSize int64
	// Environments and EnvironmentsSize bound what is kept of environments that were
	// uploaded: their number, default 16, and octets of all together, default 128 MiB.
	Environments     int
	EnvironmentsSize int64
	// Dir is where jobs and environments get their directories, which are removed in
	// the end. Default: the system's for temporary files.
	Dir string
	// Output gets what the jobs' programs print. Default: nothing does.
	Output io.Writer
	// Log gets a line for each step of a job. Default: nothing is logged.
	Log logrus.FieldLogger
}

func (c Config) withDefaults() (Config, error) {
	for _, f := range []struct {
		field *time.Duration
		def   time.Duration
	}{{&c.TransmitTimeout, 30 * time.Second}, {&c.KeepAliveInterval, 15 * time.Second}, {&c.KeepAliveTimeout, 10 * time.Second}} {
		if *f.field == 0 {
			*f.field = f.def
		}
	}
	if c.Jobs == 0 {
		c.Jobs = 1
	}
	if c.MaxSize == 0 {
		c.MaxSize = 1 << 30
	}
	if c.Environments == 0 {
		c.Environments = 16
	}
	if c.EnvironmentsSize == 0 {
		c.EnvironmentsSize = 128 << 20
	}
	if c.Output == nil {
		c.Output = io.Discard
	}
	if c.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		c.Log = silent
	}
	if c.Name == "" {
		var err error
		if c.Name, err = os.Hostname(); err != nil {
			return c, err
		}
	}
	return c, nil
}

// Service runs jobs. It may be used concurrently.
type Service struct {
	cfg          Config
	dir          string
	environments *environments
	running      atomic.Int64
}

// New makes a service, and its directory.
func New(cfg Config) (*Service, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(cfg.Dir, "scripting-")
	if err != nil {
		return nil, err
	}
	cache := filepath.Join(dir, "environments")
	if err := os.Mkdir(cache, 0o700); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &Service{cfg: cfg, dir: dir, environments: newEnvironments(cache, cfg.Environments, cfg.EnvironmentsSize)}, nil
}

// Close removes the service's directory. No session may be served any more.
func (s *Service) Close() error { return os.RemoveAll(s.dir) }

// Load returns how many of the jobs that can run do, from 0 to 1.
func (s *Service) Load() float64 {
	return min(1, float64(s.running.Load())/float64(s.cfg.Jobs))
}

// Conn is a session with one user: messages of this protocol. Receive's octets are
// valid until its next call. A Receive that ctx ended has lost nothing.
type Conn interface {
	Send(ctx context.Context, message []byte) error
	Receive(ctx context.Context) ([]byte, error)
}

// errDone says that the job's program has ended.
var errDone = errors.New("job done")

// Serve serves one user: it takes a job, runs it and sends the result. It returns nil
// when the user has got that, or was sent elsewhere because the element is busy.
func (s *Service) Serve(ctx context.Context, conn Conn) error {
	n := s.running.Add(1)
	defer s.running.Add(-1)
	c := &client{Service: s, conn: conn}
	if n > int64(s.cfg.Jobs) {
		s.cfg.Log.Info("scripting: busy, user sent elsewhere")
		return c.send(ctx, NotReady{Reason: FullyLoaded, Info: s.cfg.Name})
	}
	dir, err := os.MkdirTemp(s.dir, "job-")
	if err != nil {
		return errors.Join(err, c.send(ctx, NotReady{Reason: OutOfResources, Info: s.cfg.Name}))
	}
	c.dir = dir
	return errors.Join(c.serve(ctx), os.RemoveAll(dir))
}

// client is one session.
type client struct {
	*Service
	conn Conn
	dir  string
	out  []byte // encoded messages
}

func (c *client) serve(ctx context.Context) error {
	if err := c.send(ctx, Ready{Info: c.cfg.Name}); err != nil {
		return err
	}
	environment, err := c.take(ctx)
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	if err := c.send(ctx, Status{}); err != nil {
		return err
	}
	code, err := c.work(ctx, environment)
	if err != nil {
		return err
	}
	c.cfg.Log.WithField("exit_code", code).Info("scripting: job done")
	if err := c.send(ctx, Status{Code: uint32(code)}); err != nil {
		return err
	}
	return c.deliver(ctx)
}

func (c *client) send(ctx context.Context, m Message) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.TransmitTimeout)
	defer cancel()
	c.out = m.Append(c.out[:0])
	return c.conn.Send(ctx, c.out)
}

func (c *client) receive(ctx context.Context) (Message, error) {
	b, err := c.conn.Receive(ctx)
	if err != nil {
		return nil, err
	}
	return Parse(b)
}

// take receives the input and, when the job has an environment that is not here, that.
func (c *client) take(ctx context.Context) (environment bool, err error) {
	needed, err := c.takeFile(ctx, inputName, func(m Environment) (bool, error) {
		have, err := c.environments.get(m.Hash, filepath.Join(c.dir, environmentName))
		if err != nil {
			return false, err
		}
		environment = true
		m.UploadNeeded = !have
		return !have, c.send(ctx, m)
	})
	if err != nil || !needed {
		return environment, err
	}
	_, err = c.takeFile(ctx, environmentName, func(Environment) (bool, error) {
		return false, errors.New("a second environment")
	})
	if err != nil {
		return false, err
	}
	return true, c.environments.put(filepath.Join(c.dir, environmentName))
}

// takeFile receives an upload. ask is called when the user asks for an environment,
// and returns whether it has to be uploaded.
func (c *client) takeFile(ctx context.Context, name string, ask func(Environment) (bool, error)) (needed bool, err error) {
	f, err := os.Create(filepath.Join(c.dir, name))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for size := int64(0); ; {
		part, cancel := context.WithTimeout(ctx, c.cfg.TransmitTimeout)
		m, err := c.receive(part)
		cancel()
		if err != nil {
			return false, err
		}
		switch m := m.(type) {
		case Environment:
			if needed, err = ask(m); err != nil {
				return false, err
			}
		case Upload:
			if len(m.Data) == 0 {
				return needed, nil
			}
			if size += int64(len(m.Data)); size > c.cfg.MaxSize {
				return false, fmt.Errorf("%s: %w", name, ErrTooLarge)
			}
			if _, err := f.Write(m.Data); err != nil {
				return false, err
			}
		default:
			return false, fmt.Errorf("%w: unexpected %T", ErrMalformed, m)
		}
	}
}

// work runs the job while it keeps in touch with the user.
func (c *client) work(ctx context.Context, environment bool) (code int, err error) {
	c.cfg.Log.WithField("environment", environment).Info("scripting: job begins")
	working, done := context.WithCancelCause(ctx)
	watching := make(chan error, 1)
	go func() {
		err := c.keepInTouch(working)
		done(err) // kills the job when the user is gone
		watching <- err
	}()
	code, err = run(working, c.dir, environment, c.cfg.MaxSize, c.cfg.Output)
	done(errDone)
	if gone := <-watching; !errors.Is(gone, errDone) {
		return 0, fmt.Errorf("user of a running job: %w", gone)
	}
	if err != nil {
		// As a shell that can't run a program: the job failed, not the element.
		c.cfg.Log.WithError(err).Warn("scripting: job can't run")
		return 126, nil
	}
	return code, nil
}

// keepInTouch sends keep-alives and answers those of the user, until the user does not
// answer or ctx ends, and returns why.
func (c *client) keepInTouch(ctx context.Context) error {
	next, waiting := time.Now(), false
	for {
		if now := time.Now(); !now.Before(next) {
			if waiting {
				return errors.New("no answer to a keep-alive")
			}
			if err := c.send(ctx, KeepAlive{}); err != nil {
				return errors.Join(err, context.Cause(ctx))
			}
			next, waiting = now.Add(c.cfg.KeepAliveTimeout), true
		}
		until, cancel := context.WithDeadline(ctx, next)
		m, err := c.receive(until)
		expired := until.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case expired:
			continue
		case err != nil:
			return err
		}
		switch m.(type) {
		case KeepAlive:
			if err := c.send(ctx, KeepAliveAck{}); err != nil {
				return errors.Join(err, context.Cause(ctx))
			}
		case KeepAliveAck:
			next, waiting = time.Now().Add(c.cfg.KeepAliveInterval), false
		default:
			return fmt.Errorf("%w: unexpected %T", ErrMalformed, m)
		}
	}
}

// deliver sends the result; a job that wrote none has an empty one.
func (c *client) deliver(ctx context.Context) error {
	f, err := os.Open(filepath.Join(c.dir, outputName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err == nil {
		defer f.Close()
		buf := make([]byte, MaxData)
		for {
			n, err := io.ReadFull(f, buf)
			if n > 0 {
				if err := c.send(ctx, Download{Data: buf[:n]}); err != nil {
					return err
				}
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				return err
			}
		}
	}
	return c.send(ctx, Download{})
}
