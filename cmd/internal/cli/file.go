package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFileSize bounds a configuration file, in octets.
const maxFileSize = 1 << 20

// fileValue is a value from a configuration file: one scalar, or a list.
type fileValue struct {
	scalar string
	list   []string
	isList bool
	where  string // file:line
}

func (v fileValue) value() any {
	if v.isList {
		return v.list
	}
	return v.scalar
}

// readFiles reads the main file and its drop-ins and returns the values by key,
// later files winning, and all problems found. An absent main file is a problem
// only if it is required.
func readFiles(path string, required bool, keys []string) (map[string]fileValue, []error) {
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
		found, problems := parseFile(name, data, keys)
		errs = append(errs, problems...)
		for k, v := range found {
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
// scalars or lists of scalars. It returns what it could read and all problems.
func parseFile(name string, data []byte, keys []string) (map[string]fileValue, []error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, []error{fmt.Errorf("%s: %w", name, err)}
	}
	if len(doc.Content) == 0 || isNull(doc.Content[0]) {
		return nil, nil // an empty file
	}
	var errs []error
	problem := func(n *yaml.Node, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s:%d: %s", name, n.Line, fmt.Sprintf(format, args...)))
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		problem(root, "not a mapping of keys to values")
		return nil, errs
	}
	values := map[string]fileValue{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, node := root.Content[i], root.Content[i+1]
		if !slices.Contains(keys, key.Value) || key.Kind != yaml.ScalarNode {
			if near := nearest(key.Value, keys); near != "" {
				problem(key, "unknown key %q (the nearest is %q)", key.Value, near)
			} else {
				problem(key, "unknown key %q", key.Value)
			}
			continue
		}
		if _, double := values[key.Value]; double {
			problem(key, "key %q is there twice", key.Value)
			continue
		}
		v := fileValue{where: fmt.Sprintf("%s:%d", name, node.Line)}
		switch {
		case isNull(node):
			problem(node, "key %q has no value", key.Value)
			continue
		case node.Kind == yaml.ScalarNode:
			v.scalar = node.Value
		case node.Kind == yaml.SequenceNode:
			v.isList, v.list = true, []string{}
			for _, item := range node.Content {
				if item.Kind != yaml.ScalarNode || isNull(item) {
					problem(item, "key %q: an item is not a plain value", key.Value)
					continue
				}
				v.list = append(v.list, item.Value)
			}
		default:
			problem(node, "key %q: neither a plain value nor a list of them; keys are flat, as the flags are", key.Value)
			continue
		}
		values[key.Value] = v
	}
	return values, errs
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }
