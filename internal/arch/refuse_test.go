package arch_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	opensIMDS = "// Package imds owns a thing. It never sleeps.\npackage imds\n"
	opensMain = "// Command svidecar runs. It never stops.\npackage main\n"
	goMod     = "module m\n\nrequire (\n\texample.com/a v1.0.0\n\texample.com/b v1.0.0 // indirect\n)\n"
)

// refusals are trees that break or just keep a rule, with what the rule says.
var refusals = []struct {
	name  string
	rule  string
	files map[string]string
	want  []string
}{
	{
		name: "arrow between equals", rule: "imports",
		files: map[string]string{"imds/a.go": `package imds; import _ "github.com/svidecar/svidecar/mint"`},
		want:  []string{"imds/a.go:1: imds may not import mint"},
	},
	{
		name: "arrow upwards behind a build tag", rule: "imports",
		files: map[string]string{"mint/a.go": "//go:build plan9\n\npackage mint\n\nimport _ \"github.com/svidecar/svidecar/proxy\"\n"},
		want:  []string{"mint/a.go:5: mint may not import proxy"},
	},
	{
		name: "emulator sharing code", rule: "imports",
		files: map[string]string{"exchange/entratest/a.go": `package entratest; import _ "github.com/svidecar/svidecar/internal/secret"`},
		want:  []string{"exchange/entratest/a.go:1: exchange/entratest may not import internal/secret"},
	},
	{
		name: "package unknown to the table", rule: "imports",
		files: map[string]string{"internal/new/a.go": "package new"},
		want:  []string{"internal/new: package is not in the table of imports"},
	},
	{
		name: "e2e imported by a test and by a command", rule: "imports",
		files: map[string]string{
			"cmd/svidecar/main.go": `package main; import _ "github.com/svidecar/svidecar/e2e"`,
			"proxy/a_test.go":      `package proxy_test; import _ "github.com/svidecar/svidecar/e2e/spire"`,
		},
		want: []string{"cmd/svidecar/main.go:1: nothing but e2e imports e2e", "proxy/a_test.go:1: nothing but e2e imports e2e/spire"},
	},
	{
		name: "parts of e2e imported by one another", rule: "imports",
		files: map[string]string{"e2e/kubernetes/a_test.go": `package kubernetes_test; import _ "github.com/svidecar/svidecar/e2e/kubernetes/cluster"`},
	},
	{
		name: "allowed imports", rule: "imports",
		files: map[string]string{
			"exchange/a.go":        `package exchange; import (_ "context"; _ "github.com/svidecar/svidecar/internal/secret")`,
			"exchange/a_test.go":   `package exchange_test; import _ "github.com/svidecar/svidecar/exchange/entratest"`,
			"cmd/svidecar/main.go": `package main; import _ "github.com/svidecar/svidecar/exchange/entratest"`,
		},
	},

	{
		name: "no comment", rule: "packages",
		files: map[string]string{"imds/a.go": "package imds"},
		want:  []string{"imds: no package comment"},
	},
	{
		name: "comment on a test file only", rule: "packages",
		files: map[string]string{"imds/a.go": "package imds", "imds/a_test.go": opensIMDS},
		want:  []string{"imds: no package comment"},
	},
	{
		name: "two comments", rule: "packages",
		files: map[string]string{"imds/a.go": opensIMDS, "imds/b.go": opensIMDS},
		want:  []string{"imds: 2 package comments, want one"},
	},
	{
		name: "comment that owns nothing", rule: "packages",
		files: map[string]string{"imds/a.go": "// Package imds provides things. It never sleeps.\npackage imds"},
		want:  []string{`imds: the package comment does not begin with "Package imds owns "`},
	},
	{
		name: "comment without a limit", rule: "packages",
		files: map[string]string{"imds/a.go": "// Package imds owns things.\npackage imds"},
		want:  []string{`imds: the package comment does not say what it "never" does`},
	},
	{
		name: "command under another name", rule: "packages",
		files: map[string]string{"cmd/svidecarctl/main.go": opensMain},
		want:  []string{`cmd/svidecarctl: the package comment does not begin with "Command svidecarctl "`},
	},
	{
		name: "vague name in the path and as the name", rule: "packages",
		files: map[string]string{
			"internal/util/log/a.go": "// Package log owns logs. It never rotates.\npackage log",
			"proxy/a.go":             "// Package types owns types. It never acts.\npackage types",
		},
		want: []string{`internal/util/log: the name "util" says nothing`, `proxy: the name "types" says nothing`},
	},
	{
		name: "good comments", rule: "packages",
		files: map[string]string{
			"imds/a.go":            opensIMDS,
			"imds/a_test.go":       "// Tests.\npackage imds_test",
			"cmd/svidecar/main.go": opensMain,
			"e2e/a_test.go":        "// Package e2e owns whole runs. It never ships.\npackage e2e_test",
		},
	},

	{
		name: "sleep on the real clock", rule: "sleeps",
		files: map[string]string{"imds/a_test.go": "package imds_test\nimport \"time\"\nfunc TestA(t *testing.T) { time.Sleep(1) }"},
		want:  []string{"imds/a_test.go:3: time.Sleep outside a synctest bubble"},
	},
	{
		name: "sleep by another name and as a value", rule: "sleeps",
		files: map[string]string{"imds/a_test.go": "package imds_test\nimport clock \"time\"\nvar nap = clock.Sleep"},
		want:  []string{"imds/a_test.go:3: time.Sleep outside a synctest bubble"},
	},
	{
		name: "sleep beside a bubble", rule: "sleeps",
		files: map[string]string{"imds/a_test.go": "package imds_test\nimport (\"testing/synctest\"; \"time\")\n" +
			"func TestA(t *testing.T) {\n synctest.Test(t, func(t *testing.T) { time.Sleep(1) })\n time.Sleep(2)\n}"},
		want: []string{"imds/a_test.go:5: time.Sleep outside a synctest bubble"},
	},
	{
		name: "sleep in a bubble, in its fake, and in shipped code", rule: "sleeps",
		files: map[string]string{
			"imds/a_test.go": "package imds_test\nimport (\"testing/synctest\"; \"time\")\n" +
				"func slow() { time.Sleep(1) }\nfunc TestA(t *testing.T) { synctest.Test(t, func(t *testing.T) { time.Sleep(1); slow() }) }",
			"imds/a.go": "package imds\nimport \"time\"\nfunc A() { time.Sleep(1) }",
		},
	},

	{
		name: "mocks and assertions", rule: "test libraries",
		files: map[string]string{"imds/a_test.go": `package imds_test; import (_ "github.com/golang/mock/gomock"; ` +
			`_ "github.com/stretchr/testify/require"; _ "go.uber.org/mock/gomock"; _ "gotest.tools/v3/assert")`},
		want: []string{
			"imds/a_test.go:1: github.com/golang/mock/gomock is a mock or assertion library",
			"imds/a_test.go:1: github.com/stretchr/testify/require is a mock or assertion library",
			"imds/a_test.go:1: go.uber.org/mock/gomock is a mock or assertion library",
			"imds/a_test.go:1: gotest.tools/v3/assert is a mock or assertion library",
		},
	},
	{
		name: "allowed test libraries", rule: "test libraries",
		files: map[string]string{"imds/a_test.go": `package imds_test; import (_ "github.com/google/go-cmp/cmp"; ` +
			`_ "github.com/rogpeppe/go-internal/testscript"; _ "testing")`},
	},

	{
		name: "libraries that log", rule: "logging",
		files: map[string]string{
			"imds/a.go":     `package imds; import "log"`,
			"exchange/a.go": `package exchange; import l "log/slog"`,
		},
		want: []string{"exchange/a.go:1: exchange returns errors and does not log", "imds/a.go:1: imds returns errors and does not log"},
	},
	{
		name: "others that log", rule: "logging",
		files: map[string]string{
			"proxy/a.go":     `package proxy; import "log/slog"`,
			"mint/a_test.go": `package mint_test; import "log/slog"`,
		},
	},

	{
		name: "global registry", rule: "metrics",
		files: map[string]string{"proxy/a.go": `package proxy
import (
	prom "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)
func f() { prom.MustRegister(nil) }
var r = prom.DefaultRegisterer
var h = promhttp.Handler()
`},
		want: []string{
			"proxy/a.go:4: promauto registers globally",
			"proxy/a.go:7: MustRegister is the global registry",
			"proxy/a.go:8: DefaultRegisterer is the global registry",
			"proxy/a.go:9: Handler is the global registry",
		},
	},
	{
		name: "own registry", rule: "metrics",
		files: map[string]string{"proxy/a.go": `package proxy
import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)
func f(r *prometheus.Registry) { r.MustRegister(nil); promhttp.HandlerFor(r, promhttp.HandlerOpts{}) }
`},
	},

	{
		name: "init and variables", rule: "state",
		files: map[string]string{"imds/a.go": `package imds
func init() {}
var count int
var cache = map[string]int{}
var mu = sync.Mutex{}
var hook = func() {}
var one, two = newState(), []int{1}
var version = "1"
var errLater error
var sized = newCache(10)
var gauge = prometheus.NewGauge(prometheus.GaugeOpts{"a"})
var start = clock()
var on = flag.Bool("on", false, "")
var held = maker().thing("a")
`},
		want: []string{
			"imds/a.go:2: func init",
			"imds/a.go:3: package variable count is neither an error nor a table",
			"imds/a.go:4: package variable cache is neither an error nor a table",
			"imds/a.go:5: package variable mu is neither an error nor a table",
			"imds/a.go:6: package variable hook is neither an error nor a table",
			"imds/a.go:7: package variable one is neither an error nor a table",
			"imds/a.go:9: package variable errLater is neither an error nor a table",
			"imds/a.go:10: package variable sized is neither an error nor a table",
			"imds/a.go:11: package variable gauge is neither an error nor a table",
			"imds/a.go:12: package variable start is neither an error nor a table",
			"imds/a.go:13: package variable on is neither an error nor a table",
			"imds/a.go:14: package variable held is neither an error nor a table",
		},
	},
	{
		name: "init in a test", rule: "state",
		files: map[string]string{"imds/a_test.go": "package imds_test\nfunc init() {}"},
		want:  []string{"imds/a_test.go:2: func init"},
	},
	{
		name: "allowed variables", rule: "state",
		files: map[string]string{
			"imds/a.go": `package imds
type s struct{}
func (s) init() {}
var (
	ErrRefused = errors.New("imds: refused")
	errInner   = fmt.Errorf("imds: %w", ErrRefused)
	pattern    = regexp.MustCompile("a")
	prefix     = netip.MustParsePrefix("169.254.0.0/16")
	address    = netip.AddrFrom4([4]byte{169, 254, 169, 254})
	hits       = desc("hits_total", "Hits.")
	dash       = prometheus.NewDesc("a", "b", nil, nil)
	escape     = strings.NewReplacer("a", "b")
	table      = map[string]int{"a": 1}
	list       = [...]string{"a"}
	clouds     = cloudTable{"a"}
	body       = []byte("{}")
	_ error    = (*s)(nil)
)
//go:embed a.html
var page []byte
`,
			"imds/a_test.go":       "package imds_test\nvar update = flag.Bool(\"update\", false, \"\")",
			"cmd/svidecar/main.go": "package main\nvar release string",
		},
	},

	{
		name: "long command", rule: "command length",
		files: map[string]string{
			"cmd/svidecar/serve.go": "package main\nfunc f() *cobra.Command {\n" + lines(59) + "}\n",
			"cmd/svidecar/wire.go":  "package main\n" + lines(120), "proxy/a.go": "package proxy\n" + lines(500),
		},
		want: []string{"cmd/svidecar/serve.go: 62 lines, want at most 60", "cmd/svidecar/wire.go: 121 lines, want at most 120"},
	},
	{
		name: "command of the limit", rule: "command length",
		files: map[string]string{"cmd/svidecar/serve.go": "package main\n" + lines(119), "cmd/svidecar/a_test.go": "package main\n" + lines(500)},
	},

	{
		name: "addresses of one machine", rule: "private words",
		files: map[string]string{
			"README.md":              "one\ncd " + privateWords[1] + "main\n",
			".ci/run":                "GOPROXY=https://" + privateWords[3] + "\n",
			"proxy/testdata/x/a.txt": privateWords[0],
		},
		want: []string{
			`.ci/run:1: "` + privateWords[3] + `" belongs to one machine`,
			`README.md:2: "` + privateWords[1] + `" belongs to one machine`,
			`proxy/testdata/x/a.txt:1: "` + privateWords[0] + `" belongs to one machine`,
		},
	},
	{
		name: "innocent words and skipped folders", rule: "private words",
		files: map[string]string{"README.md": "a framework/x, shared/y", ".git/config": privateWords[1], "bin/svidecar": privateWords[1]},
	},

	{
		name: "module without a reason", rule: "decisions",
		files: map[string]string{"go.mod": goMod, "docs/decisions.md": "`example.com/a/v2` is another module. example.com/a is bare."},
		want:  []string{"docs/decisions.md: no reason for `example.com/a`"},
	},
	{
		name: "go.mod that the rule cannot read", rule: "decisions",
		files: map[string]string{"go.mod": "module m\n"},
		want:  []string{"go.mod: no requirement found"},
	},
	{
		name: "module with a reason", rule: "decisions",
		files: map[string]string{"go.mod": goMod, "docs/decisions.md": "- `example.com/a`: because."},
	},

	{
		name: "no Dockerfile", rule: "dockerfile",
		want: []string{"Dockerfile: no stage found"},
	},
	{
		name: "careless Dockerfile", rule: "dockerfile",
		files: map[string]string{
			"cmd/a/main.go": "package main", "cmd/b/main.go": "package main", "cmd/c/main.go": "package main", "cmd/d/main.go": "package main",
			"Dockerfile": "FROM scratch AS base\nUSER 0\nFROM alpine AS b\nUSER 1\nFROM base AS c\nFROM scratch AS d\nUSER 65532:65532\nENTRYPOINT /d\n",
		},
		want: []string{
			`Dockerfile: the last stage is "d", want svidecar`,
			"Dockerfile: a: no stage of that name",
			`Dockerfile: b: made from "alpine", want scratch`,
			`Dockerfile: c: runs as "0", want a number other than 0`,
			`Dockerfile: d: starts /d, want ["/d"]`,
		},
	},
	{
		name: "folder that .dockerignore keeps out", rule: "context",
		files: map[string]string{
			"cmd/a/main.go":      "package main\nimport _ \"github.com/svidecar/svidecar/mint/b\"",
			"examples/c/main.go": "package main",
			"Dockerfile":         "RUN go build ./cmd/... ./examples/...\n", ".dockerignore": "*\n!cmd\n!deploy\n",
		},
		want: []string{
			".dockerignore: the Dockerfile builds from examples, which is kept out",
			".dockerignore: the Dockerfile builds from mint, which is kept out",
		},
	},
	{
		name: "good Dockerfile", rule: "dockerfile",
		files: map[string]string{
			"cmd/svidecar/main.go": "package main",
			"Dockerfile":           "FROM --platform=x golang:1 AS build\nRUN y\nFROM scratch AS base\nUSER 65532:65532\nFROM base AS svidecar\nENTRYPOINT [\"/svidecar\"]\n",
		},
	},
}

