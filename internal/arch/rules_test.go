package arch_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/doc"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// mayImport lists, for each package, which of our packages its shipped files
// may import. Arrows point down. A package that is not here does not exist yet:
// whoever adds one says here what it rests on.
var mayImport = map[string][]string{
	"imds":                 {"internal/secret"},
	"mint":                 {"internal/secret"},
	"mint/keydir":          {"mint"},
	"mint/publish":         {"mint"},
	"mint/workloadapi":     {"mint", "internal/secret"},
	"mint/tpm":             {"internal/secret"},
	"exchange":             {"internal/secret"},
	"exchange/entratest":   {},
	"proxy":                {"imds", "exchange", "internal/secret"},
	"deploy/federate":      {},
	"deploy/image":         {},
	"deploy/image/pack":    {"deploy/image"},
	"deploy/inject":        {"internal/config"},
	"deploy/migrate":       {"deploy/inject"},
	"deploy/redirect":      {},
	"deploy/podidentity":   {"deploy/inject"},
	"deploy/webhook":       {"deploy/inject", "deploy/podidentity"},
	"internal/arch":        {},
	"internal/config":      {"internal/secret"},
	"internal/emulation":   {"mint", "exchange/entratest"},
	"internal/doctor":      {"internal/config", "imds", "mint", "exchange", "deploy/redirect"},
	"internal/secret":      {},
	"internal/version":     {},
	"e2e":                  {anything},
	"e2e/bench":            {anything},
	"e2e/chaos":            {anything},
	"e2e/clients":          {anything},
	"e2e/netns":            {anything},
	"e2e/spire":            {anything},
	"e2e/verify":           {anything},
	"e2e/webhook":          {anything},
	"e2e/tpm":              {anything},
	"cmd/svidecar":         {anything},
	"cmd/svidecar-webhook": {anything},
	"cmd/svidecarctl":      {anything},
	"examples/whoami":      {},

	"e2e/kubernetes":           {anything},
	"e2e/kubernetes/app":       {},
	"e2e/kubernetes/build":     {"e2e/kubernetes/programs"},
	"e2e/kubernetes/cluster":   {"deploy/image", "e2e/kubernetes/programs"},
	"e2e/kubernetes/entra":     {"exchange/entratest"},
	"e2e/kubernetes/hyperkube": {},
	"e2e/kubernetes/pause":     {},
	"e2e/kubernetes/podlo":     {},
	"e2e/kubernetes/programs":  {},
}

// anything in [mayImport] stands for all of our packages.
const anything = "*"

// checkImports holds the table. Test files may import more of ours, because
// they bring the two sides of a boundary together, but no file outside of e2e
// imports what is in it.
func checkImports(tr *tree) (bad []string) {
	for _, p := range tr.packages() {
		allowed, known := mayImport[p.dir]
		if !known {
			bad = append(bad, fmt.Sprintf("%s: package is not in the table of imports", p.dir))
			continue
		}
		for _, f := range p.files {
			bad = append(bad, checkFileImports(tr, f, allowed)...)
		}
	}
	return bad
}

// inE2E reports whether a folder belongs to the end-to-end tests.
func inE2E(dir string) bool { return dir == "e2e" || strings.HasPrefix(dir, "e2e/") }

func checkFileImports(tr *tree, f *goFile, allowed []string) (bad []string) {
	imports := f.imports()
	for _, to := range slices.Sorted(maps.Keys(imports)) {
		ours, ok := strings.CutPrefix(to, module+"/")
		switch {
		case !ok:
		case inE2E(ours) && !inE2E(f.dir):
			bad = append(bad, tr.at(imports[to], "nothing but e2e imports %s", ours))
		case f.test || slices.Contains(allowed, anything) || slices.Contains(allowed, ours):
		default:
			bad = append(bad, tr.at(imports[to], "%s may not import %s", f.dir, ours))
		}
	}
	return bad
}

