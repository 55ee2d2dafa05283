// Package cli is what all programs of the suite share on the command line:
// settings from flags, environment and files (Settings), logging, exit codes
// and signals (Main), and output in several formats (Printer).
//
// # Settings
//
// A program declares its settings once, as flags. Each setting then has
//
//   - a flag, --keep-alive-interval;
//   - an environment variable, RSERPOOL_KEEP_ALIVE_INTERVAL (an empty one counts
//     as absent);
//   - a key in the YAML configuration file, keep-alive-interval: keys are flat
//     and spelled as the flags are, lists are YAML lists or the flag's
//     comma-separated form;
//   - a default.
//
// The first of these that is there wins. The file is /etc/rserpool/PROGRAM.yaml
// if it exists, or the one named by --config, which must exist. Files in the
// directory beside it that is named like it with .conf.d in place of .yaml
// (/etc/rserpool/rspd.conf.d/*.yaml) are merged over it in the order of their
// names, key by key. Unknown keys are errors, as unknown flags are.
//
// A program may have sections besides: keys of the file that are lists of mappings,
// each of which is like a small file whose defaults are the program's settings.
// Those of several files add up.
package cli