func lines(n int) string { return string(slices.Repeat([]byte("\n"), n)) }

// TestRulesRefuse tries each rule on trees that break it.
func TestRulesRefuse(t *testing.T) {
	refused := map[string]bool{}
	for _, tt := range refusals {
		t.Run(tt.rule+": "+tt.name, func(t *testing.T) {
			got := rules[tt.rule](inventedTree(t, tt.files))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("complaints (-want +got):\n%s", diff)
			}
		})
		refused[tt.rule] = refused[tt.rule] || len(tt.want) > 0
	}
	for name := range maps.Keys(rules) {
		if !refused[name] {
			t.Errorf("no invented tree breaks the rule %q: it may be unable to fail", name)
		}
	}
}

func TestForbiddenModules(t *testing.T) {
	mods := []string{
		"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi",
		"github.com/AzureAD/microsoft-authentication-library-for-go",
		"k8s.io/client-go",
		"sigs.k8s.io/controller-runtime",
	}
	want := []string{"links " + mods[0], "links " + mods[2], "links " + mods[3]}
	if diff := cmp.Diff(want, forbiddenModules(mods, mayNotLink["svidecar"])); diff != "" {
		t.Errorf("forbiddenModules (-want +got):\n%s", diff)
	}
	if got := forbiddenModules(mods, mayNotLink["svidecarctl"]); got != nil {
		t.Errorf("forbiddenModules for svidecarctl = %q, want none", got)
	}
}

func TestRevealsCountsShippedUses(t *testing.T) {
	tr := inventedTree(t, map[string]string{
		"exchange/a.go":      "package exchange\nfunc f(v secret.Value) { g(v.Reveal(), v.Reveal()); h(v.Reveal) }",
		"exchange/a_test.go": "package exchange\nfunc f(v secret.Value) { v.Reveal() }",
		"imds/b.go":          "package imds\n// Reveal is only named here.\nfunc f() {}",
	})
	if got, want := reveals(tr), "exchange/a.go:3\n"; got != want {
		t.Errorf("reveals = %q, want %q", got, want)
	}
}
