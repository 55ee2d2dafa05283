package cli

import (
	"bytes"
	"testing"
)

func TestPrinterFormats(t *testing.T) {
	type pool struct {
		Handle   string   `json:"handle"`
		Elements int      `json:"elements"`
		Tags     []string `json:"tags"`
	}
	pools := []pool{{"echo", 3, nil}, {"12", 0, []string{"yes", "<a>"}}, {"\x1b[31m\ttab", 1, []string{}}}
	columns := []Column{{Name: "POOL", Width: 6}, {Name: "ELEMENTS", Width: 8}, {Name: "TAGS", Wide: true, Width: 4}}
	rows := [][]string{{"echo", "3", ""}, {"12", "0", "yes"}, {"\x1b[31m\ttab", "1", ""}}

	for _, test := range []struct {
		format    Format
		noHeaders bool
		print     string
		lines     string
	}{
		{Table, false, "POOL       ELEMENTS\necho       3\n12         0\n\ufffd[31m\ufffdtab  1\n",
			"POOL    ELEMENTS\necho    3\n12      0\n\ufffd[31m\ufffdtab  1\n"},
		{Table, true, "echo       3\n12         0\n\ufffd[31m\ufffdtab  1\n", "echo    3\n12      0\n\ufffd[31m\ufffdtab  1\n"},
		{Wide, false, "POOL       ELEMENTS  TAGS\necho       3         -\n12         0         yes\n\ufffd[31m\ufffdtab  1         -\n",
			"POOL    ELEMENTS  TAGS\necho    3         -\n12      0         yes\n\ufffd[31m\ufffdtab  1         -\n"},
		{JSON, false, `[
  {
    "handle": "echo",
    "elements": 3,
    "tags": null
  },
  {
    "handle": "12",
    "elements": 0,
    "tags": [
      "yes",
      "<a>"
    ]
  },
  {
    "handle": "\u001b[31m\ttab",
    "elements": 1,
    "tags": []
  }
]
`, `{"handle":"echo","elements":3,"tags":null}
{"handle":"12","elements":0,"tags":["yes","<a>"]}
{"handle":"\u001b[31m\ttab","elements":1,"tags":[]}
`},
		{YAML, false, `- handle: echo
  elements: 3
  tags: null
- handle: "12"
  elements: 0
  tags:
    - "yes"
    - <a>
- handle: "\e[31m\ttab"
  elements: 1
  tags: []
`, `---
handle: echo
elements: 3
tags: null
---
handle: "12"
elements: 0
tags:
  - "yes"
  - <a>
---
handle: "\e[31m\ttab"
elements: 1
tags: []
`},
	} {
		t.Run(string(test.format), func(t *testing.T) {
			var out bytes.Buffer
			p := &Printer{Out: &out, Format: test.format, NoHeaders: test.noHeaders}
			if err := p.Print(pools, columns, rows); err != nil {
				t.Fatal(err)
			}
			if out.String() != test.print {
				t.Errorf("Print gave\n%swant\n%s", out.String(), test.print)
			}
			out.Reset()
			for i := range pools {
				if err := p.Line(pools[i], columns, rows[i]); err != nil {
					t.Fatal(err)
				}
			}
			if out.String() != test.lines {
				t.Errorf("Line gave\n%swant\n%s", out.String(), test.lines)
			}
		})
	}
}