// vagueName matches names that say nothing of what a package owns.
var vagueName = regexp.MustCompile(`^(utils?|common|types|helpers?|pkg|misc|shared|base)$`)

// checkPackages wants each package to say first what it owns and what it never
// does, once, and to carry a name that means something.
func checkPackages(tr *tree) (bad []string) {
	for _, p := range tr.packages() {
		name := strings.TrimSuffix(p.files[0].ast.Name.Name, "_test")
		for _, elem := range append(strings.Split(p.dir, "/"), name) {
			if vagueName.MatchString(elem) {
				bad = append(bad, fmt.Sprintf("%s: the name %q says nothing", p.dir, elem))
				break
			}
		}
		if fault := checkComment(p, name); fault != "" {
			bad = append(bad, fmt.Sprintf("%s: %s", p.dir, fault))
		}
	}
	return bad
}

func checkComment(p pkg, name string) (fault string) {
	text := strings.Join(packageComments(p), "\n")
	opening := "Package " + name + " owns "
	if name == "main" {
		opening = "Command " + path.Base(p.dir) + " "
	}
	switch n := len(packageComments(p)); {
	case n == 0:
		return "no package comment"
	case n > 1:
		return fmt.Sprintf("%d package comments, want one", n)
	case !strings.HasPrefix(new(doc.Package).Synopsis(text), opening):
		return fmt.Sprintf("the package comment does not begin with %q", opening)
	case !strings.Contains(text, "never"):
		return `the package comment does not say what it "never" does`
	}
	return ""
}

// packageComments gives the package comments of the shipped files, or of the
// test files where there are no others.
func packageComments(p pkg) (texts []string) {
	shipped := slices.ContainsFunc(p.files, func(f *goFile) bool { return !f.test })
	for _, f := range p.files {
		if f.ast.Doc != nil && f.test != shipped {
			texts = append(texts, f.ast.Doc.Text())
		}
	}
	return texts
}

// checkSleeps refuses time.Sleep in tests that run on the real clock. A file
// that uses synctest may sleep inside a bubble and in the helpers and fakes
// that bubbles call, but not elsewhere in a test function.
func checkSleeps(tr *tree) (bad []string) {
	for _, f := range tr.gos {
		if !f.test {
			continue
		}
		bubbles := f.imports()["testing/synctest"] != nil
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if bubbles && !(ok && fn.Recv == nil && isTest.MatchString(fn.Name.Name)) {
				continue
			}
			bad = append(bad, sleepsOutsideBubble(tr, f, d)...)
		}
	}
	return bad
}

var isTest = regexp.MustCompile(`^(Test|Benchmark|Fuzz|Example)`)

func sleepsOutsideBubble(tr *tree, f *goFile, n ast.Node) (bad []string) {
	ast.Inspect(n, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && f.uses(call.Fun, "testing/synctest", "Test") {
			return false
		}
		if n != nil && f.uses(n, "time", "Sleep") {
			bad = append(bad, tr.at(n, "time.Sleep outside a synctest bubble"))
		}
		return true
	})
	return bad
}

// foreignTestLibrary matches import paths of mock and assertion libraries.
var foreignTestLibrary = regexp.MustCompile(`(?i)(^|/)(testify|gomock|mockery|ginkgo|gomega|goconvey|gocheck|go-testdeep|` +
	`quicktest|httpmock|go-sqlmock|gock|gotest\.tools|mocks?|asserts?)(/|$)|^go\.uber\.org/mock/|/matryer/is$`)

// checkTestLibraries keeps tests to the standard library, go-cmp, testscript
// and the real clients.
func checkTestLibraries(tr *tree) (bad []string) {
	for _, f := range tr.gos {
		imports := f.imports()
		for _, p := range slices.Sorted(maps.Keys(imports)) {
			if foreignTestLibrary.MatchString(p) {
				bad = append(bad, tr.at(imports[p], "%s is a mock or assertion library", p))
			}
		}
	}
	return bad
}

