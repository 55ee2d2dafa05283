package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFileSize bounds a configuration file, in octets.
const maxFileSize = 1 << 20

// fileValue is a value from a configuration file: one scalar, a list, or the
// mappings of a section.
type fileValue struct {
	scalar string
	list   []string
	isList bool
	items  []map[string]fileValue
	where  string // file:line
}

func (v fileValue) value() any {
	if v.isList {
		return v.list
	}
	return v.scalar
}

// schema says what a mapping may have: plain keys, and sections with their keys.
type schema struct {
	keys     []string
	sections map[string][]string
}

func (s schema) names() []string {
	return slices.Concat(s.keys, slices.Sorted(maps.Keys(s.sections)))
}

// readFiles reads the main file and its drop-ins and returns the values by key,
// later files winning but for sections, which add up, and all problems found. An
// absent main file is a problem only if it is required.
func readFiles(path string, required bool, s schema) (map[string]fileValue, []error) {
	values := map[string]fileValue{}
	var errs []error
	dropIns, err := filepath.Glob(filepath.Join(globEscape(strings.TrimSuffix(path, filepath.Ext(path))+".conf.d"), "*.yaml"))
	if err != nil {
		errs = append(errs, err)
	}
	sort.Strings(dropIns)
	for i, name := range append([]string{path}, dropIns...) {
		data, err := readBounded(name)
		if i == 0 && !required && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found, problems := parseFile(name, data, s)
		errs = append(errs, problems...)
		for k, v := range found {
			v.items = append(values[k].items, v.items...)
			values[k] = v
		}
	}
	return values, errs
}

// globEscape makes a path safe as the fixed part of a glob pattern.
func globEscape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("%s: longer than %d octets", name, maxFileSize)
	}
	return data, nil
}

// parseFile reads one configuration file: a YAML mapping from the given keys to
// scalars or lists of scalars, and from sections to lists of such mappings. It
// returns what it could read and all problems.
func parseFile(name string, data []byte, s schema) (map[string]fileValue, []error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, []error{fmt.Errorf("%s: %w", name, err)}
	}
	if len(doc.Content) == 0 || isNull(doc.Content[0]) {
		return nil, nil // an empty file
	}
	p := parser{name: name}
	values := p.mapping(doc.Content[0], s)
	return values, p.errs
}

// parser reads one file and collects its problems.
type parser struct {
	name string
	errs []error
}

func (p *parser) problem(n *yaml.Node, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s:%d: %s", p.name, n.Line, fmt.Sprintf(format, args...)))
}

func (p *parser) mapping(n *yaml.Node, s schema) map[string]fileValue {
	if n.Kind != yaml.MappingNode {
		p.problem(n, "not a mapping of keys to values")
		return nil
	}
	values := map[string]fileValue{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, node := n.Content[i], n.Content[i+1]
		if !slices.Contains(s.names(), key.Value) || key.Kind != yaml.ScalarNode {
			if near := nearest(key.Value, s.names()); near != "" {
				p.problem(key, "unknown key %q (the nearest is %q)", key.Value, near)
			} else {
				p.problem(key, "unknown key %q", key.Value)
			}
			continue
		}
		if _, double := values[key.Value]; double {
			p.problem(key, "key %q is there twice", key.Value)
			continue
		}
		section, isSection := s.sections[key.Value]
		v := fileValue{where: p.where(node)}
		switch {
		case isNull(node):
			p.problem(node, "key %q has no value", key.Value)
			continue
		case isSection && node.Kind == yaml.SequenceNode:
			for _, item := range node.Content {
				v.items = append(v.items, p.mapping(item, schema{keys: section}))
			}
		case isSection:
			p.problem(node, "key %q: not a list of mappings", key.Value)
			continue
		case node.Kind == yaml.ScalarNode:
			v.scalar = node.Value
		case node.Kind == yaml.SequenceNode:
			v.isList, v.list = true, []string{}
			for _, item := range node.Content {
				if item.Kind != yaml.ScalarNode || isNull(item) {
					p.problem(item, "key %q: an item is not a plain value", key.Value)
					continue
				}
				v.list = append(v.list, item.Value)
			}
		default:
			p.problem(node, "key %q: neither a plain value nor a list of them; keys are flat, as the flags are", key.Value)
			continue
		}
		values[key.Value] = v
	}
	return values
}

func (p *parser) where(n *yaml.Node) string { return fmt.Sprintf("%s:%d", p.name, n.Line) }

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }
