package scripting

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Names in the directory of a job. The program is in the input; the others are ours.
const (
	programName     = "ssrun"
	inputName       = "input.data"
	environmentName = "environment.data"
	outputName      = "output.data"
)

// killWait is how long after the end of a job's program its output is still read, if
// something that it started holds that open.
const killWait = time.Second

// ErrTooLarge says that an input, an environment or what an input unpacks to is longer than the
// element allows. It comes wrapped.
var ErrTooLarge = errors.New("too large")

// unpack extracts an archive (tar, also compressed by gzip or bzip2) into dir: regular
// files and directories, nothing outside of dir, and not more than limit octets.
func unpack(dir string, archive io.Reader, limit int64) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	plain, err := uncompressed(archive)
	if err != nil {
		return err
	}
	for t := tar.NewReader(plain); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
		if limit -= h.Size; limit < 0 {
			return fmt.Errorf("unpack %s: %w", h.Name, ErrTooLarge)
		}
		if err := extract(root, h, t); err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
}

func uncompressed(archive io.Reader) (io.Reader, error) {
	in := bufio.NewReader(archive)
	magic, err := in.Peek(3)
	if err != nil {
		return nil, fmt.Errorf("unpack: no archive: %w", err)
	}
	switch {
	case bytes.Equal(magic[:2], []byte{0x1f, 0x8b}):
		return gzip.NewReader(in)
	case string(magic) == "BZh":
		return bzip2.NewReader(in), nil
	}
	return in, nil
}

func extract(root *os.Root, h *tar.Header, content io.Reader) error {
	name := filepath.Clean(filepath.FromSlash(h.Name))
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeReg:
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, h.FileInfo().Mode().Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Close())
	}
	return fmt.Errorf("neither a file nor a directory (type %q)", h.Typeflag)
}

// run unpacks the input in dir and runs its program there, which gets the names of the
// output that it has to write and, if there is one, of the environment. It returns
// the program's exit code; errors are those of running it. When ctx ends the program
// and all that it started are killed.
func run(ctx context.Context, dir string, environment bool, limit int64, log io.Writer) (code int, err error) {
	input, err := os.Open(filepath.Join(dir, inputName))
	if err != nil {
		return 0, err
	}
	defer input.Close()
	if err := unpack(dir, input, limit); err != nil {
		return 0, err
	}
	program := filepath.Join(dir, programName)
	if err := os.Chmod(program, 0o700); err != nil {
		return 0, err
	}
	args := []string{outputName, ""}
	if environment {
		args[1] = environmentName
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = dir, log, log, killWait
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir}
	ownGroup(cmd)
	err = cmd.Run()
	if cmd.Process != nil {
		err = errors.Join(err, killGroup(cmd)) // what the program left behind
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case errors.As(err, &exit):
		return exit.ExitCode(), nil
	case errors.Is(err, exec.ErrWaitDelay):
		return 0, nil // it ended well; what it left behind held its output open
	}
	return 0, err
}