// checkLogging keeps the libraries quiet: they return errors and log nothing.
func checkLogging(tr *tree) (bad []string) {
	for _, f := range tr.gos {
		if f.test || !slices.Contains([]string{"imds", "mint", "mint/keydir", "mint/workloadapi", "exchange"}, f.dir) {
			continue
		}
		for _, p := range []string{"log", "log/slog"} {
			if spec := f.imports()[p]; spec != nil {
				bad = append(bad, tr.at(spec, "%s returns errors and does not log", f.dir))
			}
		}
	}
	return bad
}

const prometheus = "github.com/prometheus/client_golang/prometheus"

// checkMetrics keeps metrics off the process-wide registry.
func checkMetrics(tr *tree) (bad []string) {
	for _, f := range tr.gos {
		if spec := f.imports()[prometheus+"/promauto"]; spec != nil {
			bad = append(bad, tr.at(spec, "promauto registers globally"))
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch {
			case n == nil:
			case f.uses(n, prometheus, "MustRegister", "Register", "Unregister", "DefaultRegisterer", "DefaultGatherer"),
				f.uses(n, prometheus+"/promhttp", "Handler"):
				bad = append(bad, tr.at(n, "%s is the global registry", n.(*ast.SelectorExpr).Sel.Name))
			}
			return true
		})
	}
	return bad
}

// checkState refuses func init, and package variables that are more than error
// sentinels, tables, or the version that the linker sets.
func checkState(tr *tree) (bad []string) {
	for _, f := range tr.gos {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				bad = append(bad, tr.at(fn, "func init"))
			}
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR && !f.test {
				bad = append(bad, checkVars(tr, f, g)...)
			}
		}
	}
	return bad
}

func checkVars(tr *tree, f *goFile, g *ast.GenDecl) (bad []string) {
	for _, s := range g.Specs {
		spec := s.(*ast.ValueSpec)
		if embedded(g.Doc) || embedded(spec.Doc) {
			continue
		}
		for i, name := range spec.Names {
			var value ast.Expr
			if i < len(spec.Values) {
				value = spec.Values[i]
			}
			sentinel := strings.HasPrefix(strings.ToLower(name.Name), "err") && value != nil
			version := f.ast.Name.Name == "main" && name.Name == "release" // set by the linker
			if name.Name != "_" && !sentinel && !version && !constantTable(value) {
				bad = append(bad, tr.at(name, "package variable %s is neither an error nor a table", name.Name))
			}
		}
	}
	return bad
}

func embedded(c *ast.CommentGroup) bool {
	return c != nil && slices.ContainsFunc(c.List, func(l *ast.Comment) bool {
		return strings.HasPrefix(l.Text, "//go:embed ")
	})
}

// constantTable reports whether e looks like a value that is made once and then
// only read: a filled literal, or a call that makes something of literals. An
// empty map, a lock, and what a New function hands out are state.
func constantTable(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.CompositeLit:
		return len(e.Elts) > 0
	case *ast.CallExpr:
		if _, conversion := e.Fun.(*ast.ArrayType); conversion {
			return true
		}
		return compiles(callee(e)) || len(e.Args) > 0 && !makesState.MatchString(callee(e)) &&
			!slices.ContainsFunc(e.Args, func(arg ast.Expr) bool { return !literal(arg) })
	}
	return false
}

var (
	makesState = regexp.MustCompile(`(?i)(^|\.)(new|make|open|start)`)
	immutable  = []string{"errors.New", "strings.NewReplacer", "prometheus.NewDesc"}
)

// compiles reports whether the function called name gives a value that cannot
// change, whatever it is given.
func compiles(name string) bool {
	return strings.Contains(name, ".Must") || slices.Contains(immutable, name)
}

