package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// Names of the flags that every program has and that are not file keys.
const (
	flagConfig      = "config"
	flagCheckConfig = "check-config"
	flagPrintConfig = "print-config"
)

// Settings reads a program's settings, of the program's own type C, from flags,
// environment and files; see the package documentation. Make one with
// NewSettings, Bind it to the root command, and wrap the commands' run functions
// with Run. It is not safe for concurrent use, except that Load may be called
// while nothing else is.
type Settings[C any] struct {
	program  string
	dir      string
	declare  func(*pflag.FlagSet, *C)
	validate func(*C) error
	sections []section[C]
	flags    *pflag.FlagSet // the command line, once parsed
	log      *logrus.Logger
}

// NewSettings returns the settings of a program. declare declares each setting
// as a flag that stores into the given C, with its default; it is called anew
// for each load and has no other effect. validate, which may be nil, checks a
// complete C and names all problems at once (errors.Join).
func NewSettings[C any](program string, declare func(*pflag.FlagSet, *C), validate func(*C) error) *Settings[C] {
	return &Settings[C]{program: program, dir: "/etc/rserpool", declare: declare, validate: validate}
}

// section is a key of files whose value is a list of mappings.
type section[C any] struct {
	key     string
	declare func(*pflag.FlagSet, *C)
}

// Section makes a key of the files a list of mappings, such as
//
//	services:
//	  - pool: web
//	    service: tcp://127.0.0.1:8080
//
// declare is called for each mapping: it adds an item to C and declares the
// mapping's keys as flags that store into that. A key that a mapping leaves out has
// the value of the program's own flag of that name, wherever that is from.
func (s *Settings[C]) Section(key string, declare func(*pflag.FlagSet, *C)) {
	s.sections = append(s.sections, section[C]{key, declare})
}

// Bind adds the program's flags and the common ones to the root command and its
// subcommands.
func (s *Settings[C]) Bind(root *cobra.Command) { s.bind(root.PersistentFlags()) }

// BindAlone is Bind for a program that is its root command, and whose subcommands
// have other settings.
func (s *Settings[C]) BindAlone(root *cobra.Command) { s.bind(root.Flags()) }

func (s *Settings[C]) bind(fs *pflag.FlagSet) {
	s.flags = fs
	s.declareAll(fs, new(C), new(logSettings))
	fs.StringP(flagConfig, "c", "", fmt.Sprintf("configuration file (default %s if it exists)", s.defaultFile()))
	fs.Bool(flagCheckConfig, false, "check the configuration and exit: 0 if it is valid, 2 if not")
	fs.Bool(flagPrintConfig, false, "print the effective configuration with the origin of each value and exit")
}

func (s *Settings[C]) declareAll(fs *pflag.FlagSet, c *C, l *logSettings) {
	s.declare(fs, c)
	l.declare(fs)
}

func (s *Settings[C]) defaultFile() string { return s.dir + "/" + s.program + ".yaml" }

// Run makes a cobra RunE of a function that gets the valid settings and a
// logger, which writes to the command's error output. It handles --check-config
// and --print-config, and lets the environment set flags that only the
// subcommand has.
func (s *Settings[C]) Run(f func(cmd *cobra.Command, args []string, c C, log *logrus.Logger) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		s.log = newLogger(cmd.ErrOrStderr())
		c, err := s.load(cmd)
		switch {
		case s.wish(flagPrintConfig):
			// An invalid one too: the origins tell where to look.
			if printing := s.Print(cmd.OutOrStdout()); err == nil {
				err = printing
			}
			return err
		case err != nil:
			return err
		case s.wish(flagCheckConfig):
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "The configuration is valid.")
			return err
		}
		return f(cmd, args, c, s.log)
	}
}

func (s *Settings[C]) wish(flag string) bool {
	if f := s.flags.Lookup(flag); !f.Changed {
		v, _ := environment(flag)
		return v == "true" || v == "1"
	}
	on, _ := s.flags.GetBool(flag)
	return on
}

func (s *Settings[C]) load(cmd *cobra.Command) (C, error) {
	var errs []error
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if text, ok := environment(f.Name); ok && !f.Changed && s.flags.Lookup(f.Name) == nil && f.Name != "help" && f.Name != "version" {
			if err := f.Value.Set(text); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", EnvironmentName(f.Name), err))
			}
		}
	})
	r := s.resolve()
	// How to print an error is decided by the effective value too.
	if f := r.flags.Lookup("output"); f != nil {
		_ = s.flags.Lookup("output").Value.Set(f.Value.String())
	}
	if errs = append(errs, r.errs...); len(errs) > 0 {
		return *r.config, Exit(Usage, errors.Join(errs...))
	}
	r.logging.apply(s.log)
	return *r.config, nil
}

// Load reads flags, environment and files anew and returns the valid settings,
// or an error that names all problems. What earlier calls returned is not
// touched, so that a program can go on with it when a reload fails. Logging
// settings take effect at once if all is valid.
func (s *Settings[C]) Load() (C, error) {
	r := s.resolve()
	if len(r.errs) > 0 {
		return *r.config, Exit(Usage, errors.Join(r.errs...))
	}
	if s.log != nil {
		r.logging.apply(s.log)
	}
	return *r.config, nil
}

// Print writes the effective settings as a configuration file, with the origin
// of each value as a comment.
func (s *Settings[C]) Print(w io.Writer) error {
	r := s.resolve()
	var b strings.Builder
	r.flags.VisitAll(func(f *pflag.Flag) {
		fmt.Fprintf(&b, "%s: %s # %s\n", f.Name, yamlValue(f), r.origin[f.Name])
	})
	for i, items := range r.items {
		if len(items) == 0 {
			continue
		}
		fmt.Fprintf(&b, "%s:\n", s.sections[i].key)
		for _, it := range items {
			lead := "  - "
			it.flags.VisitAll(func(f *pflag.Flag) {
				fmt.Fprintf(&b, "%s%s: %s # %s\n", lead, f.Name, yamlValue(f), it.origin[f.Name])
				lead = "    "
			})
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func yamlValue(f *pflag.Flag) string {
	var v any = f.Value.String()
	switch value := f.Value.(type) {
	case pflag.SliceValue:
		v = &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle, Content: scalars(value.GetSlice())}
	default:
		if f.Value.Type() != "string" {
			v = &yaml.Node{Kind: yaml.ScalarNode, Value: f.Value.String()}
		}
	}
	text, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%q", f.Value.String())
	}
	if line := strings.TrimSuffix(string(text), "\n"); !strings.Contains(line, "\n") {
		return line
	}
	return fmt.Sprintf("%q", f.Value.String())
}

func scalars(list []string) []*yaml.Node {
	nodes := make([]*yaml.Node, len(list))
	for i, s := range list {
		nodes[i] = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	}
	return nodes
}

// resolved is the outcome of one look at all sources.
type resolved[C any] struct {
	config  *C
	logging *logSettings
	flags   *pflag.FlagSet    // bound to config and logging
	origin  map[string]string // by flag
	items   [][]item          // by section
	errs    []error
}

// item is one mapping of a section.
type item struct {
	flags  *pflag.FlagSet
	origin map[string]string
}

// resolve fills a fresh C from all sources. Each setting takes the first value
// of flag, environment, file, default; all problems are collected.
func (s *Settings[C]) resolve() *resolved[C] {
	r := &resolved[C]{
		config: new(C), logging: new(logSettings),
		flags: pflag.NewFlagSet(s.program, pflag.ContinueOnError), origin: map[string]string{},
	}
	s.declareAll(r.flags, r.config, r.logging)
	var keys []string
	r.flags.VisitAll(func(f *pflag.Flag) { keys = append(keys, f.Name) })

	path, required := s.defaultFile(), false
	if f := s.flags.Lookup(flagConfig); f.Changed {
		path, required = f.Value.String(), true
	} else if text, ok := environment(flagConfig); ok {
		path, required = text, true
	}
	layout := schema{keys: keys, sections: map[string][]string{}}
	for _, section := range s.sections {
		fs := pflag.NewFlagSet(section.key, pflag.ContinueOnError)
		section.declare(fs, new(C))
		fs.VisitAll(func(f *pflag.Flag) { layout.sections[section.key] = append(layout.sections[section.key], f.Name) })
	}
	files, errs := readFiles(path, required, layout)
	r.errs = errs

	v := viper.New()
	v.SetEnvPrefix("rserpool")
	v.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	v.AutomaticEnv()
	merged := map[string]any{}
	for key, value := range files {
		if _, isSection := layout.sections[key]; !isSection {
			merged[key] = value.value()
		}
	}
	if err := v.MergeConfigMap(merged); err != nil {
		r.errs = append(r.errs, err)
	}
	r.flags.VisitAll(func(f *pflag.Flag) {
		var err error
		given := s.flags.Lookup(f.Name)
		_, fromEnv := environment(f.Name)
		switch {
		case given.Changed:
			r.origin[f.Name] = "flag"
			err = copyValue(f.Value, given.Value)
		case v.IsSet(f.Name):
			r.origin[f.Name] = files[f.Name].where
			if fromEnv {
				r.origin[f.Name] = EnvironmentName(f.Name)
			}
			err = assign(f.Value, v.Get(f.Name))
		default:
			r.origin[f.Name] = "default"
		}
		if err != nil {
			r.errs = append(r.errs, fmt.Errorf("%s: %s: %w", r.origin[f.Name], f.Name, err))
		}
	})
	for _, section := range s.sections {
		var items []item
		for _, values := range files[section.key].items {
			items = append(items, r.item(section, values))
		}
		r.items = append(r.items, items)
	}
	// What could not be read has its default here, so that this finds the
	// problems of all the rest.
	r.errs = append(r.errs, r.logging.validate()...)
	if s.validate != nil {
		if err := s.validate(r.config); err != nil {
			r.errs = append(r.errs, err)
		}
	}
	return r
}

// item fills one mapping of a section from the file and, for what it leaves out, from
// the program's flags.
func (r *resolved[C]) item(s section[C], values map[string]fileValue) item {
	it := item{flags: pflag.NewFlagSet(s.key, pflag.ContinueOnError), origin: map[string]string{}}
	s.declare(it.flags, r.config)
	it.flags.VisitAll(func(f *pflag.Flag) {
		var err error
		if value, ok := values[f.Name]; ok {
			it.origin[f.Name] = value.where
			err = assign(f.Value, value.value())
		} else if own := r.flags.Lookup(f.Name); own != nil {
			it.origin[f.Name] = r.origin[f.Name]
			err = copyValue(f.Value, own.Value)
		} else {
			it.origin[f.Name] = "default"
		}
		if err != nil {
			r.errs = append(r.errs, fmt.Errorf("%s: %s: %w", it.origin[f.Name], f.Name, err))
		}
	})
	return it
}

// EnvironmentName returns the environment variable of a flag.
func EnvironmentName(flag string) string {
	return "RSERPOOL_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func environment(flag string) (string, bool) {
	text := os.Getenv(EnvironmentName(flag))
	return text, text != ""
}

func assign(to pflag.Value, value any) error {
	switch v := value.(type) {
	case []string:
		list, ok := to.(pflag.SliceValue)
		if !ok {
			return fmt.Errorf("a list where one value of type %s is wanted", to.Type())
		}
		return list.Replace(slices.Clone(v))
	case string:
		return to.Set(v)
	}
	return fmt.Errorf("unexpected value of type %T", value)
}

func copyValue(to, from pflag.Value) error {
	if list, ok := from.(pflag.SliceValue); ok {
		return assign(to, list.GetSlice())
	}
	return to.Set(from.String())
}