// callee is the name of the function that is called: f, or p.f.
func callee(call *ast.CallExpr) string {
	switch fn := call.Fun.(type) {
	case *ast.Ident:
		return fn.Name
	case *ast.SelectorExpr:
		if x, ok := fn.X.(*ast.Ident); ok {
			return x.Name + "." + fn.Sel.Name
		}
	}
	return "new" // of something unnamed
}

func literal(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.CompositeLit:
		return !slices.ContainsFunc(e.Elts, func(e ast.Expr) bool { return !literal(e) })
	}
	return false
}

// reveals counts, by shipped file, the places where a credential leaves its
// wrapper, in the form of the golden file.
func reveals(tr *tree) string {
	var out strings.Builder
	for _, f := range tr.gos {
		n := 0
		ast.Inspect(f.ast, func(node ast.Node) bool {
			if sel, ok := node.(*ast.SelectorExpr); ok && sel.Sel.Name == "Reveal" {
				n++
			}
			return true
		})
		if n > 0 && !f.test {
			fmt.Fprintf(&out, "%s:%d\n", f.path, n)
		}
	}
	return out.String()
}

// Lines of a file under cmd. One that makes a subcommand turns flags into a
// Config and calls what runs, no more; the others wire.
const (
	subcommandLines = 60
	wiringLines     = 120
)

// checkCmdLines complains of longer files.
func checkCmdLines(tr *tree) (bad []string) {
	for _, f := range tr.gos {
		if !strings.HasPrefix(f.path, "cmd/") || f.test {
			continue
		}
		limit := wiringLines
		if bytes.Contains(tr.all[f.path], []byte(" *cobra.Command {\n")) {
			limit = subcommandLines
		}
		if n := bytes.Count(tr.all[f.path], []byte("\n")); n > limit {
			bad = append(bad, fmt.Sprintf("%s: %d lines, want at most %d", f.path, n, limit))
		}
	}
	return bad
}

// privateWords are addresses of one builder's machine and network. They mean
// nothing to a reader and break elsewhere. Each is written in two halves so
// that this file does not contain it.
var privateWords = []string{
	"../sha" + "red", "/wo" + "rk/", "/tmp/bash" + "_jobs",
	"proxy.gol" + "ang.org", "sum.gol" + "ang.org", "registry.np" + "mjs.org", "pypi" + ".org", "files.python" + "hosted.org",
	"index.crat" + "es.io", "static.crat" + "es.io", "deb.deb" + "ian.org", "archive.ubu" + "ntu.com", "rubygems" + ".org",
	"repo.maven.apa" + "che.org", "api.nu" + "get.org",
}

// checkWords refuses them in any file.
func checkWords(tr *tree) (bad []string) {
	for _, name := range slices.Sorted(maps.Keys(tr.all)) {
		for _, w := range privateWords {
			if i := bytes.Index(tr.all[name], []byte(w)); i >= 0 {
				line := 1 + bytes.Count(tr.all[name][:i], []byte("\n"))
				bad = append(bad, fmt.Sprintf("%s:%d: %q belongs to one machine", name, line, w))
			}
		}
	}
	return bad
}

// requirement matches one line of go.mod's require blocks.
var requirement = regexp.MustCompile(`(?m)^(?:require\s+|\t)(\S+) v\S+( // indirect)?$`)

// checkDecisions wants a reason in docs/decisions.md for each module that
// go.mod requires directly.
func checkDecisions(tr *tree) (bad []string) {
	reqs := requirement.FindAllSubmatch(tr.all["go.mod"], -1)
	if len(reqs) == 0 {
		return []string{"go.mod: no requirement found"}
	}
	for _, m := range reqs {
		direct, cited := len(m[2]) == 0, "`"+string(m[1])+"`"
		if direct && !bytes.Contains(tr.all["docs/decisions.md"], []byte(cited)) {
			bad = append(bad, fmt.Sprintf("docs/decisions.md: no reason for %s", cited))
		}
	}
	return bad
}
